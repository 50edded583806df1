"""Keeps a worker reading: tries sources in their order, and replaces a worker that hangs, dies or reads what is gone.

One thread does all of it. A GPU in whose driver calls a worker hangs is left to a worker of its own, so that it can
hang again without the others; where many hang at once, it is the driver, and there is one worker again.
"""

import logging
import selectors
import threading
import time
from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Callable, Sequence

from infermeter_exporters.families import Samples, Series
from infermeter_exporters.gpu.board import Board
from infermeter_exporters.gpu.child import Child
from infermeter_exporters.gpu.readings import Beat, Failed, Machine, Message, Opened, Reading, Xid
from infermeter_exporters.gpu.worker import Task

log = logging.getLogger("infermeter.gpu")

# Seconds: after which a call hangs, until a source has opened, until a better source is tried again, and so on.
_PATIENCE = {"nvidia-smi": 60.0, "dcgm": 30.0}
_USUAL_PATIENCE = 5.0
_OPENING = 20.0
_SILENCE = 10.0
_FIRST_BETTER, _LONGEST_BETTER = 2.0, 60.0
_STEP = 0.25
_SETTLED = 30.0
_LONGEST_PAUSE = 30.0
_FIRST_ISOLATION, _LONGEST_ISOLATION = 5.0, 600.0
# So many processes may hang beyond being killed before no other is started.
_MOST_ABANDONED = 4
# Sources whose units are single GPUs.
_SINGLE = {"nvml", "simulated"}


class _Isolated:
    """A GPU in which a worker hung.

    Attributes:
        pause: seconds until the next try, if this one hangs as well.
        due: when the next try is.
        child: its worker.
    """

    __slots__ = ("child", "due", "pause")

    def __init__(self, now: float) -> None:
        self.pause = _FIRST_ISOLATION
        self.due = now + self.pause
        self.child: Child | None = None


