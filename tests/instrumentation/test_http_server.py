"""HTTP requests under a real server, with clients that leave."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from tests.web import gauge, part, requests, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infermeter import Recorder

_LONG_SECONDS = 20.0


class Service:
    """An application that waits, streams or answers, and says when somebody waits."""

    def __init__(self) -> None:
        self.waits = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            while (await receive())["type"] != "http.disconnect":
                self.waits.set()
            return
        await send(status(200))
        if scope["path"] == "/stream":
            await send(part(b"a", more=True))
            self.waits.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send(part(b"answer"))


@pytest.fixture
def served(recorder: Recorder) -> Iterator[tuple[Service, int]]:
    """The application, watched, and the port of its server."""
    service = Service()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(recorder.asgi_middleware(service), log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield service, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(_LONG_SECONDS)
    assert not thread.is_alive()


def test_clients_of_a_server(recorder: Recorder, served: tuple[Service, int]) -> None:
    """One gets its answer; one leaves before it, and one in its middle."""
    service, port = served
    address = ("127.0.0.1", port)
    assert httpx.post(f"http://127.0.0.1:{port}/answer", content=b"abc").text == "answer"
    for path in ("/wait", "/stream"):
        service.waits.clear()
        with socket.create_connection(address, timeout=_LONG_SECONDS) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert service.waits.wait(_LONG_SECONDS)
            assert gauge(recorder) == 1
        emptied(recorder)

    assert requests(recorder) == {
        ("POST", "_unrouted", "200"): 1,
        ("GET", "_unrouted", "499"): 1,
        ("GET", "_unrouted", "200"): 1,
    }


def emptied(recorder: Recorder) -> None:
    """Return when nothing is in flight; the server needs a moment to see that a client left."""
    pause = threading.Event()
    for _ in range(int(_LONG_SECONDS * 100)):
        if gauge(recorder) == 0:
            return
        pause.wait(0.01)
    pytest.fail("a request stays in flight")
