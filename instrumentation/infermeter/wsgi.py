"""HTTP requests of a WSGI application: Flask, or any other one."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Self

from infermeter.call import now
from infermeter.failures import error_type
from infermeter.patch import Patches, failed
from infermeter.traffic import FAILED, GONE, UNMATCHED, UNROUTED, Traffic, content_length, excluded_endpoints

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.recorder import Recorder

Environ = MutableMapping[str, Any]
App = Callable[[Any, Any], Iterable[bytes]]

_DEEPEST = 20


class WsgiMiddleware:
    """A WSGI application that answers as another one does, and records it; made by `wsgi_middleware`.

    Attributes:
        app: the other one.
        watch: records it.
    """

    def __init__(self, recorder: "Ledger", app: App, exclude: Iterable[str] = ()) -> None:
        self.app = app
        self.watch = Watch(recorder, exclude)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer, and record it."""
        return self.watch.run(self.app, self.app, environ, start_response)


class Watch:
    """Records what applications answer: each request once, however many of its applications are watched.

    Args:
        recorder: who records it.
        exclude: endpoints that are left out.

    Raises:
        ConfigError: `exclude` is no list of endpoints.
    """

    def __init__(self, recorder: "Ledger", exclude: Iterable[str] = ()) -> None:
        self.recorder = recorder
        self.exclude = excluded_endpoints("wsgi_middleware", exclude)
        self.traffic = Traffic.of(recorder)
        self.key = f"infermeter.{id(recorder)}"  # in the environment of what is recorded already

    def run(self, app: App, owner: Any, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Have `app` answer, and record it.

        Args:
            app: what answers.
            owner: the application of which that is a method, or `app` itself.
            environ: as for `app`.
            start_response: as for `app`.
        """
        try:
            outer = environ.get(self.key)
            if outer is not None:
                outer.leave_out(self.exclude)
                exchange = None
            else:
                exchange = environ[self.key] = _Exchange(self, owner, environ, start_response)
                exchange.leave_out(self.exclude)
        except Exception as error:  # ours, on the way of a request
            failed(self.recorder, error)
            exchange = None
        if exchange is None:
            return app(environ, start_response)
        try:
            body = app(environ, exchange.start_response)
        except BaseException as error:
            exchange.failed(error)
            raise
        try:
            watched: Iterable[bytes] = exchange.watched(body)
        except Exception as error:  # ours, on the way of a response
            exchange.finish()
            failed(self.recorder, error)
            return body
        return watched


class _Exchange:
    """One request, and its response.

    Attributes:
        status: of the response, as soon as it has one.
        endpoint: the same.
    """

    __slots__ = (
        "_environ",
        "_exclude",
        "_owner",
        "_path",
        "_prefix",
        "_received",
        "_start_response",
        "_started",
        "_watch",
        "endpoint",
        "status",
    )

    def __init__(self, watch: Watch, owner: Any, environ: Environ, start_response: Callable[..., Any]) -> None:
        self._watch = watch
        self._owner = owner
        self._environ = environ
        self._start_response = start_response
        self._prefix: str = environ.get("SCRIPT_NAME", "")
        self._path: str = environ.get("PATH_INFO", "")
        self._exclude: frozenset[str] = frozenset()
        self._received: _Counted | None = None
        self.status: int | None = None
        self.endpoint: str | None = None
        if "HTTP_TRANSFER_ENCODING" in environ and not environ.get("CONTENT_LENGTH") and "wsgi.input" in environ:
            self._received = environ["wsgi.input"] = _Counted(environ["wsgi.input"])
        watch.traffic.open[self] = None
        self._started = now()

    def leave_out(self, exclude: frozenset[str]) -> None:
        """Do not record it if its endpoint turns out to be one of `exclude`, nor show it if its path is."""
        if exclude:
            self._exclude |= exclude
            if self._path in exclude or self._path.rstrip("/") in exclude:
                self._watch.traffic.open.pop(self, None)

    def start_response(self, status: str, *others: Any, **named: Any) -> Any:
        """What the application calls to begin its response."""
        try:
            self.status = int(status[:3])
            if self.endpoint is None:
                # Flask forgets the request before it returns.
                self.endpoint = _endpoint(self._owner, self._environ, self._prefix)
        except Exception as error:  # what the application says, or its routes, may be anything
            failed(self._watch.recorder, error)
        return self._start_response(status, *others, **named)

    def watched(self, body: Any) -> Any:
        """The body, which tells when it was sent."""
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # A server sends it without reading it, but only as what it is; closing it is the end in any case.
            close = getattr(body, "close", None)

            def closed() -> None:
                try:
                    if close is not None:
                        close()
                finally:
                    self.finish()

            body.close = closed  # type: ignore[attr-defined]
            return body
        # Servers take the length of a body of one part for that of the response.
        return (_SizedBody if hasattr(body, "__len__") else _Body)(body, self)

    def failed(self, error: BaseException) -> None:
        """The application raised."""
        try:
            if self.endpoint is None:
                self.endpoint = _endpoint(self._owner, self._environ, self._prefix, failed=True)
        except Exception as problem:  # its routes may be anything
            failed(self._watch.recorder, problem)
        self.status = GONE if error_type(error) == "cancelled" else FAILED
        self.finish()

    def finish(self) -> None:
        """Record it, the first time; servers close the body of a client that left, maybe before there was any."""
        ended = now()
        watch, environ = self._watch, self._environ
        try:
            del watch.traffic.open[self]
        except KeyError:
            return
        finally:
            environ.pop(watch.key, None)
        try:
            endpoint = UNROUTED if self.endpoint is None else self.endpoint
            if endpoint not in self._exclude:
                received = self._received.size if self._received is not None else 0.0
                size = content_length(environ.get("CONTENT_LENGTH") or "", received)
                status = GONE if self.status is None else self.status
                watch.traffic.record(environ["REQUEST_METHOD"], endpoint, status)(ended - self._started, size)
        except Exception as error:  # ours, on the way of a request
            failed(watch.recorder, error)


class _Body:
    """A body that tells when it was sent: when it is asked for what comes after its last part, or closed."""

    __slots__ = ("_body", "_exchange", "_parts")

    def __init__(self, body: Any, exchange: _Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)
        except StopIteration:
            self._exchange.finish()
            raise
        except BaseException as error:
            self._exchange.failed(error)
            raise

    def close(self) -> None:
        """As PEP 3333 has it."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._exchange.finish()

    def __del__(self) -> None:
        self._exchange.finish()


class _SizedBody(_Body):
    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)


