/* libnvidia-ml.so.1 without a driver: the machine, and what is one value of a GPU. What a scenario does not name is
   not supported. Layouts are those of nvidia-ml-py's ctypes definitions. */
#include "scenario.h"

#include <stdio.h>
#include <string.h>

#define GPU_TEXT(name, key) \
    API int name(struct device *d, char *to, unsigned size) { DEVICE(d); return text_of(d->gpu, key, to, size); }
#define GPU_U32(name, key) API int name(struct device *d, unsigned *to) { DEVICE(d); return u32_of(d->gpu, key, to); }
#define GPU_U64(name, key) API int name(struct device *d, uint64_t *to) { DEVICE(d); return u64_of(d->gpu, key, to); }
#define ENGINE(name, key) \
    API int name(struct device *d, unsigned *to, unsigned *period) { \
        DEVICE(d); \
        *period = 167000; \
        return u32_of(d->gpu, key, to); \
    }

static int of_list(int gpu, const char *key, unsigned index, unsigned *to) {
    char text[TEXT], *word, *rest;
    if (!line(gpu, key, 0, text)) return NOT_SUPPORTED;
    for (word = strtok_r(text, " ", &rest); word && index--; word = strtok_r(NULL, " ", &rest)) {}
    if (!word || !strcmp(word, "-")) return word ? NOT_SUPPORTED : INVALID_ARGUMENT;
    *to = (unsigned)parsed(word);
    return SUCCESS;
}

/* --- the machine */
API int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ENTER(EVERY);
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    return SUCCESS;
}
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlShutdown(void) {
    ENTER(EVERY);
    __atomic_sub_fetch(&started, 1, __ATOMIC_SEQ_CST);
    return SUCCESS;
}
API const char *nvmlErrorString(int code) {
    static __thread char text[32];
    snprintf(text, sizeof text, "Error %d", code);
    return text;
}
API int nvmlSystemGetDriverVersion(char *to, unsigned size) { ENTER(EVERY); return text_of(EVERY, "driver_version", to, size); }
API int nvmlSystemGetNVMLVersion(char *to, unsigned size) { ENTER(EVERY); return text_of(EVERY, "nvml_version", to, size); }
API int nvmlSystemGetCudaDriverVersion_v2(unsigned *to) { ENTER(EVERY); return u32_of(EVERY, "cuda_version", to); }
API int nvmlDeviceGetCount_v2(unsigned *to) { ENTER(EVERY); *to = (unsigned)gpus(); return SUCCESS; }
API int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **to) {
    ENTER(EVERY);
    if (index >= (unsigned)gpus() || index >= GPUS) return INVALID_ARGUMENT;
    ENTER((int)index);
    *to = device_of((int)index, -1);
    return SUCCESS;
}
API int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **to) {
    char text[TEXT];
    ENTER(EVERY);
    for (int gpu = 0; gpu < gpus() && gpu < GPUS; gpu++) {
        if (text_of(gpu, "uuid", text, TEXT) || strcmp(text, uuid)) continue;
        ENTER(gpu);
        *to = device_of(gpu, -1);
        return SUCCESS;
    }
    return NOT_FOUND;
}

/* --- what it is */
GPU_TEXT(nvmlDeviceGetSerial, "serial")
GPU_TEXT(nvmlDeviceGetVbiosVersion, "vbios_version")
GPU_TEXT(nvmlDeviceGetBoardPartNumber, "board_part_number")
GPU_U32(nvmlDeviceGetMinorNumber, "minor")
GPU_U32(nvmlDeviceGetBrand, "brand")
GPU_U32(nvmlDeviceGetArchitecture, "architecture")
GPU_U32(nvmlDeviceGetNumaNodeId, "numa_node")
GPU_U32(nvmlDeviceGetVirtualizationMode, "virtualization")
GPU_U32(nvmlDeviceGetComputeMode, "compute_mode")
GPU_U32(nvmlDeviceGetPersistenceMode, "persistence")
GPU_U32(nvmlDeviceGetAccountingMode, "accounting_mode")
API int nvmlDeviceGetIndex(struct device *d, unsigned *to) { DEVICE(d); *to = (unsigned)d->gpu; return SUCCESS; }
API int nvmlDeviceGetGspFirmwareVersion(struct device *d, char *to) { DEVICE(d); return text_of(d->gpu, "gsp_version", to, 64); }
API int nvmlDeviceGetCudaComputeCapability(struct device *d, int *major, int *minor) {
    char text[TEXT];
    DEVICE(d);
    if (!line(d->gpu, "compute_capability", 0, text)) return NOT_SUPPORTED;
    return sscanf(text, "%d.%d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED;
}
API int nvmlDeviceGetAccountingStats(struct device *d, unsigned pid, void *to) {
    (void)pid, (void)to;
    DEVICE(d);
    return NOT_SUPPORTED;
}
API int nvmlDeviceGetConfComputeGpuCertificate(struct device *d, void *to) { (void)to; DEVICE(d); return NOT_SUPPORTED; }
struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
};
API int nvmlDeviceGetPciInfo_v3(struct device *d, struct pci *to) {
    char text[TEXT];
    DEVICE(d);
    memset(to, 0, sizeof *to);
    if (!line(d->gpu, "pci", 0, text)) return NOT_SUPPORTED;
    if (sscanf(text, "%x:%x:%x", &to->domain, &to->bus, &to->device) != 3) return NOT_SUPPORTED;
    snprintf(to->legacy, sizeof to->legacy, "%04X:%02X:%02X.0", to->domain & 0xffff, to->bus & 0xff, to->device & 0xff);
    snprintf(to->address, sizeof to->address, "%08X:%02X:%02X.0", to->domain, to->bus & 0xff, to->device & 0xff);
    return u32_of(d->gpu, "pci_device_id", &to->id) ? SUCCESS : SUCCESS;
}

