"""A service whose truth is known, and a real Prometheus that scrapes it every second.

A counter that a scrape has seen at 0 makes `increase` exact at the moment of a scrape: Prometheus extrapolates neither
before a zero nor after the newest sample. So the tests ask at the moment of a scrape, and expect whole numbers.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "127.0.0.1"
PATIENCE = 30
"""Seconds; the first scrape comes 5 to 6 s after the start, everything else takes less than 2."""
CLOCK = 10
"""Milliseconds by which a scrape must be later than now to have begun after now: Prometheus rounds by up to 2."""


class Service:
    """`service.py` in a process of its own, on a port that stays the same when it is started again."""

    def __init__(self, log: Path) -> None:
        """Start it."""
        self._log = log
        self._port = 0
        self._start()

    @property
    def target(self) -> str:
        """Host and port of its metrics."""
        return f"{ADDRESS}:{self._port}"

    def do(self, command: str, **arguments: object) -> Any:
        """Have a function of `service.py` called, wait until it is done, and give what it returns."""
        self._say(json.dumps([command, arguments]))
        return json.loads(self._hear())

    def page(self, accept: str) -> str:
        """What `/metrics` answers to somebody who accepts that."""
        return httpx.get(f"http://{self.target}/metrics", headers={"Accept": accept}, trust_env=False).text

    def crash(self) -> None:
        """End it without any chance to say goodbye."""
        self._process.kill()
        self.end()

    def restart(self) -> None:
        """Start it again after a crash."""
        self._start()

    def end(self) -> None:
        """End it."""
        try:
            self._process.communicate(timeout=PATIENCE)
        finally:
            self._process.kill()  # which does nothing to a process that has ended

    def _start(self) -> None:
        program = Path(__file__).with_name("service.py")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERMETER_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, program, str(self._port)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip
        self._port = int(self._hear())

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            pytest.fail(f"service.py did not answer within {PATIENCE} s, having said:\n{self._log.read_text()}")
        line = self._process.stdout.readline().strip()
        return line or pytest.fail(f"service.py ended, having said:\n{self._log.read_text()}")


class Scrape:
    """What Prometheus answers at the moment of one scrape, which is in the past and changes no more."""

    def __init__(self, client: httpx.Client, milliseconds: int) -> None:
        """A moment in milliseconds since 1970."""
        self._client = client
        self.milliseconds = milliseconds

    def samples(self, selector: str) -> list[tuple[float, float]]:
        """The time, in seconds, and the value of every sample of one series in a range like `up[5m]`."""
        result = ask(self._client, selector, time=self._moment)
        assert len(result) == 1, f"{selector} has {len(result)} series, expected one"
        return [(float(seconds), float(value)) for seconds, value in result[0]["values"]]

    def vector(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the value of every series in the answer."""
        result = ask(self._client, query, time=self._moment)
        return [(series["metric"], float(series["value"][1])) for series in result]

    def by(self, label: str, query: str) -> dict[str, float]:
        """The values of an answer whose series differ in one label."""
        vector = self.vector(query)
        values = {labels.get(label, ""): value for labels, value in vector}
        assert len(values) == len(vector), f"{query} has several series of the same {label}"
        return values

    @property
    def _moment(self) -> str:
        return datetime.fromtimestamp(self.milliseconds / 1000, UTC).isoformat(timespec="milliseconds")

    def value(self, query: str) -> float:
        """The value of an answer of one series."""
        vector = self.vector(query)
        assert len(vector) == 1, f"{query} has {len(vector)} series, expected one"
        return vector[0][1]


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str, job: str, instance: str = "") -> None:
        """Talk to the one at `url`, about one target of `job`, by default the only one."""
        self._target = f'job="{job}", instance=~"{instance or ".+"}"'
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def exemplars(self, query: str, start: float) -> list[dict[str, Any]]:
        """The exemplars of the series of a query from a moment on, and the labels of their series."""
        return exemplars(self.client, query, start)

    def next_scrape(self) -> Scrape:
        """The first successful scrape of the target that begins after now."""
        now = time.time() * 1000
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for up in ask(self.client, f"up{{{self._target}}}[1m]"):
                for seconds, value in up["values"]:
                    if value == "1" and round(seconds * 1000) > now + CLOCK:
                        return Scrape(self.client, round(seconds * 1000))
            time.sleep(0.05)
        pytest.fail(f"Prometheus did not scrape {self._target} within {PATIENCE} s")


def exemplars(client: httpx.Client, query: str, start: float) -> list[dict[str, Any]]:
    """The exemplars of the series of a query from a moment on, and the labels of their series."""
    parameters = {"query": query, "start": str(start), "end": str(time.time() + 60)}
    answer = client.get("/api/v1/query_exemplars", params=parameters).json()
    assert answer["status"] == "success", f"{query}: {answer['error']}"
    return [{**one, "series": series["seriesLabels"]} for series in answer["data"] for one in series["exemplars"]]


def ask(client: httpx.Client, query: str, **parameters: str) -> list[Any]:
    """The result of an instant query."""
    answer = client.get("/api/v1/query", params={"query": query, **parameters}).json()
    assert answer["status"] == "success", f"{query}: {answer['error']}"
    result: list[Any] = answer["data"]["result"]
    return result


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def connect() -> type[Prometheus]:
    """How to talk to a Prometheus that somebody else has started."""
    return Prometheus


@pytest.fixture(scope="session")
def service(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, for the whole session."""
    running = Service(tmp_path_factory.mktemp("service") / "log")
    yield running
    running.end()


@pytest.fixture(scope="session")
def prometheus(program: str, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the service once, and so knows its zeros."""
    jobs = f"  - {{job_name: service, static_configs: [{{targets: ['{service.target}']}}]}}\n"
    with (
        running(program, tmp_path_factory.mktemp("prometheus"), jobs, "--enable-feature=exemplar-storage") as address,
        Prometheus(f"http://{address}", job="service") as found,
    ):
        found.next_scrape()
        yield found


@contextmanager
def running(program: str, folder: Path, jobs: str, *flags: str, interval: str = "1s") -> Iterator[str]:
    """Host and port of a Prometheus that is ready, and that ends with the block.

    Args:
        program: where it is.
        folder: for its files.
        jobs: what it scrapes, the lines of `scrape_configs`.
        flags: besides those that say where everything is.
        interval: between two scrapes, and the timeout of each.
    """
    config, log, address = folder / "prometheus.yml", folder / "log", f"{ADDRESS}:{free_port()}"
    config.write_text(f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\nscrape_configs:\n{jobs}")
    command = [
        program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", *flags,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10) as client:
            wait_until_ready(client, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when Prometheus answers."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"Prometheus did not get ready, having said:\n{log.read_text()}")
