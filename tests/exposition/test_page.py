"""`/metrics` as servers give it: over WSGI, ASGI and HTTP, as a file and pushed; beside the metrics of others."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from infermeter import ConfigError, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def recorder() -> Recorder:
    """A service that has inferred once, in a registry where another metric lives too."""
    recorder = Recorder(service="gate", registry=CollectorRegistry())
    assert recorder.settings.registry is not None
    Counter("orders", "Not ours.", registry=recorder.settings.registry).inc(3)
    with recorder.track(model="a") as call:
        call.detections([0.5])
    return recorder


def wsgi(recorder: Recorder, **environ: str) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body over WSGI."""
    answer: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        answer.update(status=status, headers=dict(headers))

    body = b"".join(recorder.wsgi_app()({"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", **environ}, start))
    return answer["status"], answer["headers"], body


def asgi(recorder: Recorder, method: str = "GET", query: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body over ASGI."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/metrics",
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(recorder.asgi_app()(scope, receive, send))
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


def steady(page: bytes) -> list[bytes]:
    """The lines of a page that do not change from one scrape to the next."""
    return [line for line in page.splitlines() if not line.startswith(b"infermeter_fold_seconds")]


def test_every_way_gives_the_same_page(recorder: Recorder, tmp_path: Path) -> None:
    """WSGI, ASGI, HTTP and the file."""
    file = tmp_path / "infermeter.prom"
    recorder.write_textfile(file)
    with recorder.serve(0, addr="127.0.0.1") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        served = answer.read()
        connection.close()

    _, headers, body = wsgi(recorder)
    assert headers["Content-Type"] == answer.headers["Content-Type"] == TEXT
    assert steady(body) == steady(served) == steady(asgi(recorder)[2]) == steady(file.read_bytes())
    assert b'inferences_total{model="a",service="gate",version=""} 1.0' in steady(body)


def test_metrics_of_others_are_on_the_page(recorder: Recorder) -> None:
    """Once, as are ours, in both formats; OpenMetrics ends with its end."""
    for accept, expected in (("", TEXT), ("application/openmetrics-text;version=1.0.0", OPEN_METRICS)):
        _, headers, body = wsgi(recorder, HTTP_ACCEPT=accept)
        assert headers["Content-Type"] == expected
        assert body.count(b"orders_total 3.0") == 1
        assert body.count(b"# TYPE inference_duration histogram") == 1
        assert body.endswith(b"# EOF\n") is (expected == OPEN_METRICS)


def test_a_collector_of_others_that_raises_does_not_take_the_page_with_it(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What came before it and all that is ours is there; the log names the exception."""

    class Broken:
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> Iterator[Metric]:
            yield GaugeMetricFamily("before", "Collected before it broke.", value=1)
            raise OSError("the sensor is gone")

    assert recorder.settings.registry is not None
    recorder.settings.registry.register(Broken())
    with caplog.at_level(logging.ERROR, "infermeter"):
        status, _, body = wsgi(recorder)

    assert status == "200 OK"
    assert all(words in body for words in (b"orders_total 3.0", b"before 1.0", b"inferences_total{"))
    assert "the sensor is gone" in caplog.text


def test_who_accepts_gzip_gets_it(recorder: Recorder) -> None:
    """With its header, and a length that is that of what was sent."""
    _, plain, page = wsgi(recorder)
    _, headers, body = wsgi(recorder, HTTP_ACCEPT_ENCODING="gzip")

    assert "Content-Encoding" not in plain
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Length"] == str(len(body))
    assert steady(gzip.decompress(body)) == steady(page)
    assert steady(gzip.decompress(asgi(recorder, accept_encoding="gzip, deflate")[2])) == steady(page)


def test_a_file_of_prometheus_client_that_is_being_made(tmp_path: Path) -> None:
    """It is empty for a moment, or for ever if its process was killed; the others are shown."""
    source = """
        import os, infermeter
        from prometheus_client import Counter
        Counter("orders", "-").inc(2)
        open(os.environ["PROMETHEUS_MULTIPROC_DIR"] + "/counter_999.db", "wb").close()
        page = b"".join(infermeter.wsgi_app()({"REQUEST_METHOD": "GET"}, lambda *_: None)).decode()
        print(*(line for line in page.splitlines() if line.startswith("orders_total")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "INFERMETER_SERVICE": "gate"},
    )
    assert (done.stdout, done.stderr) == ("orders_total 2.0\n", "")


def test_samples_can_be_chosen_by_name(recorder: Recorder) -> None:
    """As Prometheus does with `params: {"name[]": [...]}`; ours and those of others."""
    query = "name[]=inferences_total&name[]=orders_total"
    _, _, body = wsgi(recorder, QUERY_STRING=query)
    samples = {line for line in body.splitlines() if not line.startswith(b"#")}

    assert samples == {b"orders_total 3.0", b'inferences_total{model="a",service="gate",version=""} 1.0'}
    assert {line for line in asgi(recorder, query=query)[2].splitlines() if not line.startswith(b"#")} == samples


@pytest.mark.parametrize(
    ("method", "status", "empty"),
    [("HEAD", "200 OK", True), ("OPTIONS", "200 OK", True), ("POST", "405 Method Not Allowed", True)],
)
def test_other_methods(recorder: Recorder, method: str, status: str, *, empty: bool) -> None:
    """HEAD tells the length without the page, OPTIONS what is allowed, and nothing can be posted."""
    found, headers, body = wsgi(recorder, REQUEST_METHOD=method)

    assert (found, body == b"") == (status, empty)
    assert (headers["Content-Length"] != "0") is (method == "HEAD")
    assert asgi(recorder, method=method)[0] == int(status[:3])


def test_a_browser_gets_no_page_for_an_icon(recorder: Recorder) -> None:
    """It would be a scrape for nothing."""
    assert wsgi(recorder, PATH_INFO="/favicon.ico")[0] == "404 Not Found"


def test_a_scope_that_is_not_http_is_refused(recorder: Recorder) -> None:
    """A page answers no WebSocket; servers take the exception of a lifespan for "not supported"."""

    async def nothing(*_: object) -> Any:
        """Neither receive nor send."""

    with pytest.raises(ValueError, match="got the ASGI scope 'lifespan', expected 'http'"):
        asyncio.run(recorder.asgi_app()({"type": "lifespan"}, nothing, nothing))


def test_readers_that_say_nothing_keep_nobody_waiting(recorder: Recorder) -> None:
    """A connection that is only opened costs one thread, and no scrape."""
    with recorder.serve(0, addr="127.0.0.1") as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()
        for one in silent:
            one.close()


def test_it_is_served_on_ipv6_too(recorder: Recorder) -> None:
    """Where the machine has it."""
    try:
        with recorder.serve(0, addr="::1") as server:
            connection = http.client.HTTPConnection("::1", server.port, timeout=10)
            connection.request("GET", "/metrics")
            assert connection.getresponse().status == 200
            connection.close()
    except ConfigError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def test_a_file_is_replaced_in_one_step(recorder: Recorder, tmp_path: Path) -> None:
    """Nothing but the file is left, everybody may read it, and one that cannot be written leaves the old one."""
    file = tmp_path / "infermeter.prom"
    file.write_text("old")
    recorder.write_textfile(file)

    assert b"inferences_total{" in file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["infermeter.prom"]
    assert file.stat().st_mode & 0o777 == 0o644
    with pytest.raises(OSError, match="not-there"):
        recorder.write_textfile(tmp_path / "not-there" / "infermeter.prom")


def test_it_is_pushed(recorder: Recorder) -> None:
    """As prometheus_client pushes: a PUT of the page to the group."""
    pushed: list[tuple[str, str, bytes]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            """Keep what is pushed."""
            pushed.append((self.command, self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        thread = threading.Thread(target=gateway.serve_forever)
        thread.start()
        recorder.push(f"127.0.0.1:{gateway.server_port}", job="nightly", grouping_key={"instance": "a"})
        gateway.shutdown()
        thread.join()

    ((method, path, body),) = pushed
    assert (method, path) == ("PUT", "/metrics/job/nightly/instance/a")
    assert set(steady(body)) == set(steady(wsgi(recorder)[2]))


def test_a_forked_worker_does_not_keep_the_port() -> None:
    """A child that outlives its parent answers nobody; who comes after the parent may have the port."""
    recorder = Recorder(service="gate", registry=CollectorRegistry())
    server = recorder.serve(0, "127.0.0.1")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which is what this is about
        pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent has seen enough
        os._exit(0)
    os.close(reader)
    try:
        server.close()
        with recorder.serve(server.port, "127.0.0.1") as again:
            assert again.port == server.port
    finally:
        os.close(writer)
        assert os.waitpid(pid, 0)[1] == 0
