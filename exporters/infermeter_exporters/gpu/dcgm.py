"""GPUs as a dcgm-exporter tells of them that runs already, where it alone may talk to the driver.

Its units become base units. A GPU is told of in several rows if pods share it or it is divided: only what is of the
whole GPU is taken.
"""

import base64
import contextlib
import http.client
import math
import queue
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from infermeter_exporters.gpu.readings import Machine, Reading, SourceError, Tier, Unit, Value, Xid
from infermeter_exporters.gpu.sysfs import pci_address

_EVERY = 5.0
_TIMEOUT = 5.0
_MOST = 1 << 25
_OK = 200
_MEBIBYTE = float(1 << 20)
_PERCENT = 0.01
_ROW = re.compile(
    r'(DCGM_[A-Za-z0-9_]{1,100})(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+([0-9.eE+-]+)(?:\s+-?[0-9]+)?\s*'
)
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
# What DCGM writes where it has no value begins at these: of 32 and of 64 bits, and of floating point.
_BLANKS = ((2_147_483_632, 2_147_483_647), (140_737_488_355_328, math.inf))
_PODS = ("pod", "exported_pod", "pod_name")
# Of the whole GPU, though a GPU that is divided tells them of each of its instances.
_OF_DEVICE = {"DEV_POWER_USAGE", "DEV_TOTAL_ENERGY_CONSUMPTION", "DEV_GPU_TEMP", "DEV_MEMORY_TEMP", "DEV_SM_CLOCK"}
_OF_DEVICE |= {"DEV_MEM_CLOCK", "DEV_PSTATE", "DEV_XID_ERRORS", "DEV_PCIE_REPLAY_COUNTER", "DEV_POWER_MGMT_LIMIT"}


class _Alias(NamedTuple):
    """One of their families as one of ours.

    Attributes:
        theirs: without DCGM_FI_.
        ours: without nvidia_gpu_.
        factor: from their unit to ours; percents are divided, a hundredth cannot be written exactly.
        labels: of ours.
    """

    theirs: str
    ours: str
    factor: float = 1.0
    labels: tuple[str, ...] = ()


_FAST = (
    _Alias("DEV_FB_TOTAL", "memory_total_bytes", _MEBIBYTE),
    _Alias("DEV_FB_FREE", "memory_free_bytes", _MEBIBYTE),
    _Alias("DEV_FB_RESERVED", "memory_reserved_bytes", _MEBIBYTE),
)
_NORMAL = (
    _Alias("DEV_GPU_TEMP", "temperature_celsius"),
    _Alias("DEV_MEMORY_TEMP", "memory_temperature_celsius"),
    _Alias("DEV_SM_CLOCK", "clock_hertz", 1e6, ("sm",)),
    _Alias("DEV_MEM_CLOCK", "clock_hertz", 1e6, ("memory",)),
    _Alias("DEV_MEM_COPY_UTIL", "memory_busy_ratio", _PERCENT),
    _Alias("DEV_ENC_UTIL", "engine_busy_ratio", _PERCENT, ("encoder",)),
    _Alias("DEV_DEC_UTIL", "engine_busy_ratio", _PERCENT, ("decoder",)),
    _Alias("DEV_PSTATE", "performance_state"),
    _Alias("DEV_PCIE_REPLAY_COUNTER", "pcie_replays_total"),
    _Alias("PROF_SM_ACTIVE", "sm_active_ratio"),
    _Alias("PROF_SM_OCCUPANCY", "sm_occupancy_ratio"),
    _Alias("PROF_PIPE_TENSOR_ACTIVE", "tensor_active_ratio"),
    _Alias("PROF_DRAM_ACTIVE", "dram_active_ratio"),
    _Alias("PROF_PIPE_FP64_ACTIVE", "fp64_active_ratio"),
    _Alias("PROF_PIPE_FP32_ACTIVE", "fp32_active_ratio"),
    _Alias("PROF_PIPE_FP16_ACTIVE", "fp16_active_ratio"),
)
_SLOW = (
    _Alias("DEV_POWER_MGMT_LIMIT", "power_limit_watts", 1.0, ("enforced",)),
    _Alias("DEV_ECC_SBE_VOL_TOTAL", "ecc_errors_total", 1.0, ("corrected", "volatile")),
    _Alias("DEV_ECC_DBE_VOL_TOTAL", "ecc_errors_total", 1.0, ("uncorrected", "volatile")),
    _Alias("DEV_ECC_SBE_AGG_TOTAL", "ecc_errors_total", 1.0, ("corrected", "aggregate")),
    _Alias("DEV_ECC_DBE_AGG_TOTAL", "ecc_errors_total", 1.0, ("uncorrected", "aggregate")),
    _Alias("DEV_CORRECTABLE_REMAPPED_ROWS", "remapped_rows", 1.0, ("corrected",)),
    _Alias("DEV_UNCORRECTABLE_REMAPPED_ROWS", "remapped_rows", 1.0, ("uncorrected",)),
    _Alias("DEV_ROW_REMAP_FAILURE", "remap_failure"),
    _Alias("DEV_ROW_REMAP_PENDING", "remap_pending"),
)