class _Counted:
    """The body of a request whose length nobody knows, and how much of it was read so far.

    Attributes:
        size: in bytes.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self.size = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._body:
            self.size += len(line)
            yield line

    def read(self, *size: int) -> bytes:
        """As that of a file."""
        return self._count(self._body.read(*size))

    def readline(self, *size: int) -> bytes:
        """As that of a file."""
        return self._count(self._body.readline(*size))

    def readlines(self, *size: int) -> list[bytes]:
        """As that of a file."""
        lines: list[bytes] = self._body.readlines(*size)
        self.size += sum(map(len, lines))
        return lines

    def readinto(self, buffer: Any) -> int:
        """As that of a file."""
        found: int = self._body.readinto(buffer)
        self.size += found or 0
        return found

    def _count(self, found: bytes) -> bytes:
        self.size += len(found)
        return found


def _endpoint(owner: Any, environ: Environ, prefix: str, *, failed: bool = False) -> str:
    """The template of the route that answers: that of Flask, below the prefixes of what dispatches.

    Args:
        owner: the outermost application.
        environ: as the applications have it now.
        prefix: SCRIPT_NAME, as it was at first.
        failed: whether Flask raised, and so has forgotten what it matched.
    """
    mounted: str = environ.get("SCRIPT_NAME", "")[len(prefix) :]
    application = owner
    if mounted:
        # What a header made a prefix of is none.
        found = next((app for name, app in _mounts(owner, 0) if name == mounted), None)
        if found is None:
            mounted = ""
        else:
            application = found
    request: Any = environ.get("werkzeug.request")
    if hasattr(request, "url_rule"):
        rule = request.url_rule
        return UNMATCHED if rule is None else f"{mounted}{rule.rule}"
    if failed:
        url_map = _url_map(application)
        if url_map is not None:
            return mounted + _matched(url_map, environ)
    return mounted or UNROUTED


def _inside(app: Any) -> Iterator[Any]:
    """An application, and what its middlewares are around."""
    for _ in range(_DEEPEST):
        if app is None:
            return
        yield app
        app = getattr(app, "wsgi_app", None) or getattr(app, "app", None) or getattr(app, "__self__", None)


def _mounts(app: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Prefixes and applications that are dispatched to."""
    seen: set[int] = set()
    for one in _inside(app):
        if id(one) in seen:
            return
        seen.add(id(one))
        mounts = getattr(one, "mounts", None)
        if isinstance(mounts, Mapping):
            for name, mounted in mounts.items():
                yield name, mounted
                if depth < _DEEPEST:
                    yield from ((name + below, deeper) for below, deeper in _mounts(mounted, depth + 1))


def _url_map(app: Any) -> Any:
    """The routes of a Flask application, also behind middlewares."""
    return next((one.url_map for one in _inside(app) if hasattr(one, "url_map")), None)


def _matched(url_map: Any, environ: Environ) -> str:
    try:
        return str(url_map.bind_to_environ(environ).match(return_rule=True)[0].rule)
    except Exception:  # what Flask answers with where nothing matches
        return UNMATCHED


def watching(recorder: "Recorder", patches: Patches) -> Callable[[Any], Any]:
    """Makes of the method `__call__` of a class of WSGI applications one that records what they answer.

    Args:
        recorder: who records it, from the first request on.
        patches: it does so as long as they are live.
    """
    watch: Watch | None = None

    def found(original: Any) -> Watch | None:
        nonlocal watch
        if watch is None:
            try:
                watch = recorder.wsgi_middleware(original).watch
            except Exception as error:  # ours, on the way of a request
                failed(recorder, error)
        return watch

    def made(original: Any) -> Any:
        @functools.wraps(original)
        def __call__(self: Any, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:  # noqa: N807
            watch = found(original) if patches.live else None
            if watch is None:
                return original(self, environ, start_response)  # type: ignore[no-any-return]
            return watch.run(functools.partial(original, self), self, environ, start_response)

        return __call__

    return made
