"""ASGI: what counts as a request and as a connection, with applications that have no routes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from infermeter import ConfigError
from tests.page import Page
from tests.web import ask, gauge, http_scope, part, requests, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape

LEFT = {"type": "http.disconnect"}


def answering(*messages: Any) -> Any:
    """An application that sends these messages, whatever it is asked; an exception among them is raised."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            await send(message)

    return app


def asked(recorder: Recorder, app: Any, **scope: Any) -> Any:
    """What a watched application sends, or the exception that it raises."""
    try:
        return asyncio.run(ask(recorder.asgi_middleware(app), http_scope(**scope)))
    except BaseException as error:
        return error


def test_a_request_is_counted(recorder: Recorder, scrape: Scrape) -> None:
    """With method and status; an application without routes has one endpoint, which is no path."""
    asked(recorder, answering(status(201), part(b"created")), method="POST", path="/users/42")

    assert requests(recorder) == {("POST", "_unrouted", "201"): 1}
    assert scrape(recorder).dropped() == {}


def test_messages_pass_through_as_they_are(recorder: Recorder) -> None:
    """The server gets the same objects that the application sent."""
    messages = [status(), part(b"a", more=True), part(b"b")]

    assert all(sent is message for sent, message in zip(asked(recorder, answering(*messages)), messages, strict=True))


def test_the_first_failure_is_seen(recorder: Recorder, scrape: Scrape) -> None:
    """As soon as an endpoint is known its failures are exposed at 0, lest `increase()` miss the first one."""
    asked(recorder, answering(status(), part()))

    assert scrape(recorder).value("http_requests_total", endpoint="_unrouted", status="500") == 0


def test_gauges_are_there_before_the_first_request(recorder: Recorder, scrape: Scrape) -> None:
    """From when an application is watched."""
    assert "http_requests_in_flight" not in scrape(recorder).names
    recorder.asgi_middleware(answering())

    assert (gauge(recorder), gauge(recorder, "websocket_connections_active")) == (0, 0)


@pytest.mark.parametrize(
    ("method", "expected"), [("GET", "GET"), ("PATCH", "PATCH"), ("get", "_other"), ("BREW", "_other")]
)
def test_methods_are_the_standard_ones(recorder: Recorder, method: str, expected: str) -> None:
    """Clients make up others, which fall together."""
    for _ in range(3):
        asked(recorder, answering(status(), part()), method=method)

    assert requests(recorder) == {(expected, "_unrouted", "200"): 3}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((ValueError("before the start"),), "500"),
        ((status(), part(b"a", more=True), ValueError("in the middle")), "500"),
        ((status(), part(b"a"), ValueError("in a background task")), "200"),
        ((asyncio.CancelledError(),), "499"),
        ((status(), part(b"a", more=True), asyncio.CancelledError()), "200"),
        ((status(), KeyboardInterrupt()), "500"),
    ],
    ids=["before", "middle", "after", "cancelled", "cancelled-stream", "interrupt"],
)
def test_an_exception_is_counted_and_goes_on(recorder: Recorder, messages: tuple[Any, ...], expected: str) -> None:
    """The same object reaches the server; nothing stays in flight."""
    assert asked(recorder, answering(*messages)) is messages[-1]
    assert requests(recorder) == {("GET", "_unrouted", expected): 1}
    assert gauge(recorder) == 0


@pytest.mark.parametrize(
    ("messages", "expected"),
    [((), "500"), ((status(),), "200"), ((status(204), part(b"", more=True)), "204")],
    ids=["nothing", "start", "stream"],
)
def test_an_application_may_return_early(recorder: Recorder, messages: tuple[Any, ...], expected: str) -> None:
    """Without a response servers answer 500; with half of one the status was sent."""
    asked(recorder, answering(*messages))

    assert requests(recorder) == {("GET", "_unrouted", expected): 1}


def test_a_client_that_left_before_the_answer(recorder: Recorder) -> None:
    """Whatever the application sends to nobody, the status is 499."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await send(status())
        await send(part())

    asyncio.run(ask(recorder.asgi_middleware(app), received=[LEFT]))
    assert requests(recorder) == {("GET", "_unrouted", "499"): 1}


def test_a_client_that_left_during_the_answer(recorder: Recorder) -> None:
    """The status is the one that it got, however the application ends."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await send(status(206))
        await send(part(b"a", more=True))
        await receive()
        raise RuntimeError("nobody listens")

    with pytest.raises(RuntimeError, match="nobody listens"):
        asyncio.run(ask(recorder.asgi_middleware(app), received=[LEFT]))
    assert requests(recorder) == {("GET", "_unrouted", "206"): 1}


