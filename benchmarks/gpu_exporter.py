"""What watching GPUs costs: this exporter beside nvitop-exporter, at the same time, over the same stub of NVML.

Eight GPUs with twenty processes each, which exist, are read each second by both. Their scrapes alternate. CPU seconds
and memory are those of all processes of each: ours has one that talks to the driver. Then ours collects a hundred times
faster than it would, and its memory must not grow.
"""

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.promises import Promise, conclude, parser
from tests.gpu import nvml_stub

_GPUS, _PROCESSES = 8, 20
_SERVICES = ("face-detection", "object-detection", "ocr", "llm-chat")
_WARM_SECONDS = 15.0
_PAUSE = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_MEBIBYTE = 1 << 10  # KiB, as /proc tells it
# Collections in the long run are so many times faster, and so often is its memory looked at.
_FASTER = 50
_LOOKS = 20
_GROWTH = 1.05


def main() -> int:
    options = parser(__doc__ or "", rounds=600)
    options.add_argument("--long", type=float, default=60.0, metavar="SECONDS", help="of fast collections (0: none)")
    given = options.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="infermeter-benchmark-")))
        environment = stub(stack, folder)
        ours_port, theirs_port = free_port(), free_port()
        started = {
            "ours": (stack.enter_context(running(ours(ours_port), environment)), ours_port),
            "nvitop-exporter": (stack.enter_context(running(theirs(theirs_port), environment)), theirs_port),
        }
        figures: dict[str, Any] = compared(started, given.rounds)
        if given.long:
            figures["long"] = collected(environment, given.long)
    show(figures)
    mine, other = figures["ours"], figures["nvitop-exporter"]
    promises: list[Promise] = [
        ("their scrape p99 over ours", other["p99"] / mine["p99"], ">=", 5),
        ("CPU seconds, ours over theirs", mine["cpu"] / other["cpu"], "<=", 1),
        # Ours are two processes, one of which can be killed in the middle of a call: that is what this buys.
        ("memory, ours over theirs", mine["rss"] / other["rss"], "<=", 1.6),
    ]
    if given.long:
        promises.append(("memory after the long run over before", figures["long"]["growth"], "<=", _GROWTH))
    return conclude(given, figures, promises)


def stub(stack: contextlib.ExitStack, folder: Path) -> dict[str, str]:
    """The environment of a process that finds the stub of NVML; its processes sleep until the end."""
    scenario = nvml_stub.h100x8_busy(folder / "scenario")
    pids = [stack.enter_context(sleeping(_SERVICES[number % len(_SERVICES)])) for number in range(_GPUS * _PROCESSES)]
    for gpu in range(_GPUS):
        here = pids[gpu * _PROCESSES : (gpu + 1) * _PROCESSES]
        scenario.gpu(gpu, "process", *(f"{pid} compute {1 << 30}" for pid in here))
        scenario.gpu(gpu, "sample", *(f"{pid} 4 2 0 0" for pid in here))
    environment = scenario.save().environment(nvml_stub.build(folder))
    # Installed packages have their bytecode: nobody compiles while the other is measured.
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