/* --- use, power, heat, clocks */
API int nvmlDeviceGetUtilizationRates(struct device *d, unsigned to[2]) {
    DEVICE(d);
    if (d->mig >= 0) return NOT_SUPPORTED;
    int told = u32_of(d->gpu, "utilization", &to[0]);
    return told ? told : u32_of(d->gpu, "memory_utilization", &to[1]);
}
ENGINE(nvmlDeviceGetEncoderUtilization, "encoder")
ENGINE(nvmlDeviceGetDecoderUtilization, "decoder")
ENGINE(nvmlDeviceGetJpgUtilization, "jpeg")
ENGINE(nvmlDeviceGetOfaUtilization, "ofa")
GPU_U32(nvmlDeviceGetPowerUsage, "power")
GPU_U64(nvmlDeviceGetTotalEnergyConsumption, "energy")
GPU_U32(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
GPU_U32(nvmlDeviceGetPowerManagementLimit, "power_limit")
GPU_U32(nvmlDeviceGetPowerManagementDefaultLimit, "power_limit_default")
API int nvmlDeviceGetPowerManagementLimitConstraints(struct device *d, unsigned *least, unsigned *most) {
    DEVICE(d);
    int told = u32_of(d->gpu, "power_limit_min", least);
    return told ? told : u32_of(d->gpu, "power_limit_max", most);
}
API int nvmlDeviceGetTemperature(struct device *d, int sensor, unsigned *to) {
    DEVICE(d);
    return sensor ? INVALID_ARGUMENT : u32_of(d->gpu, "temperature", to);
}
API int nvmlDeviceGetTemperatureV(struct device *d, unsigned to[3]) {
    DEVICE(d);
    return to[0] != 0x100000c ? VERSION_MISMATCH : u32_of(d->gpu, "temperature", &to[2]);
}
API int nvmlDeviceGetMarginTemperature(struct device *d, unsigned to[2]) {
    DEVICE(d);
    return to[0] != 0x1000008 ? VERSION_MISMATCH : u32_of(d->gpu, "temperature_margin", &to[1]);
}
API int nvmlDeviceGetTemperatureThreshold(struct device *d, unsigned kind, unsigned *to) {
    DEVICE(d);
    return of_list(d->gpu, "temperature_thresholds", kind, to);
}
API int nvmlDeviceGetClockInfo(struct device *d, unsigned kind, unsigned *to) { DEVICE(d); return of_list(d->gpu, "clocks", kind, to); }
API int nvmlDeviceGetMaxClockInfo(struct device *d, unsigned kind, unsigned *to) { DEVICE(d); return of_list(d->gpu, "clocks_max", kind, to); }
GPU_U64(nvmlDeviceGetCurrentClocksEventReasons, "event_reasons")
GPU_U64(nvmlDeviceGetCurrentClocksThrottleReasons, "event_reasons")
GPU_U64(nvmlDeviceGetSupportedClocksEventReasons, "event_reasons_supported")
GPU_U32(nvmlDeviceGetPerformanceState, "performance_state")
GPU_U32(nvmlDeviceGetNumFans, "fans")
GPU_U32(nvmlDeviceGetFanSpeed, "fan_speed")
API int nvmlDeviceGetFanSpeed_v2(struct device *d, unsigned fan, unsigned *to) { DEVICE(d); return of_list(d->gpu, "fan_speed", fan, to); }
API int nvmlDeviceGetFanSpeedRPM(struct device *d, unsigned to[3]) {
    DEVICE(d);
    return to[0] != 0x100000c ? VERSION_MISMATCH : of_list(d->gpu, "fan_rpm", to[1], &to[2]);
}
API int nvmlDeviceGetViolationStatus(struct device *d, unsigned policy, uint64_t to[2]) {
    char key[32];
    DEVICE(d);
    to[0] = now_us();
    snprintf(key, sizeof key, "violation_%u", policy);
    return u64_of(d->gpu, key, &to[1]);
}

/* --- PCIe, NVLink */
GPU_U32(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation")
GPU_U32(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation_max")
GPU_U32(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
GPU_U32(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
GPU_U32(nvmlDeviceGetPcieReplayCounter, "pcie_replays")
API int nvmlDeviceGetPcieThroughput(struct device *d, unsigned way, unsigned *to) { DEVICE(d); return of_list(d->gpu, "pcie_throughput", way, to); }
API int nvmlDeviceGetNvLinkState(struct device *d, unsigned link, unsigned *to) { DEVICE(d); return of_list(d->gpu, "nvlink", link, to); }
API int nvmlDeviceGetNvLinkVersion(struct device *d, unsigned link, unsigned *to) { (void)link; DEVICE(d); return u32_of(d->gpu, "nvlink_version", to); }
API int nvmlDeviceGetNvLinkRemoteDeviceType(struct device *d, unsigned link, unsigned *to) { (void)link; DEVICE(d); return u32_of(d->gpu, "nvlink_remote", to); }
API int nvmlDeviceGetNvLinkErrorCounter(struct device *d, unsigned link, unsigned counter, uint64_t *to) {
    char key[40];
    unsigned found;
    DEVICE(d);
    snprintf(key, sizeof key, "nvlink_errors_%u", counter);
    int told = of_list(d->gpu, key, link, &found);
    if (!told) *to = found;
    return told;
}
struct fabric {
    unsigned version;
    unsigned char cluster[16];
    unsigned status, clique;
    unsigned char state;
    unsigned health;
};
API int nvmlDeviceGetGpuFabricInfoV(struct device *d, struct fabric *to) {
    unsigned state;
    DEVICE(d);
    if (to->version != 0x2000024 && to->version != 0x3000028) return VERSION_MISMATCH;
    int told = u32_of(d->gpu, "fabric_state", &state);
    if (told) return told;
    to->status = 0;
    to->state = (unsigned char)state;
    return SUCCESS;
}

/* --- health */
API int nvmlDeviceGetEccMode(struct device *d, unsigned *now, unsigned *pending) {
    DEVICE(d);
    int told = u32_of(d->gpu, "ecc_mode", now);
    if (!told) *pending = *now;
    return told;
}
API int nvmlDeviceGetTotalEccErrors(struct device *d, unsigned kind, unsigned counter, uint64_t *to) {
    DEVICE(d);
    if (kind > 1 || counter > 1) return INVALID_ARGUMENT;
    return u64_of(d->gpu, (const char *[]){"ecc_corrected_volatile", "ecc_corrected_aggregate", "ecc_uncorrected_volatile", "ecc_uncorrected_aggregate"}[2 * kind + counter], to);
}
API int nvmlDeviceGetMemoryErrorCounter(struct device *d, unsigned kind, unsigned counter, unsigned where, uint64_t *to) {
    char key[40];
    DEVICE(d);
    snprintf(key, sizeof key, "ecc_%u_%u_%u", kind, counter, where);
    return u64_of(d->gpu, key, to);
}
API int nvmlDeviceGetSramEccErrorStatus(struct device *d, unsigned *to) {
    DEVICE(d);
    if (to[0] != 0x1000068) return VERSION_MISMATCH;
    memset(to + 1, 0, 100);
    return u64_of(d->gpu, "ecc_sram_uncorrected", (uint64_t *)(void *)(to + 2));
}
API int nvmlDeviceGetRemappedRows(struct device *d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    char text[TEXT];
    DEVICE(d);
    if (!line(d->gpu, "remapped_rows", 0, text)) return NOT_SUPPORTED;
    return sscanf(text, "%u %u %u %u", corrected, uncorrected, pending, failed) == 4 ? SUCCESS : NOT_SUPPORTED;
}
API int nvmlDeviceGetRowRemapperHistogram(struct device *d, unsigned to[5]) {
    DEVICE(d);
    for (unsigned i = 0; i < 5; i++) {
        int told = of_list(d->gpu, "remap_histogram", i, &to[i]);
        if (told) return told;
    }
    return SUCCESS;
}
GPU_U32(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pages_pending")
GPU_U64(nvmlDeviceGetSupportedEventTypes, "event_types")
