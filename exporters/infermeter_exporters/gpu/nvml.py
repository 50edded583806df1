"""GPUs as the NVIDIA driver's own library (NVML) knows them. All that calls it is in the modules `nvml*`."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pynvml

from infermeter_exporters.gpu.nvml_calls import (
    Calls,
    Gone,
    address,
    opening_error,
    source_error,
    text,
)
from infermeter_exporters.gpu.nvml_fast import Fast
from infermeter_exporters.gpu.nvml_mig import Mig
from infermeter_exporters.gpu.nvml_normal import Normal
from infermeter_exporters.gpu.nvml_slow import Slow
from infermeter_exporters.gpu.readings import Machine, Reading, State, Tier, Unit, Value, Xid

_STATES: dict[int, State] = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "lost",
    pynvml.NVML_ERROR_NOT_FOUND: "lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "reset_required",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_TIMEOUT: "timeout",
}


class _Gpu:
    """One GPU.

    Args:
        number: at the driver.
        asleep: whether the GPU at an address is suspended.
    """

    def __init__(self, number: int, asleep: Callable[[str], bool]) -> None:
        self.name = f"GPU {number}"
        self.number = number
        self.uuid = ""
        self.pci = ""
        self.handle: Any = None
        self._asleep = asleep
        self._calls: Calls | None = None

    def find(self) -> State:
        """Ask the driver for the GPU; gives the state that it is in."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(self.number)
            uuid = text(pynvml.nvmlDeviceGetUUID(handle))
            if self.uuid and uuid != self.uuid:  # without the lost one, the others are numbered anew
                handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
                uuid = self.uuid
            pci = self.pci or _pci(handle)
        except pynvml.NVMLError as error:
            over = source_error(error.value)
            if over is not None:
                raise over from error
            return _STATES.get(error.value, "unknown")
        self.name, self.uuid, self.pci, self.handle = uuid, uuid, pci, handle
        if self._calls is None:
            self._calls = Calls(handle)
            mig = Mig(self._calls)
            self._fast, self._normal = Fast(self._calls, mig), Normal(self._calls, mig)
            self._slow = Slow(self._calls, mig, pci)
        self._calls.handle = handle
        return "ok"

    def read(self, tier: Tier) -> Sequence[Reading]:
        """Read one tier; nothing of a GPU of which it was never known which one it is."""
        began = time.monotonic()
        reading = Reading(self.uuid, self.number, self.pci, tier, began)
        if self.pci and self._asleep(self.pci):
            # Only one tier says it, so that no older reading of another one contradicts.
            values: list[Value] = [("nvidia_gpu_runtime_suspended", (), 1.0)] if tier == "fast" else []
            if tier == "slow" and self._slow.info is not None:
                values.append(self._slow.info)
            return [reading._replace(values=values)]
        state: State = "ok"
        if self.handle is None:
            state = self.find()
            reading = reading._replace(uuid=self.uuid, pci=self.pci)
        if not self.uuid:
            return []
        reading = self._read(reading) if state == "ok" else reading._replace(state=state)
        return [reading._replace(seconds=time.monotonic() - began)]

    def _read(self, reading: Reading) -> Reading:
        calls = self._calls
        assert calls is not None
        calls.begin(afresh=reading.tier == "slow")
        try:
            if reading.tier == "fast":
                found = self._fast.read(reading)
                found = found._replace(values=[*found.values, ("nvidia_gpu_runtime_suspended", (), 0.0)])
            elif reading.tier == "normal":
                found = reading._replace(values=list(self._normal.read()))
            else:
                found = reading._replace(values=list(self._slow.read()))
        except Gone as error:
            self.handle = None  # when it is back it has another one
            return reading._replace(state=error.state)
        state = calls.state()
        if state != "ok":
            return reading._replace(state=state, errors=calls.errors)
        return found._replace(errors=calls.errors)


def _pci(handle: Any) -> str:
    """An address as the kernel writes it; empty of a GPU that is not on that bus, as those within other chips."""
    try:
        info = pynvml.nvmlDeviceGetPciInfo(handle)
    except pynvml.NVMLError as error:
        if error.value in _STATES and error.value != pynvml.NVML_ERROR_NOT_FOUND:
            raise
        return ""
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


class Nvml:
    """The GPUs of this host.

    Args:
        asleep: whether the GPU at an address, "0000:65:00.0", is suspended; then it is not asked for anything.
    """

    name = "nvml"

    def __init__(self, asleep: Callable[[str], bool] = lambda _: False) -> None:
        self._asleep = asleep
        self._gpus: list[_Gpu] = []
        self._events: Any = None
        self._registered: dict[int, tuple[str, str]] | None = None

    def open(self) -> Machine:
        """Load the library and connect to the driver.

        Raises:
            SourceError: there is no library or no driver, they do not match, or may not be used.
        """
        try:
            pynvml.nvmlInit()
            count: int = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise opening_error(error.value) from error
        self._gpus = [_Gpu(number, self._asleep) for number in range(count)]
        for gpu in self._gpus:
            gpu.find()
        return Machine(self.name, count, list(_driver()))

    def units(self) -> Sequence[Unit]:
        """The GPUs, lost ones among them."""
        return self._gpus

    def wait_for_xid(self, seconds: float) -> Xid | None:
        """Wait for the next error that a GPU reports."""
        if self._registered is None:
            self._registered = dict(self._register())
        if not self._registered:
            time.sleep(seconds)
            return None
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, max(0, round(seconds * 1000)))
        except pynvml.NVMLError as error:
            over = source_error(error.value)
            if over is not None:
                raise over from error
            if error.value != pynvml.NVML_ERROR_TIMEOUT:
                time.sleep(seconds)  # a GPU that is lost fails at once, again and again
            return None
        known = self._registered.get(address(event.device))
        if known is None or not event.eventType & pynvml.nvmlEventTypeXidCriticalError:
            return None
        return Xid(*known, int(event.eventData), time.time(), self.name)

    def _register(self) -> Iterator[tuple[int, tuple[str, str]]]:
        """GPUs that tell of their errors, by their handles: one that is lost by then cannot be asked who it is."""
        xid = pynvml.nvmlEventTypeXidCriticalError
        try:
            self._events = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError:
            return
        for gpu in self._gpus:
            handle = gpu.handle
            try:
                if handle is None or not pynvml.nvmlDeviceGetSupportedEventTypes(handle) & xid:
                    continue
                pynvml.nvmlDeviceRegisterEvents(handle, xid, self._events)
            except pynvml.NVMLError:
                continue
            yield address(handle), (gpu.uuid, gpu.pci)


def _driver() -> Iterator[Value]:
    versions = []
    for call in (
        pynvml.nvmlSystemGetDriverVersion,
        pynvml.nvmlSystemGetNVMLVersion,
        pynvml.nvmlSystemGetCudaDriverVersion_v2,
    ):
        try:
            versions.append(text(call()))
        except pynvml.NVMLError:
            versions.append("")
    cuda = versions.pop()
    if cuda.isdecimal():  # 12040 is 12.4
        cuda = f"{int(cuda) // 1000}.{int(cuda) % 1000 // 10}"
    yield "nvidia_gpu_driver_info", (*versions, cuda), 1.0
