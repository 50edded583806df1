"""What lies on a GPU: it is read when the GPU has got so far, and nobody waits for that.

Reading a tensor on a GPU waits for everything that was asked of the GPU before. So what is reported of one is copied on
the stream that made it, to memory that the host can read, and how long a module took there is told by two events around
it. The inference that they belong to is recorded by whoever finds them done: the timer once a second, a scrape, or the
next inference of that kind. Until then it is in flight, which it is.

Nothing here waits for a device: an event is asked whether it has happened (`query`), and never waited for.
"""

import atexit
import os
import sys
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from infermeter.arrays import class_values
from infermeter.observation import NO_FRAME, OBJECTS, Frame, Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter.call import Call
    from infermeter.ledger import Ledger

# The `dtype` of a frame whose `confidences` are a `Held`.
HELD = "held"
# Inferences that may wait for a device, and frames of one of them: what they copied stays in memory so long.
MOST_WAITING = 64


class Held:
    """What one call has reported that is not known yet.

    Attributes:
        before: the frame that was reported before, or NO_FRAME.
        frames: confidences, classes and names of each frame; on the host, but not before the events have happened.
        events: after which that is so.
        timing: the events around the call, if they tell how long it took.
        stages: name and events of each stage that ran on the device.
    """

    __slots__ = ("before", "events", "frames", "stages", "timing")

    def __init__(self, before: Frame | tuple[Any, ...]) -> None:
        self.before = before
        self.frames: list[tuple[Any, Any, Names]] = []
        self.events: list[Any] = []
        self.timing: tuple[Any, Any] | None = None
        self.stages: list[tuple[str, Any, Any]] = []

    def failed(self) -> None:
        """The call raised: its detections do not count, its stages do."""
        self.before = NO_FRAME
        self.frames.clear()
        self.timing = None

    def done(self) -> bool:
        """Whether the device has got so far."""
        while self.events:
            if not self.events[-1].query():
                return False
            self.events.pop()
        return True


