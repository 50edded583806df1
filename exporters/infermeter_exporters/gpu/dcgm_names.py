"""What a dcgm-exporter would show of the same GPUs, in its names, labels and units, for dashboards made for it.

Of devices only: a dcgm-exporter that shows services shows them in the same families, so that sums count twice.
"""

import os
from collections.abc import Mapping
from typing import Literal, NamedTuple

from infermeter_exporters.families import Family, Samples, Series, by_name
from infermeter_exporters.gpu.catalogue import FAMILIES as OURS

_LABELS = ("gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname")
_MEBIBYTE = 1 << 20


class _Alias(NamedTuple):
    """One of their families, made of ours.

    Attributes:
        name: theirs.
        kind: theirs.
        help: with their unit.
        ours: the family that it is made of; what its series add up to, where a GPU has several.
        factor: from our unit to theirs.
        own: labels of ours beyond `gpu` and `uuid` that are meant; None for all.
    """

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    ours: str
    factor: float = 1.0
    own: tuple[str, ...] | None = None


_ALIASES = (
    _Alias("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock, in MHz.", "nvidia_gpu_clock_hertz", 1e-6, ("sm",)),
    _Alias("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock, in MHz.", "nvidia_gpu_clock_hertz", 1e-6, ("memory",)),
    _Alias("DCGM_FI_DEV_GPU_TEMP", "gauge", "Temperature of the GPU, in C.", "nvidia_gpu_temperature_celsius"),
    _Alias(
        "DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Temperature of the memory, in C.", "nvidia_gpu_memory_temperature_celsius"
    ),
    _Alias("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw, in W.", "nvidia_gpu_power_draw"),
    _Alias(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "counter",
        "Energy since boot, in mJ.",
        "nvidia_gpu_energy_joules_total",
        1e3,
    ),
    _Alias("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "PCIe retries.", "nvidia_gpu_pcie_replays_total"),
    _Alias("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization, in %.", "nvidia_gpu_busy_ratio", 100),
    _Alias("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization, in %.", "nvidia_gpu_memory_busy_ratio", 100),
    _Alias(
        "DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization, in %.", "nvidia_gpu_engine_busy_ratio", 100, ("encoder",)
    ),
    _Alias(
        "DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization, in %.", "nvidia_gpu_engine_busy_ratio", 100, ("decoder",)
    ),
    _Alias(
        "DCGM_FI_DEV_FB_FREE",
        "gauge",
        "Free framebuffer memory, in MiB.",
        "nvidia_gpu_memory_free_bytes",
        1 / _MEBIBYTE,
    ),
    _Alias(
        "DCGM_FI_DEV_FB_USED",
        "gauge",
        "Used framebuffer memory, in MiB.",
        "nvidia_gpu_memory_used_bytes",
        1 / _MEBIBYTE,
    ),
    _Alias(
        "DCGM_FI_DEV_FB_RESERVED",
        "gauge",
        "Reserved framebuffer memory, in MiB.",
        "nvidia_gpu_memory_reserved_bytes",
        1 / _MEBIBYTE,
    ),
    _Alias(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "gauge",
        "Time the graphics engine was active, 0 to 1.",
        "nvidia_gpu_busy_ratio",
    ),
    _Alias("DCGM_FI_PROF_SM_ACTIVE", "gauge", "Time an SM had work, 0 to 1.", "nvidia_gpu_sm_active_ratio"),
    _Alias("DCGM_FI_PROF_SM_OCCUPANCY", "gauge", "Resident warps, 0 to 1.", "nvidia_gpu_sm_occupancy_ratio"),
    _Alias(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "gauge",
        "Time tensor cores were active, 0 to 1.",
        "nvidia_gpu_tensor_active_ratio",
    ),
    _Alias("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", "Time memory was active, 0 to 1.", "nvidia_gpu_dram_active_ratio"),
)

FAMILIES: dict[str, Family] = by_name(
    *(Family(one.name, one.kind, one.help, _LABELS, f"`{one.ours}`") for one in _ALIASES),
    Family(
        "DCGM_FI_DEV_XID_ERRORS",
        "gauge",
        "The last XID error, 0 if there was none.",
        _LABELS,
        "`nvidia_gpu_xid_last_timestamp_seconds`",
    ),
)


def dcgm(samples: Mapping[str, Series]) -> Samples:
    """What a dcgm-exporter would show where `samples` are ours."""
    host = os.uname().nodename
    theirs: dict[tuple[str, str], tuple[str, ...]] = {}
    names = OURS["nvidia_gpu_info"].labels
    for labels in samples.get("nvidia_gpu_info", ()):
        info = dict(zip(names, labels, strict=True))
        domain, _, rest = info["pci_bus_id"].partition(":")
        theirs[labels[0], labels[1]] = (
            info["gpu"],
            info["uuid"],
            f"{domain.zfill(8)}:{rest}".upper() if rest else "",
            "nvidia" + (info["minor"] or info["gpu"]),
            info["name"],
            host,
        )
    found: Samples = {}
    for one in _ALIASES:
        series: Series = {}
        for labels, value in samples.get(one.ours, {}).items():
            place = theirs.get((labels[0], labels[1]))
            if place is not None and (one.own is None or labels[2:] == one.own):
                series[place] = round(series.get(place, 0.0) + value * one.factor, 9)
        found[one.name] = series
    found["DCGM_FI_DEV_XID_ERRORS"] = _last_errors(samples, theirs)
    return found


def _last_errors(samples: Mapping[str, Series], theirs: Mapping[tuple[str, str], tuple[str, ...]]) -> Series:
    latest: dict[tuple[str, str], tuple[float, float]] = {}
    for labels, moment in samples.get("nvidia_gpu_xid_last_timestamp_seconds", {}).items():
        key = labels[0], labels[1]
        latest[key] = max((moment, float(labels[2])), latest.get(key, (0.0, 0.0)))
    up = samples.get("nvidia_gpu_up", {})
    return {place: latest.get(key, (0.0, 0.0))[1] for key, place in theirs.items() if up.get(key)}
