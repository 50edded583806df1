"""HTTP requests of several processes on one page, exactly once, however they end; and any sequence of requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from infermeter import Recorder
from tests.page import Page
from tests.web import ask, gauge, http_scope, part, requests, status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.instrumentation.conftest import NewRecorder, RunPython

_KILLED = """
    import os, signal, subprocess, sys
    if len(sys.argv) == 1:
        killed = subprocess.run([sys.executable, "-c", {source!r}], check=False)
        assert killed.returncode == -signal.SIGKILL
"""

_SERVES = """
import asyncio, os, signal
from prometheus_client import CollectorRegistry
from infermeter import Recorder
from tests.web import ask, http_scope, part, status

recorder = Recorder(service="test", registry=CollectorRegistry(), multiprocess_dir={folder!r})

async def app(scope, receive, send):
    if scope["path"] == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    await receive()
    await send(status(int(scope["path"][1:])))
    await send(part())

async def main():
    watched = recorder.asgi_middleware(app)
    for code in [200] * 1500 + [404, 500]:
        body = [{{"type": "http.request", "body": b"abc", "more_body": False}}]
        await ask(watched, http_scope("POST", f"/{{code}}"), body)
    await ask(watched, http_scope("POST", "/kill"))

asyncio.run(main())
"""


def test_a_killed_process_loses_no_request(tmp_path: Path, run_python: RunPython) -> None:
    """What was answered is counted once, with its duration and size; what was in flight is gone."""
    folder = str(tmp_path / "shared")
    run_python(_KILLED.format(source=_SERVES.format(folder=folder)))
    recorder = Recorder(service="test", registry=CollectorRegistry(), multiprocess_dir=folder)
    recorder.asgi_middleware(answering)

    for _ in range(2):
        assert requests(recorder) == {
            ("POST", "_unrouted", "200"): 1500,
            ("POST", "_unrouted", "404"): 1,
            ("POST", "_unrouted", "500"): 1,
        }
    page = Page.of(recorder)
    assert page.value("http_request_size_bytes_sum") == 3 * 1502
    assert gauge(recorder) == 0


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the status that the path names, after reading all, or raises what is none."""
    while (await receive()).get("more_body"):
        pass
    await send(status(int(scope["path"][1:])))
    await send(part())


def test_processes_are_one(tmp_path: Path) -> None:
    """Counters add up, and so does what is open."""
    recorders = [
        Recorder(service="test", registry=CollectorRegistry(), multiprocess_dir=tmp_path / "shared") for _ in range(2)
    ]
    for recorder in recorders:
        asyncio.run(ask(recorder.asgi_middleware(answering), http_scope(path="/201")))
        assert recorder.traffic is not None
        recorder.traffic.open[object()] = None
        recorder.fold()

    for recorder in recorders:
        assert requests(recorder) == {("GET", "_unrouted", "201"): 2}
        assert gauge(recorder) == 2


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST", "PUT", "PURGE"]),
        st.sampled_from(["200", "204", "404", "503", "fails"]),
        st.lists(st.binary(max_size=300), min_size=1, max_size=3),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(asked=REQUESTS)
def test_any_requests_are_counted_exactly(new_recorder: NewRecorder, asked: list[Any]) -> None:
    """Concurrently, with any bodies, methods and endings."""
    recorder = new_recorder()
    app = recorder.asgi_middleware(answering)

    async def one(method: str, path: str, bodies: list[bytes]) -> None:
        received = [
            {"type": "http.request", "body": body, "more_body": number < len(bodies)}
            for number, body in enumerate(bodies, 1)
        ]
        try:
            await ask(app, http_scope(method, f"/{path}"), received)
        except ValueError:
            assert path == "fails"

    async def main() -> None:
        await asyncio.gather(*(one(*each) for each in asked))

    asyncio.run(main())
    expected = Counter(
        ("_other" if method == "PURGE" else method, "_unrouted", "500" if path == "fails" else path)
        for method, path, _ in asked
    )
    assert requests(recorder) == expected
    page = Page.of(recorder)
    sizes = sum(value for name, _, value in page.samples if name == "http_request_size_bytes_sum")
    assert sizes == sum(len(body) for *_, bodies in asked for body in bodies)
    assert (gauge(recorder), page.dropped()) == (0, {})
