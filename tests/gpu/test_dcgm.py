"""What a dcgm-exporter says, and how it fails: a real server on loopback."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.catalogue import DEVICE, FAMILIES
from infermeter_exporters.gpu.dcgm import Dcgm, rows
from infermeter_exporters.gpu.readings import TIERS, Machine, Reading, SourceError, Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).with_name("answers").joinpath("dcgm.prom").read_bytes()
MIB = 1 << 20
A, B = (f"GPU-{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")


class Server:
    """Says something to everybody."""

    def __init__(self) -> None:
        self.status, self.body, self.headers, self.pause = 200, PAGE, {"Content-Type": "text/plain"}, 0.0
        self.endless = False
        self.authorization = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.authorization = self.headers.get("Authorization", "")
                time.sleep(outer.pause)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(outer.body)
                    while outer.endless:
                        self.wfile.write(b"# x\n" * (1 << 16))
                except OSError:  # who asked has heard enough
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def end(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """It says a good page."""
    made = Server()
    yield made
    made.end()


def read(server: Server, tier: Tier) -> dict[str, Reading]:
    """Readings by uuid, without what differs each time."""
    source = Dcgm(server.url)
    source.open()
    return {one.uuid: one._replace(time=0.0, seconds=0.0) for one in source.read(tier)}


def values(reading: Reading) -> dict[tuple[str, ...], float]:
    """Its values, without what all families begin with."""
    for name, labels, _ in reading.values:
        assert len(DEVICE + labels) == len(FAMILIES[name].labels)
    return {(name.removeprefix("nvidia_gpu_"), *labels): value for name, labels, value in reading.values}


def test_its_values_in_base_units(server: Server) -> None:
    """Of the whole GPU: what it says of pods is taken if it is the same for all; what stands for nothing is absent."""
    fast, normal, slow = (read(server, tier) for tier in TIERS)
    one = fast[A]
    assert (one.number, one.pci, one.state, one.busy) == (0, "0000:65:00.0", "ok", 0.6)
    assert (one.memory_used, one.energy, one.power, one.processes) == (20480 * MIB, 1234.567, None, None)
    assert values(one) == {
        ("memory_total_bytes",): 81559 * MIB,
        ("memory_free_bytes",): 60528 * MIB,
        ("memory_reserved_bytes",): 551 * MIB,
        ("memory_usage_percent",): 100 * 20480 / 81559,
    }
    assert values(normal[A]) == {
        ("temperature_celsius",): 55,
        ("clock_hertz", "sm"): 1.5e9,
        ("engine_busy_ratio", "decoder"): 0.35,
        ("tensor_active_ratio",): 0.2,
    }
    info = ("NVIDIA H100 80GB HBM3", "0000:65:00.0", "", "0", "", "", "", "", "", "", "false")
    assert values(slow[A]) == {("info", *info): 1, ("remap_failure",): 0}
    assert (fast[B].number, fast[B].busy, values(fast[B])) == (1, None, {})


def test_the_machine(server: Server) -> None:
    """As many GPUs as it tells of."""
    driver = ("nvidia_gpu_driver_info", ("550.54.15", "", ""), 1.0)
    assert Dcgm(server.url.removesuffix("/metrics")).open() == Machine("dcgm", 2, [driver])


def test_another_error_is_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same one again cannot be seen, and the first may be old."""
    source = Dcgm(server.url)
    source.open()
    now = time.monotonic()
    codes = []
    for turn, code in enumerate((79, 79, 31), start=1):
        server.body = PAGE.replace(b'{x}"} 0', b'{x}"} %d' % code)
        monkeypatch.setattr("time.monotonic", lambda turn=turn: now + 6 * turn)
        source.read("fast")
        xid = source.wait_for_xid(0)
        codes.append(xid.code if xid else None)
    assert codes == [79, None, 31]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "tells of no GPU, expected the metrics of a dcgm-exporter (DCGM_FI_DEV_*)"),
        (b"<html>DCGM</html>", "tells of no GPU"),
        (gzip.compress(PAGE)[:100], "tells of no GPU"),
        (b'DCGM_FI_DEV_GPU_UTIL{UUID="0000"} 3\n', "tells of no GPU"),
    ],
)
def test_what_is_no_page_of_it(server: Server, body: bytes, sentence: str) -> None:
    """Is one sentence."""
    server.body = body
    with pytest.raises(SourceError) as caught:
        Dcgm(server.url).open()
    assert str(caught.value).startswith(f"{server.url} {sentence}")


