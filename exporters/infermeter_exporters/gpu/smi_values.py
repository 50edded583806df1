"""What a GPU says in the XML of `nvidia-smi`, in base units.

Elements are renamed between generations of drivers, and values that are missing are written in many ways: whatever is
no number in a known unit is absent.
"""

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from infermeter_exporters.gpu.readings import Process, Reading, Value

_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*(?:\[?([A-Za-z%/]+)\]?)?")
# What one is in base units, as a factor and a divisor: a hundredth cannot be written exactly.
_UNITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("", "C", "W", "J", "B", "x", "s"), (1, 1)),
    "%": (1, 100),
    "mW": (1, 1e3),
    "kW": (1e3, 1),
    "MHz": (1e6, 1),
    "GHz": (1e9, 1),
    "KiB": (1 << 10, 1),
    "MiB": (1 << 20, 1),
    "GiB": (1 << 30, 1),
    "us": (1, 1e6),
    "ms": (1, 1e3),
}
_PID = re.compile(r"[1-9][0-9]{0,8}")
_KINDS = {"C": "compute", "G": "graphics", "M": "mps"}
_POWERS = ("gpu_power_readings", "power_readings")
_REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
_ENGINES = {"encoder": "encoder_util", "decoder": "decoder_util", "jpeg": "jpeg_util", "ofa": "ofa_util"}
_CLOCKS = {"graphics": "graphics_clock", "sm": "sm_clock", "memory": "mem_clock", "video": "video_clock"}
# The driver calls some reasons otherwise where it counts how long they held.
_REASON = re.compile(r"clocks_(?:event|throttle)_reasons?_(?:counters_)?")
_ALSO = {
    "display_clocks_setting": "display_clock_setting",
    "sw_therm_slowdown": "sw_thermal_slowdown",
    "hw_therm_slowdown": "hw_thermal_slowdown",
    "hw_power_brake": "hw_power_brake_slowdown",
}
_RECOVERIES = {"None": 0.0, "Reset": 1.0, "Reboot": 2.0, "Drain P2P": 3.0, "Drain and Reset": 4.0}
_FABRICS = {"Not Started": 1.0, "In Progress": 2.0, "Completed": 3.0}


def number(text: str | None) -> float | None:
    """A value in base units, percents as ratios; None for whatever is none, and for units that are not known."""
    found = _NUMBER.fullmatch((text or "").strip())
    if found is None or (found[2] or "") not in _UNITS:
        return None
    factor, divisor = _UNITS[found[2] or ""]
    value = float(found[1]) * factor / divisor
    return value if math.isfinite(value) else None


def text(element: ET.Element, path: str) -> str:
    """The text of an element; empty if there is none, or none that says something."""
    text = (element.findtext(path) or "").strip()
    missing = text in {"N/A", "ERR!", "None"} or text.startswith(("[", "Unknown", "Requested func"))
    return "" if missing else text


def number_of(element: ET.Element, *paths: str) -> float | None:
    """The first of several elements that holds a number, not negative."""
    for path in paths:
        value = number(element.findtext(path))
        if value is not None and value >= 0:
            return value
    return None


def _values(element: ET.Element, *wanted: tuple[str, tuple[str, ...], tuple[str, ...]]) -> Iterator[Value]:
    """Values of families: name, labels, and the elements to look in."""
    for name, labels, paths in wanted:
        value = number_of(element, *paths)
        if value is not None:
            yield "nvidia_gpu_" + name, labels, value


def _flag(element: ET.Element, path: str) -> float | None:
    """1 for an element that says yes, 0 for one that says no, else None."""
    said = (element.findtext(path) or "").strip().lower()
    return {"yes": 1.0, "enabled": 1.0, "active": 1.0, "no": 0.0, "disabled": 0.0, "not active": 0.0}.get(said)