@pytest.mark.parametrize(("fails", "expected"), [("http.response.start", "499"), ("http.response.body", "200")])
def test_a_server_that_cannot_send(recorder: Recorder, fails: str, expected: str) -> None:
    """Servers raise OSError where the client has left; that is no failure of the application."""

    async def send(message: Any) -> None:
        if message["type"] == fails:
            raise BrokenPipeError

    app: Any = recorder.asgi_middleware(answering(status(), part()))
    with pytest.raises(BrokenPipeError):
        asyncio.run(app(http_scope(), None, send))
    assert requests(recorder) == {("GET", "_unrouted", expected): 1}


def test_the_last_byte_is_the_end(recorder: Recorder, scrape: Scrape) -> None:
    """A stream is in flight until its last part was sent, and a background task after it is not part of it."""
    seen = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(status())
        await send(part(b"a", more=True))
        seen.append(gauge(recorder))
        await send(part(b"b"))
        seen.append(gauge(recorder))
        time.sleep(0.3)  # noqa: ASYNC251  (a background task)

    asyncio.run(ask(recorder.asgi_middleware(app)))
    assert seen == [1, 0]
    page = scrape(recorder)
    assert page.value("http_request_duration_seconds_count") == 1
    assert page.value("http_request_duration_seconds_sum") < 0.3


def test_a_file_that_the_server_sends_is_a_response(recorder: Recorder) -> None:
    """Extensions of ASGI have other messages that end a response."""
    asked(recorder, answering(status(), {"type": "http.response.pathsend", "path": "/dev/null"}, ValueError()))

    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}


@pytest.mark.parametrize(
    ("headers", "bodies", "size"),
    [
        ([], [b""], 0),
        ([], [b"abc", b"defg"], 7),
        ([(b"content-length", b"300")], [b"abc"], 300),
        ([(b"content-length", b"-1")], [b"abc"], 3),
        ([(b"content-length", b"9" * 400)], [b"abc"], 3),
        ([(b"content-length", b"x")], [b""], 0),
    ],
    ids=["none", "received", "told", "negative", "absurd", "none-at-all"],
)
def test_the_size_of_a_request(
    recorder: Recorder, scrape: Scrape, headers: list[Any], bodies: list[bytes], size: float
) -> None:
    """What its Content-Length tells, if that is to be believed, else what the application received."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send(status())
        await send(part())

    received = [
        {"type": "http.request", "body": body, "more_body": index < len(bodies)} for index, body in enumerate(bodies, 1)
    ]
    asyncio.run(ask(recorder.asgi_middleware(app), http_scope(headers=headers), received))
    assert scrape(recorder).value("http_request_size_bytes_sum") == size


def test_twice_counts_once(recorder: Recorder) -> None:
    """However many watched applications are around each other."""
    app = recorder.asgi_middleware(recorder.asgi_middleware(recorder.asgi_middleware(answering(status(), part()))))
    scope = http_scope()
    keys = list(scope)
    asyncio.run(ask(app, scope))
    asyncio.run(ask(app, scope))

    assert list(scope) == keys
    assert requests(recorder) == {("GET", "_unrouted", "200"): 2}


def test_two_recorders_each_count(new_recorder: NewRecorder) -> None:
    """Each has its own truth."""
    one, other = new_recorder(), new_recorder()
    asyncio.run(ask(one.asgi_middleware(other.asgi_middleware(answering(status(), part())))))

    assert requests(one) == requests(other) == {("GET", "_unrouted", "200"): 1}


@pytest.mark.parametrize("nested", [False, True])
def test_excluded_endpoints_leave_no_trace(recorder: Recorder, *, nested: bool) -> None:
    """Also where another one around would count; what is in flight does not show them either."""
    seen = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        seen.append(gauge(recorder))
        await send(status())
        await send(part())

    watched: Any = recorder.asgi_middleware(app, exclude=["/metrics"])
    if nested:
        watched = recorder.asgi_middleware(watched)
    for path in ("/metrics", "/metrics/", "/other"):
        asyncio.run(ask(watched, http_scope(path=path)))

    assert seen == [0, 0, 1]
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}


@pytest.mark.parametrize("exclude", ["/metrics", b"/metrics", 7, ["metrics"], [7]])
def test_what_is_no_list_of_endpoints_is_told(recorder: Recorder, exclude: Any) -> None:
    """Where the mistake is made."""
    with pytest.raises(ConfigError, match="is not a list of endpoints"):
        recorder.asgi_middleware(answering(), exclude=exclude)


def test_other_scopes_pass_through(recorder: Recorder) -> None:
    """Lifespan is the application's own."""
    seen = []

    async def app(*given: Any) -> None:
        seen.append(given)

    given: Any = ({"type": "lifespan"}, object(), object())
    asyncio.run(recorder.asgi_middleware(app)(*given))
    assert all(one is other for one, other in zip(seen[0], given, strict=True))
    assert requests(recorder) == {}


