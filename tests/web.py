"""Asking applications without a network, and libraries that may not be installed."""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infermeter import Recorder


def needed(name: str) -> Any:
    """A library; a module of tests that needs it is left out where it is not installed, but never in CI."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        return pytest.skip(f"{name} is not installed: {error}", allow_module_level=True)


def http_scope(method: str = "GET", path: str = "/", headers: Iterable[tuple[bytes, bytes]] = ()) -> dict[str, Any]:
    """The scope of an HTTP request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }


async def ask(app: Any, scope: dict[str, Any] | None = None, received: Iterable[Mapping[str, Any]] = ()) -> list[Any]:
    """What an ASGI application sends; it receives `received`, and once it has answered that the client left."""
    messages = iter([*received] or [{"type": "http.request", "body": b"", "more_body": False}])
    sent: list[Any] = []
    answered = asyncio.Event()

    async def receive() -> Any:
        message = next(messages, None)
        if message is None:
            await answered.wait()
        return message or {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    await app(scope if scope is not None else http_scope(), receive, send)
    return sent


def status(code: int = 200) -> dict[str, Any]:
    """How a response begins."""
    return {"type": "http.response.start", "status": code, "headers": []}


def part(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    """A part of a response."""
    return {"type": "http.response.body", "body": body, "more_body": more}


def requests(recorder: Recorder) -> dict[tuple[str, str, str], float]:
    """The requests that were counted, by method, endpoint and status; each has a duration and a size."""
    page = Page.of(recorder)
    found = {
        (labels["method"], labels["endpoint"], labels["status"]): value
        for name, labels, value in page.samples
        if name == "http_requests_total" and value
    }
    for family in ("http_request_duration_seconds_count", "http_request_size_bytes_count"):
        assert sum(value for name, _, value in page.samples if name == family) == sum(found.values())
    return found


def gauge(recorder: Recorder, name: str = "http_requests_in_flight") -> float:
    """What is open now."""
    return Page.of(recorder).value(name)
