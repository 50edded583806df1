"""`queue`: how much waits for a model, and how long it waited."""

from collections import OrderedDict
from types import TracebackType
from typing import TYPE_CHECKING, Self

from infermeter.call import now
from infermeter.meter import Meter

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.series import Series


class Ticket:
    """The place of one item in a queue; made by `Queue.put`."""

    __slots__ = ("entered",)

    def __init__(self) -> None:
        self.entered = now()


class Queue(Meter):
    """Watches what waits for one model; made by `queue`. It holds no items, only their times.

    Any thread or task may put and get. Where nothing else is said items leave in the order they came; where they do
    not, carry the ticket along with the item.
    """

    __slots__ = ("waiting",)

    def __init__(self, recorder: "Ledger", model: str, version: str) -> None:
        super().__init__(recorder, model, version)
        # Its methods are atomic: a ticket leaves once, whatever threads do.
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()

    def put(self) -> Ticket:
        """Report that an item begins to wait; gives its ticket."""
        ticket = Ticket()
        self.waiting[ticket] = None
        return ticket

    def get(self, ticket: Ticket | None = None) -> None:
        """Report that an item, by default the one that came first, is being worked on now; its wait is recorded."""
        ticket = self._take(ticket)
        if ticket is not None:
            self.recorder.note(self, "model_queue_wait_seconds", "", now() - ticket.entered)

    def discard(self, ticket: Ticket | None = None) -> None:
        """Report that an item, by default the one that came first, left without being worked on: nothing recorded."""
        self._take(ticket)

    def wait(self) -> "Waiting":
        """A context around waiting: `with requests.wait(): semaphore.acquire()`, also around an `await`.

        The wait is recorded however it ends: who gave up waited too.
        """
        return Waiting(self)

    def announce(self, series: "Series") -> None:
        """Show the length in `series` from the start."""
        self.recorder.queues.setdefault(series, {})[self] = None

    def _take(self, ticket: Ticket | None) -> Ticket | None:
        try:
            if ticket is None:
                return self.waiting.popitem(last=False)[0]
            del self.waiting[ticket]
        except (KeyError, TypeError) as error:  # nothing waits, it left already, or it is no ticket
            self.recorder.drop("not_waiting", error)
            return None
        return ticket


class Waiting:
    """One wait, from the beginning of a `with` block to its end."""

    __slots__ = ("_queue", "_ticket")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __enter__(self) -> Self:
        self._ticket = self._queue.put()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._queue.get(self._ticket)
