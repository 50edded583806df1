"""Calls of the NVIDIA driver's library about one GPU, each guarded on its own, and what their errors mean."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import pynvml

from infermeter_exporters.gpu.readings import SourceError, State

# The GPU, the driver or the library does not have it: not an error, and not asked again for a while.
_UNSUPPORTED = {
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_DEPRECATED,
}
# There is nothing now; of samples that are none, pynvml raises that the call succeeded.
_NOTHING = {pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_NO_DATA}
_GONE: dict[int, State] = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "reset_required",
}
_STATES: dict[str, State] = {"no_permission": "no_permission", "timeout": "timeout"}
# What says that the library can do nothing more, and what would help.
_OVER = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 is not found: install the NVIDIA driver, or give the container the capability utility"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded: modprobe nvidia, or look at dmesg for why",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "libnvidia-ml.so.1 and the loaded NVIDIA driver are of different versions: the driver was upgraded, "
        "a new process is needed, and a restart of the host if the old module is still loaded"
    ),
    pynvml.NVML_ERROR_UNINITIALIZED: "the NVIDIA driver's library has lost its connection: a new process is needed",
}
_NO_PERMISSION = (
    "no permission to open the NVIDIA driver: /dev/nvidiactl and /dev/nvidia* must be readable and writable"
)
# A list that grew between the question for its length and the question for itself is asked for again.
_TRIES = 3
_TIMES = 1 << 32
_VALUES = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}
_ERROR_NAMES: dict[int, str] = {
    value: name.removeprefix("NVML_ERROR_").lower()
    for name, value in vars(pynvml).items()
    if name[:11] == "NVML_ERROR_"
}


# For calls that are about no handle.
NO_HANDLE = object()


class Gone(Exception):  # noqa: N818  (a state of the GPU rather than an error)
    """The GPU does not answer.

    Attributes:
        state: what it is instead.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.state: State = state


def error_name(code: int) -> str:
    """An error as a label value: "no_permission"; one that is in no list by its number: "error_77"."""
    return _ERROR_NAMES.get(code, f"error_{code}")


def source_error(code: int) -> SourceError | None:
    """What to say of an error after which no call of the library succeeds; None for any other."""
    return SourceError(_OVER[code]) if code in _OVER else None


def opening_error(code: int) -> SourceError:
    """What to say of an error of the first call."""
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return SourceError(_NO_PERMISSION)
    said = f"the NVIDIA driver cannot be used ({error_name(code)}): dmesg may say why"
    return source_error(code) or SourceError(said)


def text(said: Any) -> str:
    """What a call gave as a text, whichever way the library's release gives it."""
    return said.decode(errors="replace") if isinstance(said, bytes) else "" if said is None else str(said)


def number(value: Any, kind: int) -> float | None:
    """The member of a union that its kind says; None for one that is unknown or not finite."""
    field = _VALUES.get(kind)
    found = float(getattr(value, field)) if field else math.nan
    return found if math.isfinite(found) else None


def address(handle: Any) -> int:
    """What a handle points to, by which it is recognised."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


class Calls:
    """Asks the driver about one GPU. It is used by one thread.

    Args:
        handle: of the GPU.

    Attributes:
        asked: calls so far.
        answered: how many of them gave something since `begin`.
        errors: those that failed since `begin` otherwise than by "not supported", and how.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.asked = 0
        self.answered = 0
        self.errors: list[tuple[str, str]] = []
        self._unsupported: set[tuple[object, ...]] = set()

    def begin(self, *, afresh: bool) -> None:
        """Begin a reading; `afresh`, what was not supported is asked again."""
        self.errors = []
        self.answered = 0
        if afresh:
            self._unsupported.clear()

    def state(self) -> State:
        """What the reading says of the GPU: one that answered nothing but errors is not "ok"."""
        if self.answered or not self.errors:
            return "ok"
        return _STATES.get(self.errors[0][1], "unknown")

    def ask(self, function: str, *rest: Any, of: Any = None, about: str = "") -> Any:
        """What the driver says; None if it has nothing to say.

        Args:
            function: without "nvmlDeviceGet", or whole.
            rest: arguments after the handle.
            of: another handle than that of the GPU.
            about: what that handle is of, for what is remembered as not supported.

        Raises:
            Gone: the GPU does not answer.
            SourceError: no call will succeed.
        """
        whole = function if function.startswith("nvml") else "nvmlDeviceGet" + function
        # Without times, which differ each time; they are in microseconds since 1970.
        key = (whole, about, *(one for one in rest if isinstance(one, int) and one < _TIMES))
        if key in self._unsupported:
            return None
        call = getattr(pynvml, whole, None)  # an older nvidia-ml-py does not have all of them
        if call is None:
            self._unsupported.add(key)
            return None
        for left in reversed(range(_TRIES)):
            self.asked += 1
            try:
                found = call(*rest) if of is NO_HANDLE else call(self.handle if of is None else of, *rest)
            except pynvml.NVMLError as error:
                code: int = error.value
                if code == pynvml.NVML_ERROR_INSUFFICIENT_SIZE and left:
                    continue
                if self._failed(whole, code):
                    self._unsupported.add(key)
                return None
            self.answered += 1
            return found
        return None

    def ask_either(self, *questions: tuple[Any, ...], of: Any = None, about: str = "") -> Any:
        """What the driver says to the first of the questions, the later ones for older drivers, that it understands."""
        for question in questions:
            failed = len(self.errors)
            found = self.ask(*question, of=of, about=about)
            if found is not None or len(self.errors) > failed:
                return found
        return None

    def fields(self, asked: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Values of fields by id and scope, in one call; those that the driver does not know are left out."""
        if not asked:
            return {}
        found: dict[tuple[int, int], float] = {}
        for wanted, got in zip(asked, self.ask("FieldValues", list(asked)) or (), strict=False):
            if got.nvmlReturn != pynvml.NVML_SUCCESS:
                self._failed("nvmlDeviceGetFieldValues", got.nvmlReturn)
                continue
            value = number(got.value, got.valueType)
            if value is not None:
                found[wanted] = value
        return found

    def _failed(self, whole: str, code: int) -> bool:
        """Note an error; gives whether it means that this is not supported."""
        if code in _GONE:
            raise Gone(_GONE[code])
        over = source_error(code)
        if over is not None:
            raise over
        if code in _UNSUPPORTED:
            return True
        if code not in _NOTHING:
            self.errors.append((whole.removeprefix("nvml"), error_name(code)))
        return False