class Watchdog:
    """Has GPUs read into a board.

    Args:
        board: gets all that is read.
        tasks: one for each source, the best first; the last should be one that can always be used.
        kernel_errors: gives errors that the kernel's log told since the last call; see `kmsg.Kmsg.poll`.
    """

    def __init__(
        self, board: Board, tasks: Sequence[Task], kernel_errors: Callable[[], Sequence[Xid]] = lambda: ()
    ) -> None:
        self._board = board
        self._tasks = list(tasks)
        self._kernel_errors = kernel_errors
        self._selector = selectors.DefaultSelector()
        self._main: Child | None = None
        self._candidate: Child | None = None
        self._left: list[Task] = []  # to be tried in this round
        self._isolated: dict[str, _Isolated] = {}
        self._dying: list[Child] = []
        self._due = 0.0
        self._pause = 1.0
        self._better = 0.0
        self._better_pause = _FIRST_BETTER
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._restarts: Multiset[str] = Multiset({"hang": 0, "crash": 0, "source": 0})
        self._reasons: dict[str, str] = {}  # why a source could not be used; "" if it could

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all workers; those that hang in the driver are left behind."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for child in (self._main, self._candidate, *(one.child for one in self._isolated.values())):
            if child is not None:
                child.end()

    @property
    def source(self) -> str:
        """The source that is read; empty if none is."""
        main = self._main
        return main.task.source if main is not None else ""

    def reasons(self) -> dict[str, str]:
        """Of each source that was tried, why it could not be used, "" if it could."""
        return dict(self._reasons)

    def samples(self) -> Samples:
        """What is known of sources and workers."""
        found: defaultdict[str, Series] = defaultdict(dict)
        main = self._main
        for task in self._tasks:
            if task.source in self._reasons:
                found["nvidia_gpu_exporter_source_up"][task.source,] = float(not self._reasons[task.source])
            found["nvidia_gpu_exporter_source_active"][task.source,] = float(self.source == task.source)
        found["nvidia_gpu_exporter_worker_up"][()] = float(main is not None)
        for reason, number in self._restarts.items():
            found["nvidia_gpu_exporter_worker_restarts_total"][reason,] = number
        found["nvidia_gpu_exporter_workers_abandoned"][()] = len(self._abandoned())
        return found

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._step(time.monotonic())
            except Exception:  # whatever it is, GPUs have to be read
                log.exception("the watchdog failed, and goes on")
                self._stopped.wait(1)

    def _step(self, now: float) -> None:
        for key, _ in self._selector.select(_STEP):
            for message in key.data.messages():
                self._take(key.data, message)
        for xid in self._kernel_errors():
            self._board.error(xid)
        for child in (self._main, self._candidate, *(one.child for one in self._isolated.values())):
            if child is not None:
                self._look_after(child, now)
        self._dying = [child for child in self._dying if child.running()]
        if len(self._abandoned()) < _MOST_ABANDONED:
            self._begin(now)

    def _abandoned(self) -> list[Child]:
        return [child for child in self._dying if time.monotonic() - child.ended > 2]  # noqa: PLR2004  (seconds)

    def _begin(self, now: float) -> None:
        """Start what is due."""
        if self._candidate is None and now >= self._due:
            if self._main is None:
                self._left = self._left or list(self._tasks)
            elif self._main.task.source != self._tasks[0].source and now >= self._better:
                self._better_pause = min(2 * self._better_pause, _LONGEST_BETTER)
                self._better = now + self._better_pause
                better = [task.source for task in self._tasks].index(self._main.task.source)
                self._left = self._tasks[:better]
            if self._left:
                self._candidate = self._started(self._left.pop(0)._replace(skip=list(self._isolated)))
        main = self._main
        for name, isolated in self._isolated.items():
            if isolated.child is None and now >= isolated.due and main is not None and main.task.source in _SINGLE:
                isolated.child = self._started(main.task._replace(only=[name], skip=[]))

    def _started(self, task: Task) -> Child:
        child = Child(task)
        self._selector.register(child.descriptor, selectors.EVENT_READ, child)
        return child

    def _take(self, child: Child, message: Message) -> None:
        """A worker says something."""
        if isinstance(message, Reading):
            self._board.read(message)
        elif isinstance(message, Xid):
            self._board.error(message)
        elif isinstance(message, Beat):
            child.beat(message)
        elif isinstance(message, Failed):
            child.reason = message.reason
        elif isinstance(message, Machine):
            child.machine = message
            if child is self._main:
                self._board.told(message)
        elif isinstance(message, Opened):
            child.units = message.units
            if child is self._candidate:
                self._promote(child)

    def _promote(self, child: Child) -> None:
        """A source could be opened, and is the best of those that can."""
        self._candidate, self._left = None, []
        before, self._main = self._main, child
        if before is not None:
            self._drop(before)
        source = child.task.source
        if source == self._tasks[0].source:
            self._better_pause = _FIRST_BETTER
        if self._reasons.get(source) != "":
            log.info("reading %d GPUs from %s", child.machine.devices if child.machine else 0, source)
        self._reasons[source] = ""
        self._board.start_over()
        if child.machine is not None:
            self._board.told(child.machine)

    def _look_after(self, child: Child, now: float) -> None:
        """See whether a worker lives and answers."""
        patience = _PATIENCE.get(child.task.source, _USUAL_PATIENCE)
        if not child.running():
            for message in child.messages():  # its last ones
                self._take(child, message)
            self._gone(child, now, "source" if child.reason else "crash")
        elif child.units is None and now - child.started > _OPENING:
            child.reason = f"did not open within {_OPENING:.0f} s"
            self._gone(child, now, "hang")
        elif now - child.heard > _SILENCE + _OPENING * (child.units is None):
            self._gone(child, now, "hang")
        else:
            hung = [name for name, seconds in child.reading if seconds + now - child.heard > patience]
            if hung:
                self._hung(child, hung, now)

    def _hung(self, child: Child, hung: list[str], now: float) -> None:
        """A worker hangs in the calls for some GPUs."""
        log.error("%s does not answer for %s: its worker is replaced", child.task.source, ", ".join(hung))
        for name in hung:
            self._board.missed(name, "timeout")
        if child is self._main and child.task.source in _SINGLE and len(hung) == 1 and len(child.units or ()) > 1:
            self._isolated.setdefault(hung[0], _Isolated(now))
        elif child is self._main:
            self._board.missed_all("timeout")
        self._gone(child, now, "hang")

    def _gone(self, child: Child, now: float, why: str) -> None:
        """A worker is of no use any more."""
        self._drop(child)
        for name, isolated in self._isolated.items():
            if isolated.child is child:
                isolated.child = None
                isolated.pause = min(2 * isolated.pause, _LONGEST_ISOLATION)
                isolated.due = now + isolated.pause
                self._board.missed(name, "timeout")
                self._restarts[why] += 1
        reason = child.reason or {"hang": "hangs", "crash": "crashed"}.get(why, why)
        if child is self._candidate:
            self._candidate = None
            self._failed(child.task.source, reason)
            if not self._left and self._main is None:
                self._rest(now)
        elif child is self._main:
            self._main = None
            self._restarts[why] += 1
            self._failed(child.task.source, reason)
            self._left = list(self._tasks)
            if now - child.started > _SETTLED:
                self._pause, self._due = 1.0, now
            else:
                self._rest(now)

    def _rest(self, now: float) -> None:
        """Wait before the next round, longer each time."""
        self._due = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _failed(self, source: str, reason: str) -> None:
        if self._reasons.get(source) != reason:
            log.warning("%s cannot be used: %s", source, reason)
        self._reasons[source] = reason

    def _drop(self, child: Child) -> None:
        self._selector.unregister(child.descriptor)
        child.end()
        self._dying.append(child)