def conversation(*steps: Any) -> Any:
    """An application that accepts, receives and sends as it is told."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            if callable(step):
                step()
            elif step == "receive":
                await receive()
            else:
                await send({"type": step})

    return app


@pytest.mark.parametrize(
    ("steps", "during", "after"),
    [
        (("websocket.accept", "look", "websocket.send", "look", "websocket.close", "look"), [1, 1, 0], None),
        (("websocket.accept", "look", "receive", "look"), [1, 0], None),
        (("websocket.accept", "look"), [1], None),
        (("websocket.accept", "look", ValueError()), [1], ValueError),
        (("websocket.accept", "look", asyncio.CancelledError()), [1], asyncio.CancelledError),
        (("look", "websocket.close", "look"), [0, 0], None),
        (("websocket.http.response.start", "look"), [0], None),
    ],
    ids=["close", "disconnect", "return", "raise", "cancel", "refuse", "deny"],
)
def test_connections_are_active_from_accept_to_close(
    recorder: Recorder, steps: tuple[Any, ...], during: list[int], after: Any
) -> None:
    """However they end; a connection is no request."""
    seen: list[float] = []

    def look() -> None:
        seen.append(gauge(recorder, "websocket_connections_active"))

    app = recorder.asgi_middleware(conversation(*(look if step == "look" else step for step in steps)))
    scope = {"type": "websocket", "path": "/", "headers": []}
    with pytest.raises(after) if after is not None else contextlib.nullcontext():
        asyncio.run(ask(app, scope, [{"type": "websocket.disconnect"}]))
    assert seen == during
    assert gauge(recorder, "websocket_connections_active") == 0
    assert requests(recorder) == {}


def test_nothing_is_configured_after_the_first_request(recorder: Recorder) -> None:
    """As after the first inference."""
    recorder.asgi_middleware(answering())
    recorder.configure(service="other")
    asked(recorder, answering(status(), part()))

    with pytest.raises(ConfigError, match="came after the first"):
        recorder.configure(service="another")
    assert Page.of(recorder).value("http_requests_total", service="other", status="200") == 1


def test_too_many_endpoints_fall_together(new_recorder: NewRecorder) -> None:
    """The guard of label values holds for endpoints; no request is lost."""
    recorder = new_recorder(max_label_values={"endpoint": 2})
    routes: list[Any] = []
    for index in range(4):
        scope = http_scope(path=f"/{index}") | {"endpoint": object, "router": type("Router", (), {"routes": routes})}
        routes[:] = [type("Route", (), {"endpoint": object, "path": f"/{index}"})]
        asyncio.run(ask(recorder.asgi_middleware(answering(status(), part())), scope))

    assert requests(recorder) == {
        ("GET", "/0", "200"): 1,
        ("GET", "/1", "200"): 1,
        ("GET", "_other", "200"): 2,
    }
    assert Page.of(recorder).value("infermeter_label_values_folded_total", label="endpoint") == 2


@pytest.mark.parametrize("part_of_it", ["record", "settled", "open"])
def test_a_broken_recorder_is_invisible(
    recorder: Recorder, part_of_it: str, monkeypatch: pytest.MonkeyPatch, scrape: Scrape
) -> None:
    """What fails in the library is counted, and the application answers."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    app = recorder.asgi_middleware(answering(status(), part(b"x")))
    owner: Any = recorder if part_of_it == "settled" else recorder.traffic

    class Broken(dict[Any, Any]):
        def __call__(self, *_: Any) -> Any:
            raise RuntimeError("broken")

        __setitem__ = __call__

    with monkeypatch.context() as patched:
        patched.setattr(owner, part_of_it, Broken())
        assert [message["type"] for message in asyncio.run(ask(app))] == ["http.response.start", "http.response.body"]
    assert scrape(recorder).dropped() == {"internal": 1}


@pytest.mark.alone
def test_a_child_starts_from_zero(recorder: Recorder, in_child: Callable[[Any], Any]) -> None:
    """What happened before a fork is the parent's, what is in flight too; what the child answers is its own."""
    app = recorder.asgi_middleware(answering(status(), part()))
    asyncio.run(ask(app))
    assert recorder.traffic is not None
    recorder.traffic.open[object()] = None

    def work() -> Any:
        before = (requests(recorder) if "http_requests_total" in Page.of(recorder).names else {}), gauge(recorder)
        asyncio.run(ask(app))
        asyncio.run(ask(app))
        return [*before, list(requests(recorder).items())]

    assert in_child(work) == [{}, 0, [[["GET", "_unrouted", "200"], 2]]]
    assert requests(recorder) == {("GET", "_unrouted", "200"): 1}