def fast(blank: Reading, gpu: ET.Element) -> Reading:
    """A reading of the fast tier."""
    total, used = number_of(gpu, "fb_memory_usage/total"), number_of(gpu, "fb_memory_usage/used")
    values = list(
        _values(
            gpu,
            ("memory_total_bytes", (), ("fb_memory_usage/total",)),
            ("memory_free_bytes", (), ("fb_memory_usage/free",)),
            ("memory_reserved_bytes", (), ("fb_memory_usage/reserved",)),
        )
    )
    if total and used is not None:
        values.append(("nvidia_gpu_memory_usage_percent", (), 100 * used / total))
    busy = number_of(gpu, "utilization/gpu_util")
    mig = _flag(gpu, "mig_mode/current_mig") == 1
    draws = [
        f"{name}/{draw}" for name in _POWERS for draw in ("power_draw", "average_power_draw", "instant_power_draw")
    ]
    return blank._replace(
        values=values,
        busy=None if mig or busy is None else min(1.0, busy),
        memory_used=None if used is None else int(used),
        power=number_of(gpu, *draws),
        processes=_processes(gpu),
    )


def _processes(gpu: ET.Element) -> list[Process] | None:
    """None where the driver does not tell: it writes so instead of a list."""
    said = gpu.findtext("processes")
    if said is None or said.strip() not in {"", "None"}:
        return None
    seen: dict[int, Process] = {}
    for info in gpu.findall("processes/process_info"):
        pid = (info.findtext("pid") or "").strip()
        if not _PID.fullmatch(pid):
            continue
        size = number_of(info, "used_memory")
        memory = None if size is None else int(size)
        kinds = tuple(_KINDS[letter] for letter in text(info, "type").split("+") if letter in _KINDS)
        before = seen.get(int(pid))
        if before is not None:  # a process may hold several instances
            kinds = tuple(dict.fromkeys((*before.kinds, *kinds)))
            memory = None if memory is None or before.memory is None else before.memory + memory
        seen[int(pid)] = Process(int(pid), kinds, memory, None)
    return list(seen.values())


