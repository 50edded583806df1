"""The open inference: what user code reports to while it runs, and how that code finds it."""

import sys
from contextvars import ContextVar, Token
from time import perf_counter, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from infermeter.arrays import FLOAT32, DeviceArrayError, class_values, copied_floats
from infermeter.class_names import printed
from infermeter.guard import encodable
from infermeter.observation import (
    FLOAT_IN_TUPLE,
    FLOATS,
    LONGEST_EXEMPLAR,
    NAME_IN_TUPLE,
    NO_FRAME,
    OBJECTS,
    SMALL_PAYLOAD,
    WIDTHS,
    Exemplar,
    Facts,
    Frame,
    Names,
)

if TYPE_CHECKING:
    from types import FrameType

    from infermeter.ledger import Ledger
    from infermeter.series import Series
    from infermeter.track import Track

now = perf_counter

_OPEN: ContextVar["Call | None"] = ContextVar("infermeter_call", default=None)
enter_context = _OPEN.set
leave_context = _OPEN.reset
innermost = _OPEN.get

# The file name of wrappers of plain functions, by which `current` knows their frames, and names of their variables.
WRAPPER = "<infermeter.track>"
LOCAL_SERIES = "_infermeter_series"
LOCAL_STARTED = "_infermeter_started"
LOCAL_OUTER = "_infermeter_outer"
# The lines of wrappers on which the call is open; wrap.py tells them.
inside_lines: set[int] = set()
# Has an item as soon as there are wrappers of plain functions, and so calls that only the stack knows of.
on_stacks: list[None] = []


