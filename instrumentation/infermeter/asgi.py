"""HTTP requests and WebSocket connections of an ASGI application: FastAPI, Starlette, or any other one."""

import functools
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from infermeter.call import now
from infermeter.endpoints import Endpoints, Matched, matched
from infermeter.failures import error_type
from infermeter.patch import Patches, failed
from infermeter.traffic import FAILED, GONE, UNROUTED, Record, Traffic, content_length, excluded_endpoints

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.recorder import Recorder

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
Key = tuple[*Matched, str, int]

_MOST_RECORDS = 10_000
# The messages that may be the last one of a response; the others come before, or are trailers.
_BODIES = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}


class AsgiMiddleware:
    """An ASGI application that answers as another one does, and records it; made by `asgi_middleware`.

    Attributes:
        app: the other one.
        watch: records it.
    """

    def __init__(self, recorder: "Ledger", app: App, exclude: Iterable[str] = ()) -> None:
        self.app = app
        self.watch = Watch(recorder, exclude)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and record it."""
        # The same stands in `watching`: one coroutine more would cost a tenth of the whole.
        watched = self.watch.begin(self.app, scope, receive, send)
        if watched is None:
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, watched.receive, watched.send)
        except BaseException as error:
            watched.failed(error)
            raise
        watched.returned()


class Watch:
    """Records what applications answer: each request once, however many of its applications are watched.

    Args:
        recorder: who records it.
        exclude: endpoints that are left out.

    Attributes:
        records: by what the routers matched, the method and the status, what records such a request.

    Raises:
        ConfigError: `exclude` is no list of endpoints.
    """

    def __init__(self, recorder: "Ledger", exclude: Iterable[str] = ()) -> None:
        self.recorder = recorder
        self.exclude = excluded_endpoints("asgi_middleware", exclude)
        self.traffic = Traffic.of(recorder)
        self.records: dict[Key, Record] = {}
        self.endpoints = Endpoints(self.records.clear)
        self.traffic.caches.append(self.records)
        self.key = f"infermeter.{id(recorder)}"  # in the scope of what is recorded already

    def begin(self, app: Any, scope: Scope, receive: Receive, send: Send) -> "_Exchange | _Connection | None":
        """What stands between `app` and its server from now on; None if nothing does."""
        try:
            kind = scope["type"]
            if self.key in scope:
                scope[self.key].leave_out(self.exclude)
                return None
            if kind == "http":
                watched: _Exchange | _Connection = _Exchange(self, app, scope, receive, send)
            elif kind == "websocket":
                watched = _Connection(self, app, scope, receive, send)
            else:
                return None
            scope[self.key] = watched
            if self.exclude:
                watched.leave_out(self.exclude)
        except Exception as error:  # ours, on the way of a request
            failed(self.recorder, error)
            return None
        return watched


class _Exchange:
    """One request, and its response."""

    __slots__ = (
        "_app",
        "_exclude",
        "_gone",
        "_path",
        "_receive",
        "_received",
        "_scope",
        "_send",
        "_started",
        "_status",
        "_watch",
    )

    def __init__(self, watch: Watch, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self._watch = watch
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._path: str = scope["path"]
        self._exclude = watch.exclude
        self._status = 0  # of the response, as soon as it has one
        self._received = 0  # bytes of the body of the request, so far
        self._gone = False  # whether the client left
        watch.traffic.open[self] = None
        self._started = now()

    def leave_out(self, exclude: frozenset[str]) -> None:
        """Do not record it if its endpoint turns out to be one of `exclude`, nor show it if its path is."""
        if exclude:
            if exclude is not self._exclude:
                self._exclude |= exclude
            if self._path in exclude or self._path.rstrip("/") in exclude:
                self._watch.traffic.open.pop(self, None)

    async def receive(self) -> Message:
        """What the application receives."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self._received += len(message.get("body") or b"")
        elif kind == "http.disconnect":
            self._gone = True
            self._status = self._status or GONE  # whatever is sent to nobody
        return message

    async def send(self, message: Message) -> None:
        """What the application sends."""
        kind = message["type"]
        try:
            await self._send(message)
        except OSError:  # what servers raise where the client has left
            self._gone = True
            raise
        if kind == "http.response.start":
            self._status = self._status or message["status"]
        elif kind in _BODIES and not message.get("more_body", False):
            self._finish(self._status)

    def returned(self) -> None:
        """The application is done with it; servers answer 500 if it sent nothing."""
        if self in self._watch.traffic.open:
            self._finish(self._status or FAILED)
        self._scope.pop(self._watch.key, None)

    def failed(self, error: BaseException) -> None:
        """The application raised."""
        if self._gone or error_type(error) == "cancelled":
            self._finish(self._status or GONE)
        else:
            self._finish(FAILED)
        self._scope.pop(self._watch.key, None)

    def _finish(self, status: int) -> None:
        """Record it, the first time."""
        ended = now()
        watch, scope = self._watch, self._scope
        try:
            del watch.traffic.open[self]
        except KeyError:
            return
        try:
            size: float = self._received
            for name, value in scope["headers"]:
                if name == b"content-length":
                    size = content_length(value, size)
            method = scope["method"]
            key = (*matched(scope), method, status)
            try:
                record = watch.records[key]
            except KeyError:
                record = self._record(key, method, status)
            record(ended - self._started, size)
        except Exception as error:  # ours, on the way of a request
            failed(watch.recorder, error)

    def _record(self, key: Key, method: str, status: int) -> Record:
        """What records it, and those that are matched and end as it is."""
        watch = self._watch
        try:
            endpoint, same = watch.endpoints.of(self._scope, self._path, self._app)
        except Exception as error:  # routes are foreign objects
            failed(watch.recorder, error)
            endpoint, same = UNROUTED, False
        if endpoint in self._exclude:
            return _left_out
        record = watch.traffic.record(method, endpoint, status)
        # What depends on the path, or on how the application is nested this time, is found anew each time.
        if same and self._exclude is watch.exclude and len(watch.records) < _MOST_RECORDS:
            watch.records[key] = record
        return record


