/* MIG, GPM and events. */
#include "scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- MIG: "mig INDEX GI CI SLICES TOTAL USED UUID NAME" */
static int part_of(struct device *d, unsigned *gi, unsigned *ci, unsigned *slices, uint64_t *total) {
    char text[TEXT];
    unsigned long long bytes;
    int at;
    for (int i = 0; line(d->gpu, "mig", i, text); i++) {
        if (sscanf(text, "%d %u %u %u %llu", &at, gi, ci, slices, &bytes) != 5 || at != d->mig) continue;
        *total = bytes;
        return SUCCESS;
    }
    return NOT_FOUND;
}
API int nvmlDeviceGetMigMode(struct device *d, unsigned *now, unsigned *pending) {
    DEVICE(d);
    int told = u32_of(d->gpu, "mig_mode", now);
    if (!told) *pending = *now;
    return told;
}
API int nvmlDeviceGetMaxMigDeviceCount(struct device *d, unsigned *to) {
    DEVICE(d);
    if (u32_of(d->gpu, "mig_max", to)) *to = 0;
    return SUCCESS;
}
API int nvmlDeviceGetMigDeviceHandleByIndex(struct device *d, unsigned index, struct device **to) {
    unsigned gi, ci, slices;
    uint64_t total;
    DEVICE(d);
    if (index >= PARTS) return INVALID_ARGUMENT;
    struct device *part = device_of(d->gpu, (int)index);
    if (part_of(part, &gi, &ci, &slices, &total)) return NOT_FOUND;
    *to = part;
    return SUCCESS;
}
API int nvmlDeviceIsMigDeviceHandle(struct device *d, unsigned *to) { DEVICE(d); *to = d->mig >= 0; return SUCCESS; }
API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct device *d, struct device **to) {
    DEVICE(d);
    if (d->mig < 0) return INVALID_ARGUMENT;
    *to = device_of(d->gpu, -1);
    return SUCCESS;
}
API int nvmlDeviceGetGpuInstanceId(struct device *d, unsigned *to) {
    unsigned ci, slices;
    uint64_t total;
    DEVICE(d);
    return d->mig < 0 ? NOT_SUPPORTED : part_of(d, to, &ci, &slices, &total);
}
API int nvmlDeviceGetComputeInstanceId(struct device *d, unsigned *to) {
    unsigned gi, slices;
    uint64_t total;
    DEVICE(d);
    return d->mig < 0 ? NOT_SUPPORTED : part_of(d, &gi, to, &slices, &total);
}
struct attributes {
    unsigned sms, copy, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
    uint64_t megabytes;
};
API int nvmlDeviceGetAttributes_v2(struct device *d, struct attributes *to) {
    unsigned gi, ci, slices;
    uint64_t total;
    DEVICE(d);
    if (d->mig < 0) return NOT_SUPPORTED;
    if (part_of(d, &gi, &ci, &slices, &total)) return NOT_FOUND;
    *to = (struct attributes){14 * slices, 1, 0, 0, 0, 0, slices, slices, total >> 20};
    return SUCCESS;
}
struct gpu_instance {
    int gpu;
    unsigned id;
};
API int nvmlDeviceGetGpuInstanceById(struct device *d, unsigned id, struct gpu_instance **to) {
    static struct gpu_instance all[GPUS][16];
    unsigned gi, ci, slices;
    uint64_t total;
    DEVICE(d);
    for (int i = 0; i < PARTS; i++) {
        if (part_of(device_of(d->gpu, i), &gi, &ci, &slices, &total) || gi != id || id > 15) continue;
        all[d->gpu][id] = (struct gpu_instance){d->gpu, id};
        *to = &all[d->gpu][id];
        return SUCCESS;
    }
    return NOT_FOUND;
}
struct gpu_instance_info {
    struct device *device;
    unsigned id, profile, start, size;
};
API int nvmlGpuInstanceGetInfo(struct gpu_instance *instance, struct gpu_instance_info *to) {
    if (!instance) return INVALID_ARGUMENT;
    ENTER(instance->gpu);
    *to = (struct gpu_instance_info){device_of(instance->gpu, -1), instance->id, 0, 0, 1};
    return SUCCESS;
}

