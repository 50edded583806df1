"""Every metric of the GPU exporter, once: name, kind, help, labels, and the calls of the driver that it comes from.

Label values stand in this order everywhere. Those of a device begin with `gpu`, its number, and `uuid`.
"""

from typing import Literal

from infermeter_exporters.families import Family, by_name

DEVICE = ("gpu", "uuid")
OWNER = ("service", "container_name")

# Services that are none: what is known of no process, what nobody used, and what is beyond a limit.
UNATTRIBUTED, IDLE, OTHER = "_unattributed", "_idle", "_other"


def _device(
    name: str, kind: Literal["gauge", "counter", "info"], text: str, source: str = "", labels: tuple[str, ...] = ()
) -> Family:
    """A family whose series are each of one GPU."""
    return Family("nvidia_gpu_" + name, kind, text, (*DEVICE, *labels), source)


def _exporter(
    name: str, kind: Literal["gauge", "counter", "info"], text: str, labels: tuple[str, ...] = (), source: str = ""
) -> Family:
    """A family about the exporter itself."""
    return Family("nvidia_gpu_exporter_" + name, kind, text, labels, source)


FAMILIES: dict[str, Family] = by_name(
    # --- what there is ----------------------------------------------------------------------------------------------
    Family("nvidia_gpu_devices", "gauge", "GPUs that the driver knows, lost ones among them.", (), "DeviceGetCount_v2"),
    Family(
        "nvidia_gpu_pci_devices",
        "gauge",
        "NVIDIA GPUs on the PCI bus; more than nvidia_gpu_devices if one fell off the driver.",
        (),
        "/sys/bus/pci/devices, vendor 0x10de, class 0x03",
    ),
    Family(
        "nvidia_gpu_driver_info",
        "info",
        "The driver of this host.",
        ("driver_version", "nvml_version", "cuda_version"),
        "SystemGetDriverVersion, SystemGetNVMLVersion, SystemGetCudaDriverVersion_v2",
    ),
    _device(
        "info",
        "info",
        'What the GPU is; simulated is "true" for one that does not exist.',
        "DeviceGetName, PciInfo_v3, Serial, MinorNumber, Brand, Architecture, CudaComputeCapability, VbiosVersion, "
        "NumaNodeId, VirtualizationMode",
        (
            "name",
            "pci_bus_id",
            "serial",
            "minor",
            "brand",
            "architecture",
            "compute_capability",
            "vbios_version",
            "numa_node",
            "virtualization",
            "simulated",
        ),
    ),
    _device("up", "gauge", "Whether the GPU answers, 0 or 1; if not, it has no values.", "every call"),
    _device(
        "status", "gauge", "The state of the GPU as 1, every other state as 0.", "error of the last call", ("state",)
    ),
    _device(
        "runtime_suspended",
        "gauge",
        "Whether the GPU sleeps, 0 or 1; while it does it is not asked for anything, which would wake it.",
        "/sys/bus/pci/devices/*/power/runtime_status",
    ),
    # --- who uses how much ------------------------------------------------------------------------------------------
    _device(
        "utilization",
        "gauge",
        "Part of the GPU's time that each service used, in percent; all of a GPU add up to the time it was busy.",
        "DeviceGetProcessUtilization, UtilizationRates",
        OWNER,
    ),
    _device("busy_ratio", "gauge", "Part of the time in which a kernel ran, 0 to 1.", "DeviceGetUtilizationRates"),
    _device(
        "memory_used_bytes",
        "gauge",
        "Memory that each service holds, in bytes; all of a GPU add up to what is used.",
        "DeviceGetComputeRunningProcesses_v3, GraphicsRunningProcesses_v3, MemoryInfo_v2",
        OWNER,
    ),
    _device("memory_usage_percent", "gauge", "Used part of the memory, in percent.", "DeviceGetMemoryInfo_v2"),
    _device("memory_total_bytes", "gauge", "Memory that the GPU has, in bytes.", "DeviceGetMemoryInfo_v2"),
    _device("memory_free_bytes", "gauge", "Memory that is free, in bytes.", "DeviceGetMemoryInfo_v2"),
    _device(
        "memory_reserved_bytes", "gauge", "Memory that the driver keeps for itself, in bytes.", "DeviceGetMemoryInfo_v2"
    ),
    _device(
        "service_sm_utilization",
        "gauge",
        "Time of the multiprocessors that the processes of a service report, in percent, as the driver says it.",
        "DeviceGetProcessUtilization",
        OWNER,
    ),
    _device(
        "service_sm_seconds_total",
        "counter",
        "Seconds of the whole GPU that each service used: the integral of its part of the GPU's time.",
        "DeviceGetProcessUtilization",
        OWNER,
    ),
    _device(
        "service_energy_joules_total",
        "counter",
        "Energy that each service used, in joules: by its part of the GPU's time, beyond what an idle GPU draws.",
        "DeviceGetTotalEnergyConsumption, ProcessUtilization",
        OWNER,
    ),
    _device(
        "service_processes", "gauge", "Processes of each service on the GPU.", "DeviceGet*RunningProcesses_v3", OWNER
    ),
    Family(
        "nvidia_gpu_workload_info",
        "info",
        "Where each service on a GPU runs.",
        ("uuid", *OWNER, "workload_namespace", "workload_pod"),
        "/proc/PID/cgroup and what knows its containers",
    ),
    _device(
        "processes", "gauge", "Processes on the GPU by what they do there.", "DeviceGet*RunningProcesses_v3", ("type",)
    ),
    _device(
        "process_memory_used_bytes",
        "gauge",
        "Memory that a process holds, in bytes; the largest of each GPU, the others together as pid _other.",
        "DeviceGet*RunningProcesses_v3",
        ("pid", "process_name", "service"),
    ),
    _device(
        "process_sm_utilization",
        "gauge",
        "Part of the GPU's time that a process used, in percent; with the same processes as its memory.",
        "DeviceGetProcessUtilization",
        ("pid", "process_name", "service"),
    ),
    _device(
        "cost_usd_total",
        "counter",
        "What the GPU cost, in USD, by service; what nobody used is of service _idle.",
        "prices of the configuration",
        ("service",),
    ),
    Family(
        "gpu_seconds_total",
        "counter",
        "Seconds in which the GPU was there, used or not.",
        DEVICE,
        "time between readings",
    ),
    # --- power, heat, clocks ----------------------------------------------------------------------------------------
    _device("power_draw", "gauge", "Power that the GPU draws, in watts.", "DeviceGetPowerUsage"),
    _device(
        "power_limit_watts",
        "gauge",
        "Limits of the power draw, in watts.",
        "DeviceGetEnforcedPowerLimit, PowerManagementDefaultLimit, PowerManagementLimitConstraints",
        ("kind",),
    ),
    _device(
        "energy_joules_total",
        "counter",
        "Energy that the GPU used, in joules; it goes on where the driver's own counter starts over.",
        "DeviceGetTotalEnergyConsumption, else the integral of PowerUsage",
    ),
    _device("temperature_celsius", "gauge", "Temperature of the GPU, in degrees Celsius.", "DeviceGetTemperature"),
    _device("memory_temperature_celsius", "gauge", "Temperature of its memory, in degrees Celsius.", "field 82"),
    _device(
        "temperature_threshold_celsius",
        "gauge",
        "Temperatures at which the GPU slows down, stops, or that it should not exceed, in degrees Celsius.",
        "DeviceGetTemperatureThreshold",
        ("kind",),
    ),
    _device(
        "temperature_margin_celsius",
        "gauge",
        "Degrees Celsius until the GPU slows down.",
        "DeviceGetMarginTemperature",
    ),
    _device("clock_hertz", "gauge", "Clocks, in hertz.", "DeviceGetClockInfo", ("clock",)),
    _device("clock_max_hertz", "gauge", "Highest clocks, in hertz.", "DeviceGetMaxClockInfo", ("clock",)),
    _device(
        "throttle_active",
        "gauge",
        "Whether a reason holds the clocks down now, 0 or 1.",
        "DeviceGetCurrentClocksEventReasons, else CurrentClocksThrottleReasons",
        ("reason",),
    ),
    _device(
        "throttle_seconds_total",
        "counter",
        "Seconds in which a reason held the clocks down.",
        "DeviceGetViolationStatus",
        ("reason",),
    ),
    _device("performance_state", "gauge", "Performance state, 0 (highest) to 15.", "DeviceGetPerformanceState"),
    _device("fan_speed_ratio", "gauge", "Speed of a fan, of its highest, 0 to 1.", "DeviceGetFanSpeed_v2", ("fan",)),
    _device("fan_speed_rpm", "gauge", "Speed of a fan, in turns per minute.", "DeviceGetFanSpeedRPM", ("fan",)),
    _device(
        "persistence_mode",
        "gauge",
        "Whether the driver stays loaded without users, 0 or 1.",
        "DeviceGetPersistenceMode",
    ),
    # --- engines ----------------------------------------------------------------------------------------------------
    _device(
        "engine_busy_ratio",
        "gauge",
        "Part of the time in which an engine worked, 0 to 1.",
        "DeviceGetEncoderUtilization, DecoderUtilization, JpgUtilization, OfaUtilization",
        ("engine",),
    ),
    _device(
        "memory_busy_ratio",
        "gauge",
        "Part of the time in which memory was read or written, 0 to 1.",
        "DeviceGetUtilizationRates",
    ),
    _device("busy_max_ratio", "gauge", "Highest busy ratio since the last reading, 0 to 1.", "DeviceGetSamples"),
    _device("sm_active_ratio", "gauge", "Part of the time in which a multiprocessor had work, 0 to 1.", "GPM 2"),
    _device("sm_occupancy_ratio", "gauge", "Resident warps, of the most that there can be, 0 to 1.", "GPM 3"),
    _device("tensor_active_ratio", "gauge", "Part of the time in which tensor cores worked, 0 to 1.", "GPM 5"),
    _device("dram_active_ratio", "gauge", "Used part of the memory bandwidth, 0 to 1.", "GPM 10"),
    _device("fp64_active_ratio", "gauge", "Part of the time in which FP64 units worked, 0 to 1.", "GPM 11"),
    _device("fp32_active_ratio", "gauge", "Part of the time in which FP32 units worked, 0 to 1.", "GPM 12"),
    _device("fp16_active_ratio", "gauge", "Part of the time in which FP16 units worked, 0 to 1.", "GPM 13"),
    _device(
        "bar1_memory_used_bytes", "gauge", "Memory that is mapped for the host, in bytes.", "DeviceGetBAR1MemoryInfo"
    ),
    # --- buses ------------------------------------------------------------------------------------------------------
    _device("pcie_sent_bytes_total", "counter", "Bytes that the GPU sent over PCIe.", "field 197"),
    _device("pcie_received_bytes_total", "counter", "Bytes that the GPU received over PCIe.", "field 198"),
    _device("pcie_link_generation", "gauge", "Generation of the PCIe link now.", "DeviceGetCurrPcieLinkGeneration"),
    _device(
        "pcie_link_generation_max", "gauge", "Highest generation of the PCIe link.", "DeviceGetMaxPcieLinkGeneration"
    ),
    _device("pcie_link_width", "gauge", "Lanes of the PCIe link now.", "DeviceGetCurrPcieLinkWidth"),
    _device("pcie_link_width_max", "gauge", "Most lanes of the PCIe link.", "DeviceGetMaxPcieLinkWidth"),
    _device(
        "pcie_replays_total", "counter", "Transfers over PCIe that had to be repeated.", "DeviceGetPcieReplayCounter"
    ),
    _device("nvlink_up", "gauge", "Whether an NVLink is up, 0 or 1.", "DeviceGetNvLinkState", ("link",)),
    _device("nvlink_sent_bytes_total", "counter", "Bytes that the GPU sent over an NVLink.", "field 138", ("link",)),
    _device(
        "nvlink_received_bytes_total", "counter", "Bytes that the GPU received over an NVLink.", "field 139", ("link",)
    ),
    _device(
        "nvlink_errors_total",
        "counter",
        "Errors of an NVLink by type.",
        "DeviceGetNvLinkErrorCounter",
        ("link", "type"),
    ),
    _device(
        "fabric_state",
        "gauge",
        "State of the NVLink fabric: 0 none, 1 not started, 2 in progress, 3 completed.",
        "DeviceGetGpuFabricInfoV",
    ),
    # --- health -----------------------------------------------------------------------------------------------------
    _device("ecc_mode", "gauge", "Whether memory errors are corrected, 0 or 1.", "DeviceGetEccMode"),
    _device(
        "ecc_errors_total",
        "counter",
        "Memory errors by severity, since the driver was loaded (volatile) or ever (aggregate).",
        "DeviceGetTotalEccErrors",
        ("severity", "counter"),
    ),
    _device("remapped_rows", "gauge", "Rows of memory that were replaced.", "DeviceGetRemappedRows", ("severity",)),
    _device(
        "remap_pending", "gauge", "Whether a row waits for a reset to be replaced, 0 or 1.", "DeviceGetRemappedRows"
    ),
    _device("remap_failure", "gauge", "Whether a row could not be replaced, 0 or 1.", "DeviceGetRemappedRows"),
    _device("retired_pages", "gauge", "Pages of memory that are no longer used.", "DeviceGetRetiredPages", ("cause",)),
    _device(
        "retired_pages_pending",
        "gauge",
        "Whether a page waits for a restart to be retired, 0 or 1.",
        "DeviceGetRetiredPagesPendingStatus",
    ),
    _device(
        "recovery_action",
        "gauge",
        "What the driver recommends: 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.",
        "field 230",
    ),
    _device(
        "xid_errors_total",
        "counter",
        "Errors that the driver reported, by their number and by whether application, hardware or driver is to blame.",
        "EventSetWait_v2, /dev/kmsg",
        ("xid", "class"),
    ),
    _device(
        "xid_last_timestamp_seconds",
        "gauge",
        "When the driver last reported this error, in seconds since 1970.",
        "EventSetWait_v2, /dev/kmsg",
        ("xid",),
    ),
    # --- MIG --------------------------------------------------------------------------------------------------------
    _device("mig_mode", "gauge", "Whether the GPU is divided by MIG, 0 or 1.", "DeviceGetMigMode"),
    _device(
        "mig_info",
        "info",
        "The instances of a GPU that is divided.",
        "DeviceGetMigDeviceHandleByIndex, Name, GpuInstanceId, ComputeInstanceId",
        ("mig_uuid", "gpu_instance", "compute_instance", "profile"),
    ),
    _device(
        "mig_memory_used_bytes",
        "gauge",
        "Memory that is used in an instance, in bytes.",
        "DeviceGetMemoryInfo_v2",
        ("mig_uuid", "gpu_instance"),
    ),
    _device(
        "mig_memory_total_bytes",
        "gauge",
        "Memory that an instance has, in bytes.",
        "DeviceGetMemoryInfo_v2",
        ("mig_uuid", "gpu_instance"),
    ),
    _device(
        "mig_sm_active_ratio",
        "gauge",
        "Part of the time in which a multiprocessor of an instance had work, 0 to 1.",
        "GpmMigSampleGet, GPM 2",
        ("mig_uuid", "gpu_instance"),
    ),
    # --- the exporter -----------------------------------------------------------------------------------------------
    _exporter("build_info", "info", "The exporter.", ("version", "python_version")),
    _exporter(
        "source_up", "gauge", "Whether a source of readings could be used when it was last tried, 0 or 1.", ("source",)
    ),
    _exporter("source_active", "gauge", "Whether readings come from this source now, 0 or 1.", ("source",)),
    _exporter(
        "attribution_up",
        "gauge",
        "Whether a source of names of services could be used when it was last tried, 0 or 1.",
        ("source",),
    ),
    _exporter("collect_duration_seconds", "gauge", "Time the last reading of all GPUs took, in seconds.", ("tier",)),
    _exporter("collections_total", "counter", "Readings of single GPUs.", ("tier",)),
    _exporter(
        "call_errors_total", "counter", "Calls of the driver that failed otherwise than unsupported.", ("call", "error")
    ),
    _exporter("worker_up", "gauge", "Whether the process that talks to the driver is there and answers, 0 or 1."),
    _exporter(
        "worker_restarts_total", "counter", "Times that the process that talks to the driver was replaced.", ("reason",)
    ),
    _exporter("workers_abandoned", "gauge", "Processes that hang in the driver and cannot be ended."),
    _exporter(
        "unattributed_processes",
        "gauge",
        "Processes on GPUs of which no service is known, by reason.",
        ("reason",),
    ),
    _exporter(
        "series_dropped_total", "counter", "Services that were put together as _other, beyond the limit.", ("reason",)
    ),
    _exporter(
        "config_last_reload_successful", "gauge", "Whether the last reading of the configuration succeeded, 0 or 1."
    ),
)