class Device:
    """The inferences of one ledger that wait for a device.

    Attributes:
        readers: called once a second and before each scrape; they note what is looked up on devices.
        busy: whether devices must not even be asked now, because a graph is being captured: that would end it.
        stages: inferences, and threads, in which a stage runs that may contain others of its kind.
    """

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = weakref.ref(ledger)
        # Whoever takes one out records it, or puts it back: no lock, which a signal handler could find held.
        self._waiting: deque[tuple[Call, float, Held]] = deque()
        self._pid = 0
        self.readers: list[Callable[[], None]] = []
        self.busy: Callable[[], bool] = bool
        self.stages: set[tuple[int, int] | None] = set()

    def detections(self, call: "Call", confidences: Any, classes: Any, names: Names) -> bool:
        """Take the detections of one frame, if they are a tensor on a GPU; gives whether they are.

        Raises:
            TypeError, ValueError: classes from which none can be read.
        """
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(confidences, torch.Tensor) or not confidences.is_cuda:
            return False
        if not self.room(call):
            call.track.drop("device_pending")
            return True
        kept = None
        if classes is not None:
            kept = _copied(classes) if isinstance(classes, torch.Tensor) and classes.is_cuda else _kept(classes)
        held = _held(call)
        held.frames.append((_copied(confidences), kept, names))
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(confidences.device))
        held.events.append(event)
        return True

    def timed(self, call: "Call", start: Any, end: Any) -> None:
        """Have the time of `call` told by two events; what it is finished with does not count then."""
        held = _held(call)
        held.timing = start, end
        held.events.append(end)

    def staged(self, call: "Call", name: str, start: Any, end: Any) -> None:
        """Have the time of a stage of `call` told by two events."""
        held = _held(call)
        held.stages.append((name, start, end))
        held.events.append(end)

    def room(self, call: "Call") -> bool:
        """Whether one more may wait, for `call`."""
        if len(self._waiting) >= MOST_WAITING:
            self.record_done()  # which a fork may have left to the parent
        held = call.frame[1] if call.frame[0] is HELD else None
        return len(self._waiting) < MOST_WAITING and (held is None or len(held.events) < MOST_WAITING)

    def hold(self, call: "Call", seconds: float) -> None:
        """Record `call`, which ended after so many seconds of the host, as soon as the device has got so far."""
        if not self._mine():
            self._pid = os.getpid()
            atexit.register(_give_up, weakref.ref(self))
        self._waiting.append((call, seconds, call.frame[1]))
        self.record_done()

    def harvest(self) -> bool:
        """Record what is done, and look up what readers look up. Gives False, which is what `or` goes on from."""
        for reader in self.readers:
            reader()
        self.record_done()
        return False

    def record_done(self) -> None:
        """Record those that the device has got to."""
        if not self._waiting or not self._mine() or self.busy():
            return
        for _ in range(len(self._waiting)):
            try:
                one = self._waiting.popleft()
            except IndexError:  # another thread took it
                return
            call, seconds, held = one
            try:
                done = held.done()
            except Exception as error:  # of a device that is lost
                held.failed()
                held.stages.clear()
                self._drop(error)
                done = True
            if done:
                _record(call, seconds, held)
            else:
                self._waiting.append(one)

    def give_up(self) -> None:
        """The process ends: record what is done, and count the others as dropped."""
        self.record_done()
        while self._waiting and self._mine():
            self._waiting.popleft()
            self._drop(None)

    def _mine(self) -> bool:
        """Whether what waits is of this process; what is not is forgotten: the parent records it."""
        mine = self._pid == os.getpid()
        if not mine:
            self._waiting.clear()
        return mine

    def _drop(self, error: Exception | None) -> None:
        ledger = self._ledger()
        if ledger is not None:
            try:
                ledger.drop("device_pending", error)
            except Exception:  # noqa: S110  (of strict tests; here is nobody to take it)
                pass


def without_detections(frame: Frame | tuple[Any, ...]) -> Frame | tuple[Any, ...]:
    """What is left of the frame of a call that raised: its stages, if they are told by a device."""
    if frame[0] is HELD:
        held: Held = frame[1]
        held.failed()
        if held.stages:
            return frame
    return NO_FRAME


def _held(call: "Call") -> Held:
    """What `call` holds back; from now on something."""
    if call.frame[0] is HELD:
        held: Held = call.frame[1]
        return held
    held = Held(call.frame)
    call.frame = (HELD, held, None, None, None)
    return held


def _record(call: "Call", seconds: float, held: Held) -> None:
    """Record `call`, now that everything is on the host."""
    track = call.track
    call.frame = held.before
    call.open = True  # for what it reports now
    try:
        for name, start, end in held.stages:
            call.staged(name, start.elapsed_time(end) / 1000.0)  # milliseconds
        for confidences, classes, names in held.frames:
            call.detections(confidences, classes, names)
        if held.timing is not None:
            start, end = held.timing
            seconds = start.elapsed_time(end) / 1000.0
    except Exception as error:  # of a device that is lost, or of strict tests
        try:
            track.drop("internal", error)
        except Exception:  # noqa: S110  (of strict tests; here is nobody to take it)
            pass
    track.record_full(call, seconds)


def _copied(tensor: Any) -> Any:
    """A copy on the host, which is there when the stream of this thread has got so far."""
    # The clone is dense and ours: what the caller does to the tensor next is behind it on the stream.
    return tensor.detach().clone().to("cpu", non_blocking=True)


def _kept(classes: Any) -> Any:
    """A copy of classes on the host, which the caller may change."""
    dtype, kept = class_values(classes)
    return kept if dtype == OBJECTS else np.frombuffer(kept, dtype)  # type: ignore[arg-type]


def _give_up(reference: "weakref.ref[Device]") -> None:
    device = reference()
    if device is not None:
        device.give_up()
