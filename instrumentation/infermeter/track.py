"""`track`: what a user writes around an inference, as a decorator or in a `with` statement."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from numpy import ndarray

from infermeter.arrays import FLOAT32
from infermeter.call import Call, enter_context, innermost, innermost_open, leave_context, now
from infermeter.class_names import announced_names
from infermeter.config import cost_model
from infermeter.cost import CostModel
from infermeter.device import HELD, without_detections
from infermeter.errors import ConfigError
from infermeter.failures import error_type
from infermeter.meter import Meter, named
from infermeter.observation import FLOAT_IN_TUPLE, FLOATS, NO_FRAME, SMALL_PAYLOAD, STRIDE, Facts, Names
from infermeter.results import Detections, Frames, auto
from infermeter.series import Series
from infermeter.wrap import wrap

if TYPE_CHECKING:
    from infermeter.ledger import Ledger

T = TypeVar("T")

# A calling thread folds only what the timer has left too long: sooner, and the fold would show in its p99.
_MANY_BARE = 256
_MANY_FULL = 256 * STRIDE

UNREAD = object()


class Track(Meter):
    """Watches one model: reusable, shareable between threads and tasks, nestable; made by `track`.

    Each call of what it decorates, and each entry of its `with` block, is an inference of its own. The watched code
    keeps its signature, its results and its exceptions.
    """

    __slots__ = ("cost", "detections", "names", "stream")

    def __init__(
        self,
        recorder: "Ledger",
        *,
        model: str,
        version: str,
        detections: Callable[[Any], Any] | None,
        names: Names,
        cost: CostModel | None,
        stream: str,
    ) -> None:
        super().__init__(recorder, model, version)
        self.detections = detections
        self.names = names
        self.cost = cost
        self.stream = stream

    @classmethod
    def checked(
        cls,
        recorder: "Ledger",
        model: object,
        version: object,
        *,
        detections: object = None,
        names: object = None,
        cost: object = None,
        stream: object = "call",
        **unknown: object,
    ) -> Self:
        """A track made of what a user gave; see `Recorder.track`.

        Raises:
            ConfigError: an option that cannot work.
        """
        for name in unknown:
            raise ConfigError(
                f"track() has no option {name!r}, expected one of model, version, detections, names, cost, stream"
            )
        model, version = named("track", model, version)
        if not isinstance(stream, str) or stream not in {"call", "item"}:
            raise ConfigError(f'track(stream={stream!r}) is neither "call" nor "item"')
        if names is not None and (isinstance(names, str) or not {"__getitem__", "__len__"} <= set(dir(names))):
            raise ConfigError(f"track(names={names!r}) is not a mapping or list of class names")
        if isinstance(detections, str) and detections == "auto":
            detections = auto
        elif detections is not None and not callable(detections):
            raise ConfigError(f'track(detections={detections!r}) is neither a callable on the result nor "auto"')
        return cls(
            recorder,
            model=model,
            version=version,
            detections=detections,
            names=cast("Names", names),
            cost=cost_model(cost),
            stream=stream,
        )

    def __call__(self, function: T, /) -> T:
        """Decorate a function, method, static or class method, coroutine, generator or any callable.

        Raises:
            ConfigError: not a callable, or a class.
        """
        # A track of its own, so that the end of a `with` block never takes a decorated call for its own.
        mine = Track(
            self.recorder,
            model=self.model,
            version=self.version,
            detections=self.detections,
            names=self.names,
            cost=self.cost,
            stream=self.stream,
        )
        self.recorder.declare(mine)
        return cast("T", wrap(mine, function))

    # From here to `end_reading` is the hot path: every attribute, call and branch is paid for at each inference.

    def begin(self) -> Call:
        """Open a call and make it the current one."""
        series = self.series
        if series is None:
            series = self.bind()
        call = Call()
        call.track = self
        call.series = series
        call.frame = NO_FRAME
        call.facts = None
        series.open[call] = None
        call.open = True
        call.token = enter_context(call)
        call.started = now()
        return call

    __enter__ = begin

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        ended = now()
        call = innermost()
        if error is not None or call is None or call.track is not self:
            self._exit(call, error, ended)
            return
        # finish, spelled out: calling it would cost a twentieth of the whole.
        series = call.series
        try:
            del series.open[call]
        except KeyError:
            self._exit(call, error, ended)
            return
        try:
            leave_context(call.token)  # type: ignore[arg-type]
        except ValueError:
            pass
        call.open = False
        seconds = ended - call.started
        if seconds > series.gate:
            series.exemplify(seconds)
        if call.facts is None and call.frame is NO_FRAME:
            series.start(None)
            series.record_bare(seconds)
            if len(series.bare) >= _MANY_BARE:
                self.recorder.fold_now(series)
        else:
            series.start(None)
            self.record_full(call, seconds)

    def finish(self, call: Call, seconds: float) -> None:
        """End `call`, which took `seconds`, and record it."""
        try:
            # Whoever takes the call out of the open ones records it: once, whatever threads do.
            del call.series.open[call]
        except KeyError:
            return
        self._close(call, seconds)

    def end(self, series: Series, started: float, seconds: float) -> None:
        """Record a call of a plain function."""
        if series.on_stack_calls:
            self._end_on_stack(series, started, seconds)
            return
        if seconds > series.gate:
            series.exemplify(seconds)
        series.record_bare(seconds)
        if len(series.bare) >= _MANY_BARE:
            self.recorder.fold_now(series)

    def end_reading(self, series: Series, started: float, seconds: float, found: Any) -> None:
        """Record a call of a plain function, and the detections that were `found` in its result."""
        kind = type(found)
        if series.on_stack_calls or found is UNREAD:
            self._end_on_stack(series, started, seconds, found)
            return
        if kind is ndarray and found.dtype is FLOAT32:
            dtype, stored = "f", found.tobytes()
        elif kind is list and found and type(found[0]) is float:
            dtype, stored = FLOATS, tuple(found)
        else:
            self._end_on_stack(series, started, seconds, found)
            return
        if seconds > series.gate:
            series.exemplify(seconds)
        series.record_full((seconds, dtype, stored, None, None, None, None))
        if len(stored) > SMALL_PAYLOAD:
            self.recorder.weigh(len(stored) * (FLOAT_IN_TUPLE if dtype is FLOATS else 1))
        if len(series.full) >= _MANY_FULL:
            self.recorder.fold_now(series)

    def end_told(self, series: Series, seconds: float, facts: Facts) -> None:
        """Record a call that was no `Call` and reported `facts`, which may be those of other calls too."""
        if seconds > series.gate:
            series.exemplify(seconds)
        series.record_full((seconds, None, None, None, None, None, facts))
        if len(series.full) >= _MANY_FULL:
            self.recorder.fold_now(series)

    def end_found(self, series: Series, started: float, seconds: float, facts: Facts, found: Any) -> None:
        """Record a call that was no `Call` and reported `facts`, with the detections that were `found` in its result.

        Args:
            series: where it began.
            started: when.
            seconds: how long it took.
            facts: as of `end_told`.
            found: as a `detections=` callable gives it; None if there was nothing to read.
        """
        call = self._call(series, started)
        if found is not None:
            self._report(call, found)
        own = call.facts
        if own is None:
            call.facts = facts
        else:
            own.batch_size, own.input_size = facts.batch_size, facts.input_size
        if seconds > series.gate:
            series.exemplify(seconds)
        self.record_full(call, seconds)

    # The rest is off the hot path.

    def announce(self, series: Series) -> None:
        """Show in `series` the zeros of inferences, and of the detections and classes that are expected."""
        recorder = self.recorder
        cost = recorder.prices.of(self.model, self.version) or self.cost or recorder.settings.cost
        series.announce_inferences(cost)
        if self.detections is not None:
            series.announce_detections()
        for name in announced_names(self.names):
            recorder.announce_class(series, name)

    def fail(self, call: Call, error: BaseException, seconds: float) -> None:
        """End `call` with the exception that its code raised; its detections do not count."""
        self._set_error(call, error)
        self.finish(call, seconds)

    def end_failed(self, series: Series, started: float, seconds: float, error: BaseException) -> None:
        """Record a call of a plain function that raised."""
        call = series.on_stack_calls.pop(sys._getframe(1), None) or self._call(series, started)  # noqa: SLF001
        if seconds > series.gate:
            series.exemplify(seconds)
        self._set_error(call, error)
        self.record_full(call, seconds)

    def abandon(self, call: Call) -> None:
        """Forget `call`: nothing was inferred."""
        call.series.open.pop(call, None)
        self._leave(call)

    def read(self, call: Call, result: Any) -> None:
        """Report the detections in `result` to `call`."""
        if self.detections is not None:
            try:
                found = self.detections(result)
            except Exception as error:  # foreign code, called for the user
                self.refuse(error, "extractor_error")
            else:
                self._report(call, found)

    def unread(self, error: Exception) -> object:
        """Count that reading a result raised `error`; gives what stands for its detections."""
        self.refuse(error, "extractor_error")
        return UNREAD

    def drop(self, reason: str, error: BaseException | None = None, count: int = 1) -> None:
        """Count refused observations."""
        self.recorder.drop(reason, error, count)

    def refuse(self, error: Exception, reason: str = "unreadable") -> None:
        """Count an observation that could not be read because of `error`."""
        self.recorder.refuse(error, reason)

    def _call(self, series: Series, started: float) -> Call:
        call = Call()
        call.track = self
        call.series = series
        call.frame = NO_FRAME
        call.facts = None
        call.open = True
        call.started = started
        return call

    def _report(self, call: Call, found: Any) -> None:
        if isinstance(found, Detections):
            call.detections(*found)
        elif isinstance(found, Frames) or (isinstance(found, list) and found and isinstance(found[0], Detections)):
            for frame in found:
                call.detections(*frame)
        else:
            call.detections(found)

    def record_full(self, call: Call, seconds: float) -> None:
        """Record `call`, which has ended and reported something; later, if that is still on a device."""
        call.open = False
        series = call.series
        dtype, confidences, class_dtype, classes, names = call.frame
        if dtype is HELD:
            self.recorder.device.hold(call, seconds)
            return
        series.record_full((seconds, dtype, confidences, class_dtype, classes, names, call.facts))
        if len(series.full) >= _MANY_FULL:
            self.recorder.fold_now(series)

    def _set_error(self, call: Call, error: BaseException) -> None:
        facts = call.fact()
        facts.frames = None
        call.frame = without_detections(call.frame)
        try:
            facts.error = error_type(error)
        except Exception as problem:  # a broken __str__ of the user's exception
            facts.error = "other"
            self.refuse(problem, "internal")

    def _end_on_stack(self, series: Series, started: float, seconds: float, found: Any = UNREAD) -> None:
        call = series.on_stack_calls.pop(sys._getframe(2), None) or self._call(series, started)  # noqa: SLF001
        if found is not UNREAD:
            self._report(call, found)
        if seconds > series.gate:
            series.exemplify(seconds)
        self.record_full(call, seconds)

    def _leave(self, call: Call) -> None:
        call.open = False
        try:
            leave_context(call.token)  # type: ignore[arg-type]
        except ValueError:  # opened in another context, as generators do: nothing to restore in this one
            pass

    def _close(self, call: Call, seconds: float) -> None:
        """Record `call`, which was taken out of the open ones."""
        if seconds > call.series.gate:
            call.series.exemplify(seconds)
        self._leave(call)
        call.series.start(None)
        if call.facts is None and call.frame is NO_FRAME:
            call.series.record_bare(seconds)
            if len(call.series.bare) >= _MANY_BARE:
                self.recorder.fold_now(call.series)
        else:
            self.record_full(call, seconds)

    def _exit(self, nearest: Call | None, error: BaseException | None, ended: float) -> None:
        """End a `with` block that raised, or whose call is not the innermost one of this context.

        Blocks of one context that end out of order, and blocks that end in another context or thread than they began
        in (both are what generators do), still each record exactly one call.
        """
        call = self._mine(nearest)
        while call is not None:
            try:
                del call.series.open[call]
            except KeyError:  # another thread took it: the block that ends here has one too
                call = self._mine(None)
                continue
            if error is not None:
                self._set_error(call, error)
            self._close(call, ended - call.started)
            # It may still be what the context is reset to later: then it leads on to the open call around it, and not
            # along an ever longer chain of ended ones.
            call.token = innermost_open(call)
            return

    def _mine(self, nearest: Call | None) -> Call | None:
        """The open call of one of our `with` blocks: the nearest one around `nearest`, else the latest of all."""
        call = innermost_open(nearest)
        while call is not None and call.track is not self:
            around = getattr(call.token, "old_value", None)
            call = innermost_open(around) if isinstance(around, Call) else None
        if call is not None or self.series is None:
            return call
        mine = [call for call in list(self.series.open) if call.track is self]
        return max(mine, key=lambda call: call.started, default=None)