/* --- GPM: "gpm 1", "gpm_metric ID VALUE", "gpm_part GI ID VALUE" */
struct gpm_sample {
    int gpu, part;
    uint64_t time;
};
struct gpm_metric {
    unsigned id, told;
    double value;
    const char *names[3];
};
struct gpm_get {
    unsigned version, count;
    struct gpm_sample *first, *second;
    struct gpm_metric of[477];
};
static int gpm(int gpu) {
    unsigned has = 0;
    return !u32_of(gpu, "gpm", &has) && has;
}
API int nvmlGpmQueryDeviceSupport(struct device *d, unsigned to[2]) {
    DEVICE(d);
    if (to[0] != 1) return VERSION_MISMATCH;
    to[1] = (unsigned)gpm(d->gpu);
    return SUCCESS;
}
API int nvmlGpmSampleAlloc(struct gpm_sample **to) {
    ENTER(EVERY);
    *to = calloc(1, sizeof **to);
    if (*to) (*to)->gpu = -1;
    return *to ? SUCCESS : 20;
}
API int nvmlGpmSampleFree(struct gpm_sample *sample) { ENTER(EVERY); free(sample); return SUCCESS; }
API int nvmlGpmSampleGet(struct device *d, struct gpm_sample *to) {
    DEVICE(d);
    if (!to) return INVALID_ARGUMENT;
    if (!gpm(d->gpu)) return NOT_SUPPORTED;
    *to = (struct gpm_sample){d->gpu, -1, now_us()};
    return SUCCESS;
}
API int nvmlGpmMigSampleGet(struct device *d, unsigned gi, struct gpm_sample *to) {
    DEVICE(d);
    if (!to) return INVALID_ARGUMENT;
    if (!gpm(d->gpu)) return NOT_SUPPORTED;
    *to = (struct gpm_sample){d->gpu, (int)gi, now_us()};
    return SUCCESS;
}
API int nvmlGpmMetricsGet(struct gpm_get *get) {
    char text[TEXT];
    int part, used;
    unsigned id;
    if (get->version != 1) return VERSION_MISMATCH;
    if (!get->first || !get->second || get->first->gpu < 0 || get->first->gpu != get->second->gpu) return INVALID_ARGUMENT;
    if (get->first->part != get->second->part || get->count > 477) return INVALID_ARGUMENT;
    ENTER(get->first->gpu);
    int whole = get->first->part < 0;
    for (unsigned m = 0; m < get->count; m++) {
        get->of[m].told = NOT_SUPPORTED;
        for (int i = 0; line(get->first->gpu, whole ? "gpm_metric" : "gpm_part", i, text); i++) {
            part = -1;
            used = 0;
            if (!whole && sscanf(text, "%d %n", &part, &used) != 1) continue;
            if (part != get->first->part || sscanf(text + used, "%u %lf", &id, &get->of[m].value) != 2) continue;
            if (id != get->of[m].id) continue;
            get->of[m].told = SUCCESS;
            break;
        }
        if (get->of[m].told) get->of[m].value = 0;
    }
    return SUCCESS;
}

/* --- events: "xid SEQUENCE gpu N CODE", each once to every set that was there before */
struct events {
    char watched[GPUS];
    uint64_t after;
};
struct event {
    struct device *device;
    unsigned long long type, data;
    unsigned gi, ci;
};
API int nvmlEventSetCreate(struct events **to) {
    ENTER(EVERY);
    *to = calloc(1, sizeof **to);
    if (!*to) return 20;
    (*to)->after = last_xid();
    return SUCCESS;
}
API int nvmlEventSetFree(struct events *set) { ENTER(EVERY); free(set); return SUCCESS; }
API int nvmlDeviceRegisterEvents(struct device *d, unsigned long long types, struct events *set) {
    uint64_t supported;
    DEVICE(d);
    if (u64_of(d->gpu, "event_types", &supported) || (types & ~supported)) return NOT_SUPPORTED;
    if (types & 8) set->watched[d->gpu] = 1;
    return SUCCESS;
}
API int nvmlEventSetWait_v2(struct events *set, struct event *to, unsigned milliseconds) {
    const struct timespec nap = {0, 5000000};
    uint64_t since = now_us(), sequence;
    unsigned code;
    int gpu;
    for (;;) {
        ENTER(EVERY);
        if (next_xid(set->after, set->watched, &sequence, &gpu, &code)) {
            set->after = sequence;
            *to = (struct event){device_of(gpu, -1), 8, code, 0xffffffff, 0xffffffff};
            return SUCCESS;
        }
        if (now_us() - since >= 1000ull * milliseconds) return TIMED_OUT;
        nanosleep(&nap, NULL);
    }
}