def _left_out(_seconds: float, _size: float) -> None:
    """Record nothing."""


class _Connection:
    """One WebSocket connection, which is active from the moment that it is accepted until it is closed."""

    __slots__ = ("_receive", "_scope", "_send", "_watch")

    def __init__(self, watch: Watch, _app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self._watch = watch
        self._scope = scope
        self._receive = receive
        self._send = send

    def leave_out(self, exclude: frozenset[str]) -> None:
        """Connections have no endpoint to leave out."""

    async def receive(self) -> Message:
        """What the application receives."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._watch.traffic.sockets.pop(self, None)
        return message

    async def send(self, message: Message) -> None:
        """What the application sends."""
        await self._send(message)
        kind = message["type"]
        if kind == "websocket.accept":
            self._watch.traffic.sockets[self] = None
        elif kind == "websocket.close":
            self._watch.traffic.sockets.pop(self, None)

    def returned(self) -> None:
        """The application is done with it."""
        self._watch.traffic.sockets.pop(self, None)
        self._scope.pop(self._watch.key, None)

    def failed(self, _: BaseException) -> None:
        """The application raised."""
        self.returned()


def watching(recorder: "Recorder", patches: Patches) -> Callable[[Any], Any]:
    """Makes of the method `__call__` of a class of ASGI applications one that records what they answer.

    Args:
        recorder: who records it, from the first request on.
        patches: it does so as long as they are live.
    """
    watch: Watch | None = None

    def found(original: Any) -> Watch | None:
        nonlocal watch
        if watch is None:
            try:
                watch = recorder.asgi_middleware(original).watch
            except Exception as error:  # ours, on the way of a request
                failed(recorder, error)
        return watch

    def made(original: Any) -> Any:
        @functools.wraps(original)
        async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
            watch = found(original) if patches.live else None
            if watch is None:
                await original(self, scope, receive, send)
                return
            watched = watch.begin(self, scope, receive, send)
            if watched is None:
                await original(self, scope, receive, send)
                return
            try:
                await original(self, scope, watched.receive, watched.send)
            except BaseException as error:
                watched.failed(error)
                raise
            watched.returned()

        return __call__

    return made