def normal(gpu: ET.Element) -> Iterator[Value]:
    """Values of the normal tier."""
    yield from _values(
        gpu,
        ("temperature_celsius", (), ("temperature/gpu_temp",)),
        ("memory_temperature_celsius", (), ("temperature/memory_temp",)),
        ("fan_speed_ratio", ("0",), ("fan_speed",)),
        ("memory_busy_ratio", (), ("utilization/memory_util",)),
        ("bar1_memory_used_bytes", (), ("bar1_memory_usage/used",)),
        ("pcie_link_generation", (), ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",)),
        ("pcie_link_width", (), ("pci/pci_gpu_link_info/link_widths/current_link_width",)),
        ("pcie_replays_total", (), ("pci/replay_counter",)),
        *(("engine_busy_ratio", (engine,), (f"utilization/{path}",)) for engine, path in _ENGINES.items()),
        *(("clock_hertz", (clock,), (f"clocks/{path}",)) for clock, path in _CLOCKS.items()),
    )
    state = re.fullmatch(r"P([0-9]{1,2})", text(gpu, "performance_state"))
    if state:
        yield "nvidia_gpu_performance_state", (), float(state[1])
    margin = number(gpu.findtext("temperature/gpu_temp_tlimit"))
    if margin is not None:  # less than nothing, where it is too hot
        yield "nvidia_gpu_temperature_margin_celsius", (), margin
    for name in _REASONS:
        for reason, element in _reasons(gpu.find(name)):
            said = _flag(gpu, f"{name}/{element.tag}")
            if said is not None:
                yield "nvidia_gpu_throttle_active", (reason,), said
        for reason, element in _reasons(gpu.find(f"{name}_counters")):
            seconds = number(element.text)
            if seconds is not None and seconds >= 0:
                yield "nvidia_gpu_throttle_seconds_total", (reason,), seconds
    instances = {_instance(instance): instance for instance in gpu.findall("mig_devices/mig_device")}
    for labels, instance in instances.items():
        yield from _values(
            instance,
            ("mig_memory_used_bytes", labels, ("fb_memory_usage/used",)),
            ("mig_memory_total_bytes", labels, ("fb_memory_usage/total",)),
        )


def _reasons(element: ET.Element | None) -> Iterator[tuple[str, ET.Element]]:
    """Elements by the reasons that they are of; being idle is none, it holds nothing down."""
    found: dict[str, ET.Element] = {}
    for one in element if element is not None else ():
        reason = _REASON.sub("", one.tag, count=1)
        found.setdefault(_ALSO.get(reason, reason), one)
    found.pop("gpu_idle", None)
    yield from found.items()


def _instance(instance: ET.Element) -> tuple[str, str]:
    return text(instance, "uuid"), text(instance, "gpu_instance_id")


def slow(gpu: ET.Element, pci: str) -> Iterator[Value]:
    """Values of the slow tier."""
    info = (
        text(gpu, "product_name"),
        pci,
        text(gpu, "serial"),
        text(gpu, "minor_number"),
        text(gpu, "product_brand"),
        text(gpu, "product_architecture"),
        "",
        text(gpu, "vbios_version"),
        "",
        _virtualization(gpu),
        "false",
    )
    yield "nvidia_gpu_info", info, 1.0
    limits = {
        "enforced": ("enforced_power_limit", "current_power_limit", "power_limit"),
        "default": ("default_power_limit",),
        "min": ("min_power_limit",),
        "max": ("max_power_limit",),
    }
    yield from _values(
        gpu,
        *(
            ("power_limit_watts", (kind,), tuple(f"{name}/{path}" for name in _POWERS for path in paths))
            for kind, paths in limits.items()
        ),
        ("temperature_threshold_celsius", ("shutdown",), ("temperature/gpu_temp_max_threshold",)),
        ("temperature_threshold_celsius", ("slowdown",), ("temperature/gpu_temp_slow_threshold",)),
        ("temperature_threshold_celsius", ("mem_max",), ("temperature/gpu_temp_max_mem_threshold",)),
        ("temperature_threshold_celsius", ("gpu_max",), ("temperature/gpu_temp_max_gpu_threshold",)),
        *(("clock_max_hertz", (clock,), (f"max_clocks/{path}",)) for clock, path in _CLOCKS.items()),
        ("pcie_link_generation_max", (), ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",)),
        ("pcie_link_width_max", (), ("pci/pci_gpu_link_info/link_widths/max_link_width",)),
        ("remapped_rows", ("corrected",), ("remapped_rows/remapped_row_corr",)),
        ("remapped_rows", ("uncorrected",), ("remapped_rows/remapped_row_unc",)),
        ("retired_pages", ("single_bit",), ("retired_pages/multiple_single_bit_retirement/retired_count",)),
        ("retired_pages", ("double_bit",), ("retired_pages/double_bit_retirement/retired_count",)),
    )
    flags = {
        "persistence_mode": "persistence_mode",
        "ecc_mode": "ecc_mode/current_ecc",
        "mig_mode": "mig_mode/current_mig",
        "remap_pending": "remapped_rows/remapped_row_pending",
        "remap_failure": "remapped_rows/remapped_row_failure",
        "retired_pages_pending": "retired_pages/pending_retirement",
    }
    for name, path in flags.items():
        value = _flag(gpu, path)
        if value is not None:
            yield "nvidia_gpu_" + name, (), value
    for name, path, meanings in (
        ("recovery_action", "gpu_recovery_action", _RECOVERIES),
        ("fabric_state", "fabric/state", _FABRICS),
    ):
        value = meanings.get((gpu.findtext(path) or "").strip())
        if value is not None:
            yield "nvidia_gpu_" + name, (), value
    yield from _errors(gpu)
    seen = set()
    for instance in gpu.findall("mig_devices/mig_device"):
        labels = (*_instance(instance), text(instance, "compute_instance_id"), "")
        if labels not in seen:
            seen.add(labels)
            yield "nvidia_gpu_mig_info", labels, 1.0


def _errors(gpu: ET.Element) -> Iterator[Value]:
    """Errors of the memory, if all of their parts are told: by places since Turing, and by bits and in all before."""
    for counter in ("volatile", "aggregate"):
        for severity, part, bits in (
            ("corrected", "_correctable", "single_bit"),
            ("uncorrected", "_uncorrectable", "double_bit"),
        ):
            parts = [one for one in gpu.findall(f"ecc_errors/{counter}/*") if part in one.tag]
            errors = [number(one.text) for one in parts or gpu.findall(f"ecc_errors/{counter}/{bits}/total")]
            told = [error for error in errors if error is not None and error >= 0]
            if told and len(told) == len(errors):
                yield "nvidia_gpu_ecc_errors_total", (severity, counter), sum(told)


def _virtualization(gpu: ET.Element) -> str:
    """As the library of the driver has it: none, passthrough, vgpu, host_vgpu, host_vsga."""
    said = (gpu.findtext("gpu_virtualization_mode/virtualization_mode") or "").strip().lower()
    found = said.replace("-", "").replace(" ", "_")
    return found if found in {"none", "passthrough", "vgpu", "host_vgpu", "host_vsga"} else ""
