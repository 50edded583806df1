"""The service that the servers run, over WSGI and over ASGI, with its metrics beside it.

    /infer?model=MODEL&found=FOUND    infers once; the model finds so many objects, or fails if FOUND is negative
    /metrics                          the page

Every answer tells which process gave it. A model belongs to one test, so that it is at 0 until its test begins.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs

import numpy as np
from prometheus_client import Counter, Histogram

import infermeter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

MODELS = ("busy", "killed idle", "killed at work", "reloaded", "restarted")
CONFIDENCES = (0.25, 0.5, 0.75)  # whose sums are exact
CLASSES = ("person", "dog", "person")

Start: TypeAlias = "Callable[[str, list[tuple[str, str]]], object]"

infermeter.configure(max_label_values=1000)
pages = infermeter.wsgi_app(), infermeter.asgi_app()
shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # else each process would show only its own
served = Counter("served_requests", "Requests, by model.", ["model"]) if shared else None
sizes = Histogram("served_objects", "Objects in an answer.", buckets=[1, 2]) if shared else None


def objects(found: int) -> np.ndarray:
    """The first `found` of all objects, as rows of x1, y1, x2, y2, confidence, class; fails if there cannot be so many.

    Raises:
        LookupError: `found` is negative.
    """
    infermeter.current().tokens(prompt=abs(found), completion=1)
    if found < 0:
        raise LookupError(found)
    rows = [(0, 0, 1, 1, CONFIDENCES[index], index % 2) for index in range(found)]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


async def objects_later(found: int) -> np.ndarray:
    """The same, with other requests in between."""
    await asyncio.sleep(0.002)
    found_now = objects(found)
    await asyncio.sleep(0)
    return found_now


tracks = {model: infermeter.track(model=model, detections="auto", names=("person", "dog")) for model in MODELS}
if os.environ["SERVES"] == "wsgi":
    detect = {model: track(objects) for model, track in tracks.items()}
else:
    detect_later = {model: track(objects_later) for model, track in tracks.items()}


def asked(query: str) -> tuple[str, int]:
    """The model and the number of objects that a request names."""
    options = parse_qs(query)
    model, found = options["model"][0], int(options["found"][0])
    if served is not None and sizes is not None:
        served.labels(model).inc()
        sizes.observe(abs(found))
    return model, found


def worker() -> tuple[str, str]:
    """The header that tells who answers."""
    return "Worker", str(os.getpid())


def wsgi(environ: Mapping[str, Any], start_response: Start) -> Iterable[bytes]:
    """The service over WSGI."""

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        start_response(status, [*headers, worker()])

    if environ["PATH_INFO"] == "/metrics":
        return pages[0](environ, start)
    model, found = asked(environ["QUERY_STRING"])
    try:
        detect[model](found)
    except LookupError:
        pass
    start("200 OK", [("Content-Length", "0")])
    return [b""]


async def asgi(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The service over ASGI."""

    async def answer(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            name, value = worker()
            message["headers"] = [*message["headers"], (name.lower().encode(), value.encode())]
        await send(message)

    if scope["path"] == "/metrics":
        await pages[1](scope, receive, answer)
        return
    model, found = asked(scope["query_string"].decode())
    try:
        await detect_later[model](found)
    except LookupError:
        pass
    await answer({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await answer({"type": "http.response.body", "body": b""})
