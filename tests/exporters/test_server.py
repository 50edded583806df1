"""The server of all exporters, in a process of its own: its pages, its end, and those who misbehave."""

from __future__ import annotations

import gzip
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from infermeter_exporters import listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exporters.conftest import Served

TEXT = """\
# HELP things_total Things that were counted.
# TYPE things_total counter
things_total{kind="a\\"b\\\\c\\nd"} 1.5
things_total{kind="e"} 2.0
# HELP patience_seconds Seconds that the last scrape would have waited.
# TYPE patience_seconds gauge
patience_seconds 10.0
# HELP reloads_total How often the configuration was read again.
# TYPE reloads_total counter
reloads_total 0.0
"""


def test_the_page(served: Served) -> None:
    """Text by default; compressed for who takes that."""
    plain = httpx.get(served.url + "/metrics", headers={"Accept-Encoding": "identity"})
    assert (plain.status_code, plain.text) == (200, TEXT)
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in plain.headers
    assert [family.name for family in text_string_to_metric_families(plain.text)] == [
        "things",
        "patience_seconds",
        "reloads",
    ]
    with httpx.stream("GET", served.url + "/metrics", headers={"Accept-Encoding": "br, gzip;q=0.5"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["vary"] == "Accept, Accept-Encoding"
        assert gzip.decompress(b"".join(packed.iter_raw())).decode() == TEXT
    refused = httpx.get(served.url + "/metrics", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers


def test_other_formats(served: Served) -> None:
    """What Prometheus asks for."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    answer = httpx.get(served.url + "/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    things, *_ = openmetrics.text_string_to_metric_families(answer.text)
    assert (things.name, things.type, things.samples[0].value) == ("things", "counter", 1.5)
    accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    answer = httpx.get(served.url + "/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/vnd.google.protobuf; proto=")
    assert b"things_total" in answer.content


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("HEAD", "/metrics", 200),
        ("HEAD", "/", 200),
        ("POST", "/metrics", 405),
        ("DELETE", "/-/healthy", 405),
        ("GET", "/metricses", 404),
        ("GET", "/-/reload", 404),
        ("POST", "/-/reload", 404),
        ("GET", "/../etc/passwd", 404),
    ],
)
def test_other_requests(served: Served, method: str, path: str, code: int) -> None:
    """Are answered as HTTP says; configuration is read again for nobody who was not allowed to ask."""
    answer = httpx.request(method, served.url + path)
    assert answer.status_code == code
    assert method != "HEAD" or answer.content == b""


def test_health(served: Served) -> None:
    """It is healthy if it answers, and ready if it has something fresh to show."""
    assert httpx.get(served.url + "/-/healthy").text == "watched is healthy\n"
    assert httpx.get(served.url + "/-/ready").text == "watched is ready\n"
    served.says("reason", "nothing was read")
    answer = httpx.get(served.url + "/-/ready")
    assert (answer.status_code, answer.text) == (503, "not ready: nothing was read\n")
    assert httpx.get(served.url + "/-/healthy").status_code == 200


def test_the_landing_page(served: Served) -> None:
    """Nothing in it is taken for HTML that is none."""
    page = httpx.get(served.url + "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>watched &lt;exporter&gt; &amp; co</h1>" in page.text
    assert "<th>Said</th><td>1 &lt; 2 &amp; &lt;b&gt;more&lt;/b&gt;</td>" in page.text
    assert 'href="/metrics"' in page.text


@pytest.mark.parametrize(
    ("said", "patience"),
    [("15", 14.75), ("0.2", 0.1), ("1e9", 1e9 - 0.25), ("0", 10), ("-1", 10), ("nan", 10), ("inf", 10), ("soon", 10)],
)
def test_the_patience_of_prometheus(served: Served, said: str, patience: float) -> None:
    """A scrape is to take a little less than Prometheus waits, and the usual time if it does not say."""
    page = httpx.get(served.url + "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": said}).text
    assert f"\npatience_seconds {patience!r}\n".replace("10\n", "10.0\n") in page


def test_too_many_scrapes(serving: Callable[..., Served]) -> None:
    """What is too many is refused at once, and those that run end well."""
    served = serving("--web.max-requests=2")
    served.says("slow", "1")
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(httpx.get(served.url + "/metrics", timeout=20).status_code))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 200, 503, 503, 503]
    served.says("slow", "")
    assert httpx.get(served.url + "/metrics").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("slow", ["", "1", "100"])
def test_a_signal_ends_it(served: Served, number: signal.Signals, slow: str) -> None:
    """With code 0, what it collects is stopped; a scrape that is nearly done gets its answer, others do not hold it."""
    served.says("slow", slow)
    answers: list[int] = []

    def scrape() -> None:
        try:
            answers.append(httpx.get(served.url + "/metrics", timeout=20).status_code)
        except httpx.TransportError:
            answers.append(0)

    with socket.create_connection(("127.0.0.1", served.port)) as idle:
        idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        thread = threading.Thread(target=scrape)
        thread.start()
        time.sleep(0.3)
        served.signal(number)
        assert served.ended() == 0
        thread.join()
    assert served.out.read_text() == "started\nstopped\n"
    assert answers == ([503] if slow == "100" else [200])
    assert "Traceback" not in served.said


def test_configuration_is_read_again(served: Served) -> None:
    """By SIGHUP; what is wrong with it is said, and nothing changes."""

    def page() -> str:
        return httpx.get(served.url + "/metrics").text

    served.signal(signal.SIGHUP)
    served.until(lambda: "reloads_total 1.0" in page())
    served.says("wrong", "file.yml: key is 3, expected 4")
    served.signal(signal.SIGHUP)
    served.until(lambda: "the configuration stays as it was: file.yml: key is 3, expected 4" in served.said)
    assert "reloads_total 1.0" in page()
    served.says("wrong", "")
    served.signal(signal.SIGHUP)
    served.until(lambda: "reloads_total 2.0" in page())


def test_configuration_is_read_again_over_http(serving: Callable[..., Served]) -> None:
    """Where that is allowed."""
    served = serving("--web.enable-lifecycle")
    assert httpx.post(served.url + "/-/reload").text == "reloaded\n"
    served.says("wrong", "file.yml: key is 3, expected 4")
    answer = httpx.post(served.url + "/-/reload")
    assert (answer.status_code, answer.text) == (500, "file.yml: key is 3, expected 4\n")
    assert httpx.get(served.url + "/-/reload").status_code == 405


def test_several_addresses(serving: Callable[..., Served]) -> None:
    """All of them are listened on."""
    served = serving("--web.listen-address=127.0.0.1:0", "--web.listen-address=localhost:0")
    assert len(served.urls) == 2
    assert [httpx.get(url + "/-/healthy").status_code for url in served.urls] == [200, 200]


def test_a_port_in_use(served: Served, serving: Callable[..., Served]) -> None:
    """Is one sentence; nothing was started."""
    served.out.write_text("")
    other = serving(f"--web.listen-address=127.0.0.1:{served.port}")
    assert other.ended() == 2
    assert other.said.splitlines()[-1] == (
        f"watched: --web.listen-address is '127.0.0.1:{served.port}', expected an address on which one can listen: "
        "address already in use"
    )
    assert other.out.read_text() == ""


@pytest.mark.parametrize("flag", ["9835", "host", ":99999", "[::1:80", "a/b:80", ":-1", "1.2.3.4:x"])
def test_addresses_that_are_none(serving: Callable[..., Served], flag: str) -> None:
    """Are one sentence."""
    served = serving(f"--web.listen-address={flag}")
    assert served.ended() == 2
    assert served.said == (
        f"watched: --web.listen-address is {flag!r}, expected host:port, :port or [address]:port, for "
        "example 127.0.0.1:9835\n"
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda text: f"GET /{text} HTTP/1.1\r\n\r\n".encode()))
)
def test_whatever_is_sent(served: Served, sent: bytes) -> None:
    """It lives, and says 4xx or nothing to what it does not understand."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert not answer.startswith(b"HTTP/1.1 5")
    assert served.process.poll() is None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=120).map(str.strip))
def test_whatever_is_accepted(served: Served, accept: str) -> None:
    """There is a page for it."""
    answer = httpx.get(served.url + "/metrics", headers={"Accept": accept, "Accept-Encoding": accept})
    assert answer.status_code == 200


def test_slow_clients_hold_nobody_up(served: Served) -> None:
    """One that never ends its request, and one that never reads; the first is cut off after ten seconds."""
    connections = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(20)]
    for connection in connections:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    began = time.monotonic()
    while time.monotonic() - began < 11:
        assert httpx.get(served.url + "/metrics").status_code == 200
        for connection in connections:
            try:
                connection.sendall(b"x")
            except OSError:
                continue
        time.sleep(0.5)
    for connection in connections:
        with connection:
            try:
                assert connection.recv(100) == b""
            except ConnectionResetError:
                pass


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """Connections have it from the socket that takes them: what is small is sent at once."""
    for address in ("127.0.0.1:0", ":0"):
        (listener,) = listening.listen([address])
        with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
            taken, _ = listener.accept()
            with taken:
                assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
