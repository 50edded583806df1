"""What the driver is asked each minute about a GPU: what it is, what its limits are, and whether its memory is well."""

import ctypes
from collections.abc import Iterator

import pynvml

from infermeter_exporters.gpu.nvml_calls import Calls, text
from infermeter_exporters.gpu.nvml_mig import Mig
from infermeter_exporters.gpu.nvml_normal import CLOCKS
from infermeter_exporters.gpu.readings import Value

_BRANDS = {
    pynvml.NVML_BRAND_QUADRO: "Quadro",
    pynvml.NVML_BRAND_TESLA: "Tesla",
    pynvml.NVML_BRAND_NVS: "NVS",
    pynvml.NVML_BRAND_GRID: "Grid",
    pynvml.NVML_BRAND_GEFORCE: "GeForce",
    pynvml.NVML_BRAND_TITAN: "Titan",
    12: "Quadro RTX",
    13: "NVIDIA RTX",
    14: "Nvidia",
    15: "GeForce RTX",
    16: "Titan RTX",
}
_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_VIRTUALIZATIONS = {0: "none", 1: "passthrough", 2: "vgpu", 3: "host_vgpu", 4: "host_vsga"}
_THRESHOLDS = {
    "shutdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    "slowdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    "mem_max": pynvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    "gpu_max": pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
}
_SEVERITIES = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
_COUNTERS = {"volatile": pynvml.NVML_VOLATILE_ECC, "aggregate": pynvml.NVML_AGGREGATE_ECC}
_CAUSES = {
    "single_bit": pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    "double_bit": pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
}
_RECOVERY_ACTION = 230


class Slow:
    """Reads the slow tier of one GPU.

    Args:
        calls: to the driver.
        mig: its instances.
        pci: its address.
    """

    def __init__(self, calls: Calls, mig: Mig, pci: str) -> None:
        self._calls = calls
        self._mig = mig
        self._pci = pci
        self.info: Value | None = None
        """What the GPU is, which stays true while it sleeps; None before the first reading."""

    def read(self) -> Iterator[Value]:
        """What the driver says now."""
        self.info = ("nvidia_gpu_info", self._info(), 1.0)
        yield self.info
        yield from self._limits()
        yield from self._memory()
        yield from self._modes()
        yield from self._mig.slow()

    def _info(self) -> tuple[str, ...]:
        ask = self._calls.ask
        minor, node = ask("MinorNumber"), ask("NumaNodeId")
        capability = ask("CudaComputeCapability")
        return (
            text(ask("Name")),
            self._pci,
            text(ask("Serial")),
            text(minor),
            _BRANDS.get(ask("Brand"), ""),
            _ARCHITECTURES.get(ask("Architecture"), ""),
            "" if capability is None else "{}.{}".format(*capability),
            text(ask("VbiosVersion")),
            "" if node is None or node < 0 else str(node),
            _VIRTUALIZATIONS.get(ask("VirtualizationMode"), ""),
            "false",
        )

    def _limits(self) -> Iterator[Value]:
        ask = self._calls.ask
        power = {"enforced": ask("EnforcedPowerLimit"), "default": ask("PowerManagementDefaultLimit")}
        power["min"], power["max"] = ask("PowerManagementLimitConstraints") or (None, None)
        for kind, milliwatts in power.items():
            if milliwatts is not None:
                yield "nvidia_gpu_power_limit_watts", (kind,), milliwatts / 1e3
        for kind, threshold in _THRESHOLDS.items():
            degrees = ask("TemperatureThreshold", threshold)
            if degrees is not None:
                yield "nvidia_gpu_temperature_threshold_celsius", (kind,), float(degrees)
        for clock, which in CLOCKS.items():
            megahertz = ask("MaxClockInfo", which)
            if megahertz is not None:
                yield "nvidia_gpu_clock_max_hertz", (clock,), 1e6 * megahertz
        for name, call in (
            ("nvidia_gpu_pcie_link_generation_max", "MaxPcieLinkGeneration"),
            ("nvidia_gpu_pcie_link_width_max", "MaxPcieLinkWidth"),
        ):
            found = ask(call)
            if found is not None:
                yield name, (), float(found)

    def _memory(self) -> Iterator[Value]:
        ask = self._calls.ask
        mode = ask("EccMode")
        if mode is not None:
            yield "nvidia_gpu_ecc_mode", (), float(bool(mode[0]))
        for severity, error in _SEVERITIES.items():
            for counter, kind in _COUNTERS.items():
                count = ask("TotalEccErrors", error, kind)
                if count is not None:
                    yield "nvidia_gpu_ecc_errors_total", (severity, counter), float(count)
        rows = ask("RemappedRows")
        if rows is not None:
            corrected, uncorrected, pending, failure = rows
            yield "nvidia_gpu_remapped_rows", ("corrected",), float(corrected)
            yield "nvidia_gpu_remapped_rows", ("uncorrected",), float(uncorrected)
            yield "nvidia_gpu_remap_pending", (), float(bool(pending))
            yield "nvidia_gpu_remap_failure", (), float(bool(failure))
        for cause, number in _CAUSES.items():
            # Not the second version: pynvml gives it an argument too few.
            pages = ask("RetiredPages", number)
            if pages is not None:
                yield "nvidia_gpu_retired_pages", (cause,), float(len(pages))
        waiting = ask("RetiredPagesPendingStatus")
        if waiting is not None:
            yield "nvidia_gpu_retired_pages_pending", (), float(bool(waiting))

    def _modes(self) -> Iterator[Value]:
        ask = self._calls.ask
        persistence = ask("PersistenceMode")
        if persistence is not None:
            yield "nvidia_gpu_persistence_mode", (), float(bool(persistence))
        action = self._calls.fields([(_RECOVERY_ACTION, 0)]).get((_RECOVERY_ACTION, 0))
        if action is not None:
            yield "nvidia_gpu_recovery_action", (), action
        fabric = pynvml.c_nvmlGpuFabricInfo_v2_t()
        fabric.version = pynvml.nvmlGpuFabricInfo_v2
        # By reference, which pynvml leaves to its caller: otherwise the driver writes wherever the first bytes point.
        if ask("GpuFabricInfoV", ctypes.byref(fabric)) is not None:
            yield "nvidia_gpu_fabric_state", (), float(fabric.state)