Row = tuple[str, dict[str, str], float]


class _Gpu(NamedTuple):
    """What is told of one GPU.

    Attributes:
        labels: of one of its rows.
        values: by the names of their families, without DCGM_FI_.
        divided: whether it is, by MIG.
    """

    labels: Mapping[str, str]
    values: Mapping[str, float]
    divided: bool


class Dcgm:
    """The page of a dcgm-exporter.

    Args:
        url: of the page; "/metrics" is meant where it has no path.
        timeout: seconds for one answer.
    """

    name = "dcgm"

    def __init__(self, url: str, timeout: float = _TIMEOUT) -> None:
        self._url = url
        self._timeout = timeout
        self._gpus: dict[str, _Gpu] = {}
        self._came = -math.inf
        self._seconds = 0.0
        self._given: set[Tier] = set()  # tiers that have read this page
        self._codes: dict[str, int] = {}  # the last error of each
        self._errors: queue.SimpleQueue[Xid] = queue.SimpleQueue()

    def open(self) -> Machine:
        """Get the page."""
        gpus = self._answer()
        if not gpus:
            raise SourceError(f"{self._url} tells of no GPU, expected the metrics of a dcgm-exporter (DCGM_FI_DEV_*)")
        drivers = {gpu.labels.get("DCGM_FI_DRIVER_VERSION", "") for gpu in gpus.values()} - {""}
        values: list[Value] = [("nvidia_gpu_driver_info", (driver, "", ""), 1.0) for driver in sorted(drivers)[:1]]
        return Machine(self.name, len(gpus), values)

    def units(self) -> Sequence[Unit]:
        """One for all."""
        return [self]

    def read(self, tier: Tier) -> Sequence[Reading]:
        """What the page said last; nothing if this tier has had that."""
        gpus = self._answer()
        if tier in self._given:
            return []
        self._given.add(tier)
        return [self._reading(uuid, place, gpu, tier) for place, (uuid, gpu) in enumerate(gpus.items())]

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait for the page to tell of another error than the last one; the same one twice is not seen by it."""
        try:
            return self._errors.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def _answer(self) -> dict[str, _Gpu]:
        """What the page says now, or said a moment ago."""
        now = time.monotonic()
        if now - self._came >= _EVERY:
            self._gpus = _sorted_out(rows(_fetched(self._url, self._timeout)))
            self._came, self._seconds, self._given = now, time.monotonic() - now, set()
            for uuid, gpu in self._gpus.items():
                code = int(gpu.values.get("DEV_XID_ERRORS", 0))
                # It sticks: what it was at the first time may be of long ago.
                if code and self._codes.get(uuid, code) != code:
                    pci = pci_address(gpu.labels.get("pci_bus_id", ""))
                    self._errors.put(Xid(uuid, pci, code, time.time(), "dcgm"))
                self._codes[uuid] = code
        return self._gpus

    def _reading(self, uuid: str, place: int, gpu: _Gpu, tier: Tier) -> Reading:
        values, labels = gpu.values, gpu.labels
        number = labels.get("gpu", "")
        pci = pci_address(labels.get("pci_bus_id", ""))
        found = Reading(
            uuid,
            int(number) if number.isdecimal() and len(number) < 6 else place,  # noqa: PLR2004
            pci,
            tier,
            self._came,
            seconds=self._seconds,
        )
        if tier == "slow":
            minor = labels.get("device", "").removeprefix("nvidia")
            info = (labels.get("modelName", ""), pci, "", minor, "", "", "", "", "", "", "false")
            return found._replace(values=[("nvidia_gpu_info", info, 1.0), *_ours(_SLOW, values)])
        if tier == "normal":
            return found._replace(values=list(_ours(_NORMAL, values)))
        used, free, reserved = (values.get(f"DEV_FB_{part}") for part in ("USED", "FREE", "RESERVED"))
        shown = list(_ours(_FAST, values))
        total = values.get("DEV_FB_TOTAL")
        if total is None and used is not None and free is not None:
            total = used + free + (reserved or 0.0)
            shown.append(("nvidia_gpu_memory_total_bytes", (), total * _MEBIBYTE))
        if total and used is not None:
            shown.append(("nvidia_gpu_memory_usage_percent", (), 100 * used / total))
        busy = values.get("DEV_GPU_UTIL")
        energy = values.get("DEV_TOTAL_ENERGY_CONSUMPTION")
        return found._replace(
            values=shown,
            busy=None if busy is None or gpu.divided else min(1.0, busy / 100),
            memory_used=None if used is None else int(used * _MEBIBYTE),
            energy=None if energy is None else energy / 1000,
            power=values.get("DEV_POWER_USAGE"),
        )


def _ours(aliases: Iterable[_Alias], values: Mapping[str, float]) -> Iterator[Value]:
    for theirs, ours, factor, labels in aliases:
        if theirs in values:
            value = values[theirs]
            yield "nvidia_gpu_" + ours, labels, value / 100 if factor == _PERCENT else value * factor


def rows(text: str) -> Iterator[Row]:
    """Their rows in a page: name without DCGM_FI_, labels, value; whatever is none is left out."""
    for line in text.split("\n"):
        found = _ROW.fullmatch(line)
        if found is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        blank = any(first <= value <= last for first, last in _BLANKS)
        if math.isfinite(value) and value >= 0 and not blank:
            labels = {name: _ESCAPED.sub(_unescaped, quoted) for name, quoted in _LABEL.findall(found[2] or "")}
            yield found[1].removeprefix("DCGM_FI_"), labels, value


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def _sorted_out(found: Iterable[Row]) -> dict[str, _Gpu]:
    """The rows of whole GPUs, by their uuids, in the order of the page."""
    labels: dict[str, dict[str, str]] = {}
    divided: set[str] = set()
    whole: defaultdict[str, dict[str, float]] = defaultdict(dict)
    of_pods: defaultdict[str, defaultdict[str, set[float]]] = defaultdict(lambda: defaultdict(set))
    for name, own, value in found:
        uuid = own.get("UUID") or own.get("uuid", "")
        if not uuid.startswith("GPU-"):
            continue
        labels.setdefault(uuid, own)
        if own.get("GPU_I_ID"):
            divided.add(uuid)
            if name in _OF_DEVICE:
                of_pods[uuid][name].add(value)
        elif any(own.get(pod) for pod in _PODS):
            of_pods[uuid][name].add(value)
        else:
            whole[uuid].setdefault(name, value)
    for uuid, names in of_pods.items():
        for name, values in names.items():
            # The same for all pods is the GPU's. Where each pod has its part, only a row without a pod is the GPU's.
            if len(values) == 1:
                whole[uuid].setdefault(name, next(iter(values)))
    return {uuid: _Gpu(own, whole[uuid], uuid in divided) for uuid, own in labels.items()}


def _fetched(url: str, timeout: float) -> str:
    """A page, all of it; what stands behind the last end of a line is left out.

    Raises:
        SourceError: there is no answer in time, or none that can be used.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname if parts.scheme in {"http", "https"} else None, parts.port
    except ValueError:
        host = None
    if not host:
        raise SourceError(
            f"{url!r} is no address of a dcgm-exporter, expected for example http://localhost:9400/metrics"
        )
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
    kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
    connection = kind(host, port, timeout=timeout)
    late: list[bool] = []
    held: list[socket.socket] = []  # an answer takes the socket of its connection away
    answer = None

    def cut() -> None:
        late.append(True)
        for one in held:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    # The timeout of a socket is of each of its reads, and an answer may come byte by byte.
    timer = threading.Timer(timeout, cut)
    timer.daemon = True
    try:
        connection.connect()
        held.append(connection.sock)
        timer.start()
        path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "text/plain", **_credentials(parts.netloc)})
        answer = connection.getresponse()
        if answer.status != _OK:
            raise SourceError(f"{shown} answers with {answer.status} {answer.reason}, expected 200")
        body = bytearray()
        while piece := answer.read1(1 << 16):
            body += piece
            if len(body) > _MOST:
                raise SourceError(f"{shown} is longer than {_MOST >> 20} MiB")
        if answer.length and not late:
            raise SourceError(f"{shown} ends before its end")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late or isinstance(error, TimeoutError):
            raise SourceError(f"{shown} does not answer within {timeout:g} s") from error
        raise SourceError(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    finally:
        timer.cancel()
        if answer is not None:
            answer.close()
        connection.close()
    if late:
        raise SourceError(f"{shown} does not answer within {timeout:g} s")
    return bytes(body).decode("utf-8", "replace").rpartition("\n")[0]


def _credentials(netloc: str) -> dict[str, str]:
    """The header of who has a name and a password in the address."""
    user, at, _ = netloc.rpartition("@")
    return {"Authorization": "Basic " + base64.b64encode(unquote(user).encode()).decode()} if at else {}