class Call:
    """One inference that is running; made by `track`, found by `current`.

    Its methods never raise: what cannot be read is counted in `infermeter_observations_dropped_total`.
    """

    # No __init__: Track.begin fills the slots, and every instruction there is paid for at each inference. `token` is
    # what entering the context gave, or, once the order of calls was broken, the call around this one.
    __slots__ = ("facts", "frame", "open", "series", "started", "token", "track")

    track: "Track"
    series: "Series"
    open: bool
    token: "Token[Call | None] | Call | None"
    started: float
    frame: Frame | tuple[Any, ...]
    facts: Facts | None

    def detections(self, confidences: Any, classes: Any = None, names: Names = None) -> None:
        """Report the detections of one frame; call it once per frame of a batch, and with `[]` for an empty one.

        The values are copied, so the arrays may be reused at once. They count only if the inference succeeds.

        Args:
            confidences: n numbers, 0 to 1: list, tuple, NumPy array, tensor, memoryview. A tensor of PyTorch on a GPU
                is copied on the current stream, and the inference recorded when that is done; nobody waits for it.
            classes: n class indices or names.
            names: class index to name; by default those of `track(names=...)`, else the index is the name.
        """
        if not self.open:
            self.track.drop("late")
            return
        if type(confidences) is np.ndarray and confidences.dtype is FLOAT32:  # what most models return
            dtype, stored = "f", confidences.tobytes()  # type: str, bytes | tuple[float, ...]
        else:
            try:
                dtype, stored = copied_floats(confidences)
            except Exception as error:
                self._refused(error, confidences, classes, names)
                return
        weight = len(stored) * (FLOAT_IN_TUPLE if dtype is FLOATS else 1)
        if classes is None:
            frame: Frame | tuple[Any, ...] = (dtype, stored, None, None, None)
        else:
            class_dtype, kept = self._classes(classes, len(stored) // WIDTHS[dtype])
            weight += len(kept or ()) * (NAME_IN_TUPLE if class_dtype is OBJECTS else 1)
            frame = Frame(dtype, stored, class_dtype, kept, self.track.names if names is None else names)
        if self.frame is NO_FRAME:
            self.frame = frame
            if weight <= SMALL_PAYLOAD:
                return
        else:
            facts = self.fact()
            if facts.frames is None:
                facts.frames = []
            facts.frames.append(Frame(*frame))
        self.track.recorder.weigh(weight)

    def batch_size(self, items: float) -> None:
        """Report how many items this inference works on; the last report counts."""
        valid = None if self._late() else self._valid(items)
        if valid is not None:
            self.fact().batch_size = valid

    def input_size(self, size: float) -> None:
        """Report the size of the input, in bytes; the last report counts."""
        valid = None if self._late() else self._valid(size)
        if valid is not None:
            self.fact().input_size = valid

    def tokens(self, *, prompt: float = 0, completion: float = 0) -> None:
        """Report tokens read (`prompt`) and generated (`completion`); reports add up."""
        if self._late():
            return
        read, generated = self._valid(prompt), self._valid(completion)
        if read is not None and generated is not None:
            facts = self.fact()
            facts.prompt_tokens += read
            facts.completion_tokens += generated

    def fallback(self) -> None:
        """Report that a fallback answered instead of the model."""
        if not self._late():
            self.fact().fallbacks += 1

    def exemplar(self, **labels: str) -> None:
        """Show this inference as an example: `call.exemplar(trace_id=..., span_id=...)`; the last report counts.

        With OpenTelemetry slow inferences are shown without it. Labels of more than 128 characters in all are
        refused.
        """
        if self._late():
            return
        texts = {name: encodable(printed(value)) for name, value in labels.items()}
        named = all(name.isascii() and name.isidentifier() for name in texts)
        if not named or sum(map(len, (*texts, *texts.values()))) > LONGEST_EXEMPLAR:
            self.track.drop("unreadable", ValueError(f"an exemplar's labels are no names, or too long: {texts}"))
        elif texts:
            self.fact().exemplar = Exemplar(0.0, time(), texts)

    def stage(self, name: str) -> "Stage":
        """A context around a part of this inference: `with call.stage("preprocess"): ...`, also around an `await`.

        Its time is recorded whenever it ends, also if it raises. Stages may repeat and nest; each counts for itself.
        """
        return Stage(self, name)

    def staged(self, name: str, seconds: float) -> None:
        """Report a stage that took so many seconds, measured by the caller."""
        valid = None if self._late() else self._valid(seconds)
        if valid is not None:
            facts = self.fact()
            if facts.stages is None:
                facts.stages = []
            facts.stages.append((printed(name), valid))

    def fact(self) -> Facts:
        """The rare facts of this call, for the library itself to write to."""
        if self.facts is None:
            self.facts = Facts()
        return self.facts

    def _late(self) -> bool:
        """Whether the call has ended; counts the report that comes too late."""
        if not self.open:
            self.track.drop("late")
        return not self.open

    def _valid(self, value: float) -> float | None:
        """`value` if it is a finite number of 0 or more; what is refused is counted."""
        return self.track.recorder.valid(value)

    def _refused(self, error: Exception, confidences: Any, classes: Any, names: Names) -> None:
        """Take confidences that cannot be read, or not yet; what is not taken is counted."""
        if isinstance(error, DeviceArrayError):
            try:
                if self.track.recorder.device.detections(self, confidences, classes, names):
                    return
            except Exception as problem:  # of classes, or of the device
                error = problem
        self.track.refuse(error)

    def _classes(self, classes: Any, expected: int) -> tuple[str | None, bytes | tuple[object, ...] | None]:
        try:
            dtype, kept = class_values(classes)
            given = len(kept) if dtype == OBJECTS else len(kept) // np.dtype(dtype).itemsize
        except Exception as error:
            self.track.refuse(error)
            return None, None
        if given == expected:
            return dtype, kept
        self.track.drop("length_mismatch", ValueError(f"{given} classes for {expected} confidences"), given)
        return None, None


class Stage:
    """A part of an inference, from the beginning of a `with` block to its end; made by `Call.stage`."""

    __slots__ = ("_call", "_name", "_started")

    def __init__(self, call: Call, name: str) -> None:
        self._call = call
        self._name = name

    def __enter__(self) -> Self:
        self._started = now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call.staged(self._name, now() - self._started)


class _NoCall(Call):
    """What `current` gives outside any call: takes every report and does nothing."""

    __slots__ = ()

    def detections(self, confidences: Any, classes: Any = None, names: Names = None) -> None:
        pass

    def batch_size(self, items: float) -> None:
        pass

    def input_size(self, size: float) -> None:
        pass

    def tokens(self, *, prompt: float = 0, completion: float = 0) -> None:
        pass

    def fallback(self) -> None:
        pass

    def exemplar(self, **labels: str) -> None:
        pass

    def staged(self, name: str, seconds: float) -> None:
        pass


NO_CALL = _NoCall()


def current() -> Call:
    """The innermost open call of this thread or task; outside any, a call that ignores what it is told.

    For code inside a decorated function: `infermeter.current().tokens(completion=48)`.

    `with` blocks, coroutines and generators are found in a context variable, so that tasks and `copy_context` see the
    call they were started in, until it ends. Plain functions are found on the stack of this thread: setting and
    resetting the variable would cost them more than all the rest of recording.
    """
    return _around(sys._getframe(1)) or NO_CALL  # noqa: SLF001


def enclosing(recorder: "Ledger") -> Call | None:
    """The innermost open call of this thread or task that is one of `recorder`."""
    if not on_stacks and innermost() is None:
        return None
    call = _around(sys._getframe(1))  # noqa: SLF001
    while call is not None and call.track.recorder is not recorder:  # several may watch the same
        call = innermost_open(_outside(call))
    return call


def _around(frame: "FrameType | None") -> Call | None:
    call = innermost_open(innermost())
    if not on_stacks:
        return call
    while frame is not None:
        if frame.f_code.co_filename == WRAPPER and frame.f_lineno in inside_lines:
            local = frame.f_locals
            # The function is inside the call of the context if that was there when the function began; if it was not,
            # that is inside the function.
            if call is not innermost_open(local[LOCAL_OUTER]):
                break
            series: Series = local[LOCAL_SERIES]
            return series.on_stack(frame, local)
        frame = frame.f_back
    return call


def innermost_open(call: Call | None) -> Call | None:
    """`call`, or the nearest one around it that is open: calls of one context may end out of order."""
    while call is not None and not call.open:
        call = _outside(call)
    return call


def _outside(call: Call) -> Call | None:
    """The call around `call` in its context, if that is known."""
    around = call.token if isinstance(call.token, Call | None) else call.token.old_value
    return around if isinstance(around, Call) else None  # the old value may be missing