@contextlib.contextmanager
def sleeping(service: str) -> Iterator[int]:
    """The id of a process that does nothing."""
    process = subprocess.Popen(["sleep", "100000"], env=os.environ | {"INFERMETER_SERVICE": service})
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def ours(port: int, *more: str) -> list[str]:
    """The command of this exporter."""
    command = [sys.executable, "-m", "infermeter_exporters", "gpu-exporter", "--collect.sources=nvml"]
    return [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", *more]


def theirs(port: int) -> list[str]:
    """The command of the other one."""
    return [sys.executable, "-m", "nvitop_exporter", "--bind-address=127.0.0.1", f"--port={port}", "--interval=1"]


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """The id of a process that runs a command."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compared(started: dict[str, tuple[int, int]], rounds: int) -> dict[str, Any]:
    """Scrape both by turns, and see what they used meanwhile."""
    connections = {name: connected(port) for name, (_, port) in started.items()}
    for connection in connections.values():
        scraped(connection)
    time.sleep(_WARM_SECONDS)
    before = {name: cpu(pid) for name, (pid, _) in started.items()}
    took: dict[str, list[float]] = {name: [] for name in started}
    pages: dict[str, bytes] = {}
    began = time.monotonic()
    for number in range(rounds):
        for name in sorted(started, reverse=bool(number % 2)):
            seconds, pages[name] = scraped(connections[name])
            took[name].append(seconds)
        time.sleep(_PAUSE)
    passed = time.monotonic() - began
    figures: dict[str, Any] = {"seconds": passed}
    for name, (pid, _) in started.items():
        percentiles = statistics.quantiles(took[name], n=100)
        figures[name] = {
            "cpu": cpu(pid) - before[name],
            "rss": sum(memory(one, "Rss") for one in family(pid)),
            "pss": sum(memory(one, "Pss") for one in family(pid)),
            "p50": percentiles[49],
            "p99": percentiles[98],
            "series": sum(1 for line in pages[name].splitlines() if line and not line.startswith(b"#")),
        }
    return figures


def collected(environment: dict[str, str], seconds: float) -> dict[str, Any]:
    """Collect much faster for a while; how the memory went."""
    port = free_port()
    quick = [
        f"--collect.{name}={1000 * period // _FASTER}ms"
        for name, period in (("fast-interval", 1), ("interval", 5), ("slow-interval", 60))
    ]
    with running(ours(port, *quick), environment) as pid:
        connection = connected(port)
        scraped(connection)
        sizes = []
        for _ in range(_LOOKS):
            time.sleep(seconds / _LOOKS)
            scraped(connection)
            sizes.append(sum(memory(one, "Rss") for one in family(pid)))
        page = scraped(connection)[1].decode()
    fast = next(line for line in page.splitlines() if 'collections_total{tier="fast"}' in line)
    quarter = _LOOKS // 4
    early, late = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
    return {"collections": float(fast.split()[-1]), "early": early, "late": late, "growth": late / early}


def connected(port: int) -> HTTPConnection:
    """A connection that is kept, once somebody listens."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            connection.connect()
            return connection
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def scraped(connection: HTTPConnection) -> tuple[float, bytes]:
    """How long a scrape took, and the page."""
    began = time.perf_counter()
    connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
    page = connection.getresponse().read()
    return time.perf_counter() - began, page


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text(encoding="ascii").split()
        found += [one for child in children for one in family(int(child))]
    return found


def cpu(pid: int) -> float:
    """CPU seconds of a process and its children, those that ended included."""
    total = 0.0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / _TICKS if one == pid else sum(map(int, fields[11:13])) / _TICKS
    return total


def memory(pid: int, kind: str) -> float:
    """What of the memory of a process lies in RAM, in MiB: all of it (Rss), or shared pages by their part (Pss)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(kind + ":")) / _MEBIBYTE


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(figures: dict[str, Any]) -> None:
    print(f"{_GPUS} GPUs x {_PROCESSES} processes, {figures['seconds']:.0f} s, both read each second")
    print(f"{'':18}{'CPU s':>8}{'RSS MiB':>10}{'PSS MiB':>10}{'p50 ms':>9}{'p99 ms':>9}{'series':>9}")
    for name in ("ours", "nvitop-exporter"):
        one = figures[name]
        print(
            f"{name:18}{one['cpu']:8.2f}{one['rss']:10.1f}{one['pss']:10.1f}{one['p50'] * 1e3:9.2f}"
            f"{one['p99'] * 1e3:9.2f}{one['series']:9}"
        )
    if "long" in figures:
        long = figures["long"]
        print(
            f"after {long['collections']:.0f} collections, as of {long['collections'] / _GPUS / 3600:.1f} hours: "
            f"{long['early']:.1f} MiB, then {long['late']:.1f} MiB"
        )


if __name__ == "__main__":
    sys.exit(main())
