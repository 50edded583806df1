"""GPUs as `nvidia-smi` tells of them, where the library of the driver cannot be loaded.

Elements of its XML are renamed between generations of drivers, and values that are missing are written in many ways:
whatever is no number in a known unit is absent.
"""

import math
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from infermeter_exporters.gpu.readings import Machine, Process, Reading, SourceError, Tier, Unit, Value, Xid
from infermeter_exporters.gpu.sysfs import pci_address

# The program starts a driver client and asks everything of all GPUs: it is not run more often.
_EVERY = 5.0
_TIMEOUT = 20.0
_MOST = 1 << 24
_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)\s*(?:\[?([A-Za-z%/]+)\]?)?")
_UNITS = {
    "": 1.0,
    "%": 0.01,
    "C": 1.0,
    "W": 1.0,
    "mW": 1e-3,
    "kW": 1e3,
    "J": 1.0,
    "MHz": 1e6,
    "GHz": 1e9,
    "B": 1.0,
    "KiB": float(1 << 10),
    "MiB": float(1 << 20),
    "GiB": float(1 << 30),
    "x": 1.0,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
}
_KINDS = {"C": "compute", "G": "graphics", "M": "mps"}
_POWERS = ("gpu_power_readings", "power_readings", "module_power_readings")
_REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
_ENGINES = {"encoder": "encoder_util", "decoder": "decoder_util", "jpeg": "jpeg_util", "ofa": "ofa_util"}
_CLOCKS = {"graphics": "graphics_clock", "sm": "sm_clock", "memory": "mem_clock", "video": "video_clock"}
_LOST = re.compile(r"GPU is lost", re.IGNORECASE)


def number(text: str | None) -> float | None:
    """A value in base units, percents as ratios; None for whatever is none, and for units that are not known."""
    found = _NUMBER.fullmatch((text or "").strip()[:100])
    if found is None or (found[2] or "") not in _UNITS:
        return None
    unit = found[2] or ""
    value = float(found[1]) / 100 if unit == "%" else float(found[1]) * _UNITS[unit]  # 35 / 100 is 0.35, 35 * 0.01 not
    return value if math.isfinite(value) else None


