"""WSGI: what counts as a request, with applications that have no routes, under the server of the standard library."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from infermeter import ConfigError
from tests.web import gauge, requests

if TYPE_CHECKING:
    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape


class Handler(SimpleHandler):
    """The server: it writes to memory, and says nothing of exceptions."""

    def log_exception(self, exc_info: Any) -> None:
        pass


def ask(app: Any, body: bytes = b"", **environ: Any) -> bytes:
    """What a server sends to a client that asks."""
    given: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    setup_testing_defaults(given)
    given.update(environ)
    sent = io.BytesIO()
    Handler(io.BytesIO(body), sent, io.StringIO(), given).run(app)
    return sent.getvalue()


def answering(body: Any = (b"yes",), status: str = "200 OK", error: BaseException | None = None) -> Any:
    """An application that answers with this body, or raises."""

    def app(_environ: Any, start_response: Any) -> Any:
        if error is not None:
            raise error
        start_response(status, [])
        return body

    return app


def test_a_request_is_counted(recorder: Recorder, scrape: Scrape) -> None:
    """With method and status; an application without routes has one endpoint, which is no path."""
    app = recorder.wsgi_middleware(answering([b"created"], "201 Created"))
    ask(app, REQUEST_METHOD="POST", PATH_INFO="/users/42")

    assert requests(recorder) == {("POST", "_unrouted", "201"): 1}
    assert (gauge(recorder), scrape(recorder).dropped()) == (0, {})


@pytest.mark.parametrize(
    "body",
    [[b"one"], [b"one", b"two"], (), [b""], FileWrapper(io.BytesIO(b"file"))],
    ids=["one", "two", "none", "empty", "file"],
)
def test_clients_get_the_same(recorder: Recorder, body: Any) -> None:
    """Headers that the server makes of the kind of the body are those that it would have made."""

    def again() -> Any:
        return FileWrapper(io.BytesIO(b"file")) if isinstance(body, FileWrapper) else body

    expected, found = ask(answering(again())), ask(recorder.wsgi_middleware(answering(again())))
    assert [line for line in found.splitlines() if not line.startswith(b"Date:")] == [
        line for line in expected.splitlines() if not line.startswith(b"Date:")
    ]
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}


def test_what_a_server_sends_as_a_file_stays_that(recorder: Recorder) -> None:
    """The body is the very object, so that servers hand it to the kernel; its close is the end."""
    closed = []
    file = io.BytesIO(b"file")
    file.close = lambda: closed.append(gauge(recorder))  # type: ignore[method-assign]
    body = FileWrapper(file)
    app = recorder.wsgi_middleware(answering(body))
    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": FileWrapper}

    assert app(environ, lambda *_: None) is body
    assert gauge(recorder) == 1
    body.close()
    assert (closed, gauge(recorder)) == ([1], 0)
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}


def test_a_stream_is_in_flight_until_its_last_part(recorder: Recorder) -> None:
    """And ends before the server closes it."""
    app = recorder.wsgi_middleware(answering(iter([b"a", b"b"])))
    body = iter(app({"REQUEST_METHOD": "GET"}, lambda *_: None))
    seen = [(part, gauge(recorder)) for part in body]

    assert (seen, gauge(recorder)) == ([(b"a", 1), (b"b", 1)], 0)
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}


@pytest.mark.parametrize("way", ["close", "drop"])
def test_a_client_that_left(recorder: Recorder, way: str) -> None:
    """What it got is counted: nothing yet of a generator that did not begin, 499."""
    closed = []

    class Body:
        def __init__(self, *parts: bytes) -> None:
            self._parts = iter(parts)

        def __iter__(self) -> Any:
            return self._parts

        def close(self) -> None:
            closed.append("closed")

    def late(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"never"

    begun = recorder.wsgi_middleware(answering(Body(b"a", b"b")))({"REQUEST_METHOD": "GET"}, lambda *_: None)
    waiting = recorder.wsgi_middleware(late)({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert next(iter(begun)) == b"a"
    if way == "close":
        begun.close()  # type: ignore[attr-defined]
        waiting.close()  # type: ignore[attr-defined]
        assert closed == ["closed"]
    del begun, waiting

    assert requests(recorder) == {("GET", "_unrouted", "200"): 1, ("GET", "_unrouted", "499"): 1}
    assert gauge(recorder) == 0


def test_an_exception_is_counted_and_goes_on(recorder: Recorder) -> None:
    """The same object reaches the server, from the application and from the middle of its body."""
    error = ValueError("broken")

    def breaking() -> Any:
        yield b"a"
        raise error

    for app in (answering(error=error), answering(breaking())):
        with pytest.raises(ValueError, match="broken") as caught:
            list(recorder.wsgi_middleware(app)({"REQUEST_METHOD": "GET"}, lambda *_: None))
        assert caught.value is error

    assert requests(recorder) == {("GET", "_unrouted", "500"): 2}
    assert gauge(recorder) == 0


def test_the_last_status_counts(recorder: Recorder) -> None:
    """An application may begin its response anew, with an exception that it caught."""

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            raise ValueError  # noqa: TRY301
        except ValueError:
            start_response("503 Service Unavailable", [], sys.exc_info())
        return [b"sorry"]

    assert b"503 Service Unavailable" in ask(recorder.wsgi_middleware(app))
    assert requests(recorder) == {("GET", "_unrouted", "503"): 1}


def test_what_is_written_passes_through(recorder: Recorder) -> None:
    """The old way: `start_response` gives a function that writes."""

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"written")
        return []

    assert ask(recorder.wsgi_middleware(app)).endswith(b"written")
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, 0),
        ({"CONTENT_LENGTH": ""}, 0),
        ({"CONTENT_LENGTH": "300"}, 300),
        ({"CONTENT_LENGTH": "nonsense"}, 0),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 14),
    ],
)
def test_the_size_of_a_request(recorder: Recorder, scrape: Scrape, environ: dict[str, str], size: float) -> None:
    """What its Content-Length tells, if it has one, else what the application read."""
    read: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        stream = environ["wsgi.input"]
        read.extend((stream.read(3), stream.readline(), stream.readlines(1), list(stream), stream.closed))
        start_response("200 OK", [])
        return [b""]

    ask(recorder.wsgi_middleware(app), b"abcdef\nghi\njkl", **environ)
    assert read == [b"abc", b"def\n", [b"ghi\n"], [b"jkl"], False]
    assert scrape(recorder).value("http_request_size_bytes_sum") == size


def test_twice_counts_once(recorder: Recorder) -> None:
    """However many watched applications are around each other; the environment is left as it was."""
    app = recorder.wsgi_middleware(recorder.wsgi_middleware(answering()))
    environ = {"REQUEST_METHOD": "GET"}
    list(app(environ, lambda *_: None))
    list(app(environ, lambda *_: None))

    assert environ == {"REQUEST_METHOD": "GET"}
    assert requests(recorder) == {("GET", "_unrouted", "200"): 2}


def test_two_recorders_each_count(new_recorder: NewRecorder) -> None:
    """Each has its own truth."""
    one, other = new_recorder(), new_recorder()
    ask(one.wsgi_middleware(other.wsgi_middleware(answering())))

    assert requests(one) == requests(other) == {("GET", "_unrouted", "200"): 1}


def test_excluded_endpoints_leave_no_trace(recorder: Recorder) -> None:
    """Also where another one around would count."""
    seen = []

    def app(_environ: Any, start_response: Any) -> Any:
        seen.append(gauge(recorder))
        start_response("200 OK", [])
        return [b""]

    watched = recorder.wsgi_middleware(recorder.wsgi_middleware(app, exclude=("/healthz",)))
    for path in ("/healthz", "/healthz/", "/other"):
        ask(watched, PATH_INFO=path)

    assert seen == [0, 0, 1]
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}
    with pytest.raises(ConfigError, match="is not a list of endpoints"):
        recorder.wsgi_middleware(app, exclude="/healthz")


def test_a_broken_recorder_is_invisible(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, scrape: Scrape) -> None:
    """What fails in the library is counted, and the application answers."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    app = recorder.wsgi_middleware(answering())

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(recorder.traffic, "record", broken)
        assert ask(app).endswith(b"yes")
    assert scrape(recorder).dropped() == {"internal": 1}