@pytest.mark.parametrize("status", [302, 401, 404, 500])
def test_another_status(server: Server, status: int) -> None:
    """Is an error; nobody is sent elsewhere."""
    server.status = status
    server.headers = {"Location": "http://127.0.0.1:1/"}
    with pytest.raises(SourceError, match=f"answers with {status} .*, expected 200"):
        Dcgm(server.url).open()


def test_a_server_that_hangs(server: Server) -> None:
    """Or does not end."""
    server.pause = 2
    with pytest.raises(SourceError, match=r"does not answer within 0\.2 s"):
        Dcgm(server.url, timeout=0.2).open()
    server.pause, server.endless = 0, True
    with pytest.raises(SourceError, match=r"is longer than 32 MiB|does not answer within 10 s"):
        Dcgm(server.url, timeout=10).open()
    server.endless = False


def test_a_server_that_goes_away_and_comes_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error as long as it is away."""
    source = Dcgm(server.url)
    source.open()
    now = time.monotonic()
    server.status = 503
    monkeypatch.setattr("time.monotonic", lambda: now + 6)
    with pytest.raises(SourceError, match="answers with 503"):
        source.read("fast")
    server.status = 200
    assert [reading.uuid for reading in source.read("fast")] == [A, B]


ROW = 'DCGM_FI_DEV_%s{gpu="0",UUID="GPU-1"%s} %s\n'
PLAIN = (ROW % ("FB_USED", "", 20480) + ROW % ("POWER_USAGE", "", 300)).encode()


def test_a_page_that_was_cut(server: Server) -> None:
    """Says nothing that it did not say: 30 W are not 300."""
    server.body, server.headers = PLAIN[:-2], {"Content-Length": str(len(PLAIN))}
    with pytest.raises(SourceError, match="ends before its end"):
        Dcgm(server.url).open()
    server.headers = {}
    reading = read(server, "fast")["GPU-1"]
    assert (reading.memory_used, reading.power) == (20480 * MIB, None)


def test_an_answer_byte_by_byte(server: Server) -> None:
    """Has as long as any other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                for one in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100:
                    connection.sendall(bytes([one]))
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(SourceError, match=r"does not answer within 0\.5 s"):
            Dcgm(f"http://127.0.0.1:{listener.getsockname()[1]}/metrics", timeout=0.5).open()
        thread.join()


def test_other_spellings(server: Server) -> None:
    """The label of the uuid may be small; a number is what Prometheus takes for one."""
    server.body = PLAIN.replace(b"UUID", b"uuid").replace(b"300", b"1_000")
    reading = read(server, "fast")["GPU-1"]
    assert (reading.memory_used, reading.power) == (20480 * MIB, None)


def test_a_divided_gpu(server: Server) -> None:
    """Tells of its instances alone: what is of the whole GPU is taken from them, what is of each of them is not."""
    parts = [',GPU_I_ID="1",GPU_I_PROFILE="3g.40gb"', ',GPU_I_ID="2",GPU_I_PROFILE="3g.40gb"']
    server.body = "".join(ROW % ("POWER_USAGE", part, 300) + ROW % ("FB_USED", part, 18432) for part in parts).encode()
    reading = read(server, "fast")["GPU-1"]
    assert (reading.power, reading.memory_used, reading.busy) == (300, None, None)


def test_passwords(server: Server) -> None:
    """Are sent, and not shown."""
    server.status = 500
    url = server.url.replace("http://", "http://me:secret@")
    with pytest.raises(SourceError) as caught:
        Dcgm(url).open()
    assert "secret" not in str(caught.value)
    assert server.authorization == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize("url", ["localhost:9400", "ftp://host/metrics", "http://", "http://host:port/", "http://[::1"])
def test_addresses_that_are_none(url: str) -> None:
    """Are one sentence."""
    with pytest.raises(SourceError) as caught:
        Dcgm(url).open()
    assert "\n" not in str(caught.value)
    assert url in str(caught.value)


def test_nobody_listens(server: Server) -> None:
    """Is one too."""
    with pytest.raises(SourceError, match="cannot be read: Connection refused"):
        Dcgm("http://127.0.0.1:1/metrics").open()


@given(st.one_of(st.text(max_size=300), st.text(max_size=80).map(lambda text: f"DCGM_FI_DEV_GPU_UTIL{{{text}}} 5\n")))
def test_any_text(text: str) -> None:
    """Gives rows of finite values, or none."""
    for name, labels, value in rows(text):
        assert not name.startswith("DCGM_FI_")
        assert value >= 0
        assert all(isinstance(label, str) for label in labels)