class Smi:
    """The program, which tells of all GPUs at once.

    Args:
        path: of the program, or its name, which is looked for in PATH.
        timeout: seconds after which it hangs.
    """

    name = "nvidia-smi"

    def __init__(self, path: str = "nvidia-smi", timeout: float = _TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._log: ET.Element | None = None
        self._ran = -math.inf
        self._seconds = 0.0
        self._given: set[Tier] = set()  # tiers that have read this answer
        self._uuids: dict[str, str] = {}  # by address; a lost GPU no longer says its own

    def open(self) -> Machine:
        """Run it."""
        log = self._answer()
        version, cuda = _text(log, "driver_version"), _text(log, "cuda_version")
        return Machine(self.name, len(log.findall("gpu")), [("nvidia_gpu_driver_info", (version, "", cuda), 1.0)])

    def units(self) -> Sequence[Unit]:
        """One for all."""
        return [self]

    def read(self, tier: Tier) -> Sequence[Reading]:
        """What it said last; nothing if this tier has had that."""
        log = self._answer()
        if tier in self._given:
            return []
        self._given.add(tier)
        found = [self._reading(place, gpu, tier) for place, gpu in enumerate(log.findall("gpu"))]
        return [reading for reading in found if reading is not None]

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait; there is no way to know."""
        time.sleep(seconds)
        return None

    def _answer(self) -> ET.Element:
        """What it says now, or said a moment ago."""
        now = time.monotonic()
        if self._log is None or now - self._ran >= _EVERY:
            self._log = parsed(_run([self._path, "-q", "-x"], self._timeout))
            # Before the answer: periods are from start to start.
            self._ran, self._seconds = now, time.monotonic() - now
            self._given = set()
        return self._log

    def _reading(self, place: int, gpu: ET.Element, tier: Tier) -> Reading | None:
        pci = pci_address(gpu.get("id") or _text(gpu, "pci/pci_bus_id"))
        uuid = _text(gpu, "uuid")
        if uuid.startswith("GPU-"):
            self._uuids[pci] = uuid
        elif pci not in self._uuids:  # it never said who it is
            return None
        blank = Reading(self._uuids[pci], place, pci, tier, self._ran, seconds=self._seconds)
        if any(_LOST.search(element.text or "") for element in gpu.iter()):
            return blank._replace(state="lost")
        if not uuid.startswith("GPU-"):
            return blank._replace(state="unknown")
        if tier == "slow":
            return blank._replace(values=list(_slow(gpu, pci)))
        if tier == "normal":
            return blank._replace(values=list(_normal(gpu)))
        return _fast(blank, gpu)


def parsed(answer: bytes) -> ET.Element:
    """The XML in an answer, around which warnings may stand.

    Raises:
        SourceError: there is none.
    """
    begin, end = answer.find(b"<nvidia_smi_log"), answer.rfind(b"</nvidia_smi_log>")
    if begin < 0 or end < begin:
        raise SourceError(f"nvidia-smi says no XML{_said(answer)}")
    # Without the document type, no entity is defined that could expand.
    text = answer[begin : end + len(b"</nvidia_smi_log>")].decode("utf-8", "replace")
    try:
        return ET.fromstring(text)  # noqa: S314  (see above)
    except (ET.ParseError, ValueError) as error:
        raise SourceError(f"nvidia-smi says XML that cannot be read: {error}") from error


def _run(command: Sequence[str], timeout: float) -> bytes:
    """What a program writes; its process group is killed if it hangs or writes too much."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"{command[0]} cannot be run: {getattr(error, 'strerror', None) or error}") from error
    assert process.stdout is not None
    written, ends = b"", time.monotonic() + timeout
    try:
        with process.stdout as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while selector.select(max(0.0, ends - time.monotonic())):
                piece = os.read(pipe.fileno(), 1 << 16)
                written += piece
                if not piece:
                    break
                if len(written) > _MOST:
                    raise SourceError(f"{command[0]} writes more than {_MOST >> 20} MiB")
            else:
                raise SourceError(f"{command[0]} does not answer within {timeout:g} s")
        code = process.wait(max(0.1, ends - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{command[0]} does not end within {timeout:g} s") from error
    finally:
        _kill(process)
    if code:
        raise SourceError(f"{command[0]} failed with exit code {code}{_said(written)}")
    return written


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started; one that hangs in the driver is not waited for."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(1.0)
        except (OSError, subprocess.TimeoutExpired):
            pass


def _said(answer: bytes) -> str:
    """The beginning of what a program said instead, to be put behind a sentence."""
    words = " ".join(answer.decode("utf-8", "replace").split())[:200]
    return f": {words.rstrip('.')}" if words else ""


def _text(element: ET.Element, path: str) -> str:
    """The text of an element; empty if there is none, or none that says something."""
    text = (element.findtext(path) or "").strip()
    missing = text in {"N/A", "ERR!", "None"} or text.startswith(("[", "Unknown", "Requested func"))
    return "" if missing else text


def _number(element: ET.Element, *paths: str) -> float | None:
    """The first of several elements that holds a number, not negative."""
    for path in paths:
        value = number(element.findtext(path))
        if value is not None and value >= 0:
            return value
    return None


def _values(element: ET.Element, *wanted: tuple[str, tuple[str, ...], tuple[str, ...]]) -> Iterator[Value]:
    """Values of families: name, labels, and the elements to look in."""
    for name, labels, paths in wanted:
        value = _number(element, *paths)
        if value is not None:
            yield "nvidia_gpu_" + name, labels, value


def _flag(element: ET.Element, path: str) -> float | None:
    """1 for an element that says yes, 0 for one that says no, else None."""
    said = _text(element, path).lower()
    return {"yes": 1.0, "enabled": 1.0, "active": 1.0, "no": 0.0, "disabled": 0.0, "not active": 0.0}.get(said)


def _fast(blank: Reading, gpu: ET.Element) -> Reading:
    total, used = _number(gpu, "fb_memory_usage/total"), _number(gpu, "fb_memory_usage/used")
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
    busy = _number(gpu, "utilization/gpu_util")
    mig = _flag(gpu, "mig_mode/current_mig") == 1
    draws = [
        f"{name}/{draw}" for name in _POWERS[:2] for draw in ("power_draw", "average_power_draw", "instant_power_draw")
    ]
    return blank._replace(
        values=values,
        busy=None if mig or busy is None else min(1.0, busy),
        memory_used=None if used is None else int(used),
        power=_number(gpu, *draws),
        processes=list(_processes(gpu)) if gpu.find("processes") is not None else None,
    )


def _processes(gpu: ET.Element) -> Iterator[Process]:
    seen: dict[int, Process] = {}
    for info in gpu.findall("processes/process_info"):
        pid = number(info.findtext("pid"))
        if pid is None or pid <= 0 or pid >= 1 << 31:
            continue
        memory = _number(info, "used_memory")
        kinds = tuple(_KINDS[letter] for letter in _text(info, "type").split("+") if letter in _KINDS)
        before = seen.get(int(pid))
        if before is not None:  # a process may hold several instances
            kinds = tuple(dict.fromkeys((*before.kinds, *kinds)))
            memory = memory if before.memory is None else before.memory + (memory or 0)
        seen[int(pid)] = Process(int(pid), kinds, None if memory is None else int(memory), None)
    yield from seen.values()


def _normal(gpu: ET.Element) -> Iterator[Value]:
    yield from _values(
        gpu,
        ("temperature_celsius", (), ("temperature/gpu_temp",)),
        ("memory_temperature_celsius", (), ("temperature/memory_temp",)),
        ("temperature_margin_celsius", (), ("temperature/gpu_temp_tlimit",)),
        ("fan_speed_ratio", ("0",), ("fan_speed",)),
        ("memory_busy_ratio", (), ("utilization/memory_util",)),
        ("bar1_memory_used_bytes", (), ("bar1_memory_usage/used",)),
        ("pcie_link_generation", (), ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",)),
        ("pcie_link_width", (), ("pci/pci_gpu_link_info/link_widths/current_link_width",)),
        ("pcie_replays_total", (), ("pci/replay_counter",)),
        *(("engine_busy_ratio", (engine,), (f"utilization/{path}",)) for engine, path in _ENGINES.items()),
        *(("clock_hertz", (clock,), (f"clocks/{path}",)) for clock, path in _CLOCKS.items()),
    )
    state = re.fullmatch(r"P([0-9]{1,2})", _text(gpu, "performance_state"))
    if state:
        yield "nvidia_gpu_performance_state", (), float(state[1])
    reasons = next((found for name in _REASONS if (found := gpu.find(name)) is not None), None)
    shown: set[str] = set()
    for element in reasons if reasons is not None else ():
        reason = re.sub(r"^clocks_(?:event|throttle)_reasons?_", "", element.tag)
        said = {"active": 1.0, "not active": 0.0}.get((element.text or "").strip().lower())
        # Idle is none: it holds nothing down.
        if said is not None and reason not in {"gpu_idle", *shown}:
            shown.add(reason)
            yield "nvidia_gpu_throttle_active", (reason,), said
    instances = {_instance(instance): instance for instance in gpu.findall("mig_devices/mig_device")}
    for labels, instance in instances.items():
        yield from _values(
            instance,
            ("mig_memory_used_bytes", labels, ("fb_memory_usage/used",)),
            ("mig_memory_total_bytes", labels, ("fb_memory_usage/total",)),
        )


def _instance(instance: ET.Element) -> tuple[str, str]:
    return _text(instance, "uuid"), _text(instance, "gpu_instance_id")


def _slow(gpu: ET.Element, pci: str) -> Iterator[Value]:
    info = (
        _text(gpu, "product_name"),
        pci,
        _text(gpu, "serial"),
        _text(gpu, "minor_number"),
        _text(gpu, "product_brand"),
        _text(gpu, "product_architecture"),
        "",
        _text(gpu, "vbios_version"),
        "",
        _text(gpu, "gpu_virtualization_mode/virtualization_mode").lower(),
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
            ("power_limit_watts", (kind,), tuple(f"{name}/{path}" for name in _POWERS[:2] for path in paths))
            for kind, paths in limits.items()
        ),
        ("temperature_threshold_celsius", ("shutdown",), ("temperature/gpu_temp_max_threshold",)),
        ("temperature_threshold_celsius", ("slowdown",), ("temperature/gpu_temp_slow_threshold",)),
        *(("clock_max_hertz", (clock,), (f"max_clocks/{path}",)) for clock, path in _CLOCKS.items()),
        ("pcie_link_generation_max", (), ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",)),
        ("pcie_link_width_max", (), ("pci/pci_gpu_link_info/link_widths/max_link_width",)),
        ("remapped_rows", ("corrected",), ("remapped_rows/remapped_row_corr",)),
        ("remapped_rows", ("uncorrected",), ("remapped_rows/remapped_row_unc",)),
    )
    flags = {
        "persistence_mode": "persistence_mode",
        "ecc_mode": "ecc_mode/current_ecc",
        "mig_mode": "mig_mode/current_mig",
        "remap_pending": "remapped_rows/remapped_row_pending",
        "remap_failure": "remapped_rows/remapped_row_failure",
    }
    for name, path in flags.items():
        value = _flag(gpu, path)
        if value is not None:
            yield "nvidia_gpu_" + name, (), value
    for counter in ("volatile", "aggregate"):
        for severity in ("corrected", "uncorrected"):
            # "sram_uncorrectable_parity" and its like; older drivers count single_bit and double_bit instead.
            part = "_correctable" if severity == "corrected" else "_uncorrectable"
            errors = [number(one.text) for one in gpu.findall(f"ecc_errors/{counter}/*") if part in one.tag]
            if errors and None not in errors:
                yield "nvidia_gpu_ecc_errors_total", (severity, counter), sum(error or 0.0 for error in errors)
    seen = set()
    for instance in gpu.findall("mig_devices/mig_device"):
        labels = (*_instance(instance), _text(instance, "compute_instance_id"), "")
        if labels not in seen:
            seen.add(labels)
            yield "nvidia_gpu_mig_info", labels, 1.0
