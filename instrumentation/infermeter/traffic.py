"""HTTP requests and WebSocket connections: what is recorded of them, whatever protocol brings them to the service.

A request is recorded when the last byte of its response was sent, by one append of its seconds and the bytes of its
body to the line of its method, endpoint and status; the rest is done by the next fold.
"""

from collections.abc import Callable, Iterable
from time import time
from typing import TYPE_CHECKING, Any

from infermeter.errors import ConfigError
from infermeter.fold import fold_requests, take
from infermeter.guard import REST

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.rows import Row, Rows

# The endpoint of a request that no route matched, and of one to an application that has no routes we know of.
UNMATCHED = "_unmatched"
UNROUTED = "_unrouted"
# The client left before it got an answer (as nginx has it), and the application failed.
GONE, FAILED = 499, 500

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
_STATUSES = range(100, 600)
# A calling thread folds only what the timer has left too long; two numbers a request. Four times as many as inferences
# may wait: they take little room, and so folding is a twentieth of what a request costs.
_MANY = 2 * 1024
# Lines that are found without asking the guard; an application has so many only if its routes are made up.
_MOST_LINES = 10_000
# What a client may say of the size of its body; beyond, it would drown every other one in the sum.
_MOST_DIGITS = 15

Record = Callable[[float, float], None]


class Line:
    """The requests of one method, endpoint and status.

    Attributes:
        row: in which they are counted.
        pairs: seconds and bytes of each one that waits for a fold, in turns.
        record: takes seconds and bytes of one.
    """

    __slots__ = ("pairs", "record", "row")

    def __init__(self, row: "Row") -> None:
        self.row = row
        self.pairs: list[float] = []
        self.record: Record


class Traffic:
    """The HTTP requests of one ledger.

    Args:
        ledger: who counts them.

    Attributes:
        open: requests that are in flight; whoever takes one out records it, once, whatever threads do.
        sockets: WebSocket connections that are active.
        caches: what others keep of what `record` gave, until it is another one.
    """

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger
        self.open: dict[object, None] = {}
        self.sockets: dict[object, None] = {}
        self.caches: list[dict[Any, Record]] = []
        self._lines: dict[tuple[str, str, int], Line] = {}

    @classmethod
    def of(cls, ledger: "Ledger") -> "Traffic":
        """That of `ledger`, whose gauges are exposed from now on."""
        if ledger.traffic is None:
            ledger.traffic = cls(ledger)
        return ledger.traffic

    @property
    def began(self) -> bool:
        """Whether a request was recorded."""
        return bool(self._lines)

    def record(self, method: str, endpoint: str, status: int) -> Record:
        """What records a request: it takes the seconds from its start to its last byte, and the bytes of its body.

        Args:
            method: as it was sent.
            endpoint: the template of its route, `UNMATCHED` or `UNROUTED`, never its path.
            status: of the response.
        """
        line = self._lines.get((method, endpoint, status))
        if line is None:
            line = self._line(method, endpoint, status)
        return line.record

    def start_over(self) -> None:
        """Begin as a process that has answered nothing."""
        self.open.clear()
        self.sockets.clear()
        self._lines = {}
        for cache in self.caches:
            cache.clear()

    # --- what folds and shows, under the fold lock -------------------------------------------------------------

    def waits(self) -> bool:
        """Whether a fold has something to do."""
        return any(line.pairs for line in list(self._lines.values()))

    def fold(self, rows: "Rows") -> None:
        """Move every recorded request into `rows`."""
        for line in list(self._lines.values()):
            if line.pairs:
                pairs = take(line.pairs)
                fold_requests(rows, line.row, pairs[::2], pairs[1::2])

    def refresh(self, rows: "Rows", service: str) -> None:
        """Show in `rows` what is open now."""
        for family, found in (
            ("http_requests_in_flight", len(self.open)),
            ("websocket_connections_active", len(self.sockets)),
        ):
            row = rows.row(family, (service,), ())
            if row.values[0] != found:
                row.tell(found, time())

    # --- inside ------------------------------------------------------------------------------------------------

    def _line(self, method: str, endpoint: str, status: int) -> Line:
        """A line, made at its first request, which also makes visible the zero of failures."""
        ledger = self._ledger
        service, rows, guard, shared = ledger.settled()
        known = method if method in _METHODS else REST
        admitted = guard.admit_child("http_requests_total", (service, known), "endpoint", endpoint)
        labels = (service, known, admitted)

        def row(own: str) -> "Row":
            own = guard.admit_child("http_requests_total", labels, "status", own)
            return rows.row("http_requests_total", labels, (own,))

        for family in ("http_request_duration_seconds", "http_request_size_bytes"):
            rows.row(family, labels, ())
        row(str(FAILED))
        line = Line(row(str(int(status)) if status in _STATUSES else REST))
        durable = shared.answers(line.row, line.pairs, ledger.make_room) if shared is not None else None
        line.record = durable or _recording(line.pairs, ledger.fold_now)
        # What a client makes up is looked up each time, lest it fill the memory. Threads that race get the same line.
        if known == method and len(self._lines) < _MOST_LINES:
            return self._lines.setdefault((method, endpoint, status), line)
        return self._lines.setdefault((known, admitted, status if status in _STATUSES else 0), line)


def _recording(pairs: list[float], fold_now: Callable[[], object]) -> Record:
    """Takes a request of a process that counts alone."""
    extend = pairs.extend

    def record(seconds: float, size: float) -> None:
        extend((seconds, size))
        if len(pairs) >= _MANY:
            fold_now()

    return record


def content_length(value: str | bytes, received: float) -> float:
    """The bytes that a header Content-Length tells, or if it is none to be believed, those that were received."""
    return float(value) if value.isdigit() and len(value) <= _MOST_DIGITS else received


def excluded_endpoints(verb: str, exclude: object) -> frozenset[str]:
    """Endpoints that are left out.

    Raises:
        ConfigError: no collection of texts that each begin with a slash or an underscore.
    """
    if isinstance(exclude, Iterable) and not isinstance(exclude, str | bytes):
        names = list(exclude)
        if all(isinstance(name, str) and name.startswith(("/", "_")) for name in names):
            return frozenset(names)
    raise ConfigError(f'{verb}(exclude={exclude!r}) is not a list of endpoints, for example ("/metrics", "/healthz")')
