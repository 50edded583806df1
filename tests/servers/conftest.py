"""A server with several workers, those who ask it, and what they have to find on its page."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlencode

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parsed_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

HERE = Path(__file__).parent
ADDRESS = "127.0.0.1"
PATIENCE = 30
"""Seconds that anything may take before a test fails."""
CLIENTS = 16
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# The numbers of prometheus_client's own that each process shows of itself.
OF_ONE_PROCESS = ("process_", "python_")
GTHREAD = ["--threads=4", "--worker-class=gthread", "--bind=127.0.0.1:{port}", "--log-level=warning", "service:wsgi"]
RISING = {"counter", "histogram", "summary"}

Figures = dict[str, float]


class Page:
    """One scrape, parsed back from what Prometheus gets."""

    def __init__(self, text: str, *, open_metrics: bool = False) -> None:
        self.samples: list[tuple[str, dict[str, str], float]] = []
        self.rising: dict[str, float] = {}
        self.families: list[str] = []
        for family in (parsed_open_metrics if open_metrics else parsed_text)(text):
            self.families.append(family.name)
            for sample in family.samples:
                self.samples.append((sample.name, sample.labels, sample.value))
                if family.type in RISING and not family.name.startswith(OF_ONE_PROCESS):
                    self.rising[f"{sample.name} {sorted(sample.labels.items())}"] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of `name` that have `labels`; 0 without any."""
        return sum(value for other, own, value in self.samples if other == name and labels.items() <= own.items())

    def figures(self, model: str) -> Figures:
        """What it tells of a model."""
        return {
            "inferences": self.value("inferences_total", model=model),
            "durations": self.value("inference_duration_count", model=model),
            "errors": self.value("model_errors_total", model=model),
            "prompt tokens": self.value("inference_tokens_total", model=model, type="prompt"),
            "completion tokens": self.value("inference_tokens_total", model=model, type="completion"),
            "frames": self.value("objects_per_frame_count", model=model),
            "objects": self.value("objects_per_frame_sum", model=model),
            "confidences": self.value("detection_confidence_count", model=model),
            "sum of confidences": self.value("detection_confidence_sum", model=model),
            "confidences to 0.5": self.value("detection_confidence_bucket", model=model, le="0.5"),
            "persons": self.value("detections_total", model=model, **{"class": "person"}),
            "dogs": self.value("detections_total", model=model, **{"class": "dog"}),
            "in flight": self.value("inferences_in_flight", model=model),
            "dropped": self.value("infermeter_observations_dropped_total"),
            "skipped": self.value("infermeter_files_skipped"),
        }


class Work(NamedTuple):
    """What was asked of a server.

    Attributes:
        done: worker and number of objects of every request that was answered.
        broken: numbers of objects of those whose worker may have died before or after it inferred.
    """

    done: list[tuple[int, int]]
    broken: list[int]

    @property
    def found(self) -> list[int]:
        """The numbers of objects of what was answered."""
        return [found for _, found in self.done]

    def by_worker(self) -> Counter[int]:
        """How many requests each worker answered."""
        return Counter(worker for worker, _ in self.done)


class Server:
    """A server in a process group of its own, on a port that stays the same when it is started again.

    Args:
        command: with {port} where the port goes.
        folder: where it writes what it says, and where its processes share what they count.
        environment: of it, beside what is inherited.
        workers: how many it has.
    """

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str], workers: int) -> None:
        with socket.socket() as probe:
            probe.bind((ADDRESS, 0))
            self.port: int = probe.getsockname()[1]
        self._command = [part.format(port=self.port) for part in command]
        self.log, self.folder = folder / "log", folder / "shared"
        self.folder.mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INFERM", "PROM"))}
        # gunicorn puts a socket in the home folder.
        self._environment = {**inherited, "HOME": str(folder), "INFERMETER_SERVICE": "test", **environment}
        self.workers = workers

    def start(self) -> None:
        """Start it, and wait until all workers answer."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=HERE,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.each()

    def terminate(self) -> int:
        """Ask it to end; gives its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """End all of it, whatever state it is in."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended
            pass
        self.process.wait()

    def get(self, path: str, accept: str = "text/plain") -> tuple[int, str]:
        """The worker that answers, and what.

        Raises:
            OSError, http.client.HTTPException: nobody answers, or somebody who dies meanwhile.
        """
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Accept": accept, "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status == 200, f"{path}: {answer.status} {body}\n{self.log.read_text()}"
            return int(answer.headers["Worker"]), body
        finally:
            connection.close()

    def scrape(self) -> tuple[int, Page]:
        """The worker that answers, and its page."""
        worker, text = self.get("/metrics")
        return worker, Page(text)

    def each(self, get: Callable[[Self], tuple[int, Page]] | None = None) -> dict[int, Page]:
        """A page of every living worker, all asked for after this began."""
        pages: dict[int, Page] = {}
        deadline = time.monotonic() + PATIENCE

        def ask(_: int) -> tuple[int, Page] | None:
            try:
                return (get or type(self).scrape)(self)
            except (OSError, http.client.HTTPException):  # it is not there yet, or was just killed
                time.sleep(0.05)
                return None

        with ThreadPoolExecutor(self.workers) as pool:
            while len(pages) != self.workers:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    pytest.fail(f"of {self.workers} workers answered {list(pages)}:\n{self.log.read_text()}")
                pages |= dict(answer for answer in pool.map(ask, range(self.workers)) if answer is not None)
                pages = {worker: page for worker, page in pages.items() if lives(worker)}
        return pages

    def kill(self, worker: int) -> None:
        """Kill a worker, and return when it is dead; the server starts another."""
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not lives(worker))

    def reload(self) -> None:
        """Have all workers replaced, and return when the old ones are gone."""
        old = set(self.each())
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not any(map(lives, old)))

    def until_absorbed(self) -> None:
        """Return when the living have taken over from the dead."""
        wait_until(lambda: len(list(self.folder.rglob("*.segment"))) == self.workers)

    def figures(self, model: str) -> list[Figures]:
        """What each worker shows of a model, everything that was recorded before in it."""
        self.each()  # what a worker is scraped for, the others can read afterwards
        pages = self.each().values()
        assert [page.value("infermeter_processes") for page in pages] == [self.workers] * self.workers
        return [page.figures(model) for page in pages]

    def eventually(self, model: str, expected: Figures) -> None:
        """Return when a page shows `expected`, whoever gives it and whatever the others were not asked for."""
        deadline = time.monotonic() + PATIENCE
        while (shown := self.scrape()[1].figures(model)) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert expected == shown

    def work(self, model: str, requests: int, meanwhile: Callable[[Work], object] | None = None) -> Work:
        """Ask for so many inferences at once as there are clients; `meanwhile` is called when a third is answered."""
        work = Work([], [])
        third = threading.Event()

        def ask(number: int) -> None:
            found = number % 5 - 1
            try:
                worker, _ = self.get("/infer?" + urlencode({"model": model, "found": found}))
            except (OSError, http.client.HTTPException):
                work.broken.append(found)
            else:
                work.done.append((worker, found))
            if len(work.done) > requests / 3:
                third.set()

        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = pool.map(ask, range(requests))
            if meanwhile is not None:
                assert third.wait(PATIENCE)
                meanwhile(work)
            assert list(asked) == [None] * requests
        return work


def lives(process: int) -> bool:
    """Whether a process is neither gone nor waits, dead, for its parent; its locks are free then."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], object]) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def expected_of(requests: Iterable[int]) -> Figures:
    """What a page must show after requests for so many objects each."""
    asked = list(requests)
    frames = [min(found, 3) for found in asked if found >= 0]
    at_least = [sum(found >= number for found in frames) for number in (1, 2, 3)]
    return {
        "inferences": len(asked),
        "durations": len(asked),
        "errors": len(asked) - len(frames),
        "prompt tokens": sum(map(abs, asked)),
        "completion tokens": len(asked),
        "frames": len(frames),
        "objects": sum(frames),
        "confidences": sum(frames),
        "sum of confidences": 0.25 * at_least[0] + 0.5 * at_least[1] + 0.75 * at_least[2],
        "confidences to 0.5": at_least[0] + at_least[1],
        "persons": at_least[0] + at_least[2],
        "dogs": at_least[1],
        "in flight": 0,
        "dropped": 0,
        "skipped": 0,
    }


class Watch:
    """Scrapes a server again and again in a `with` block, and notes what falls or vanishes of what may only rise."""

    def __init__(self, server: Server) -> None:
        self.falls: list[str] = []
        self.scrapes = 0
        self._server = server
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def more(self) -> None:
        """Return when some more scrapes were made."""
        enough = self.scrapes + 20
        wait_until(lambda: self.scrapes >= enough or not self._thread.is_alive())

    def _run(self) -> None:
        before: dict[str, float] = {}
        while not self._over:
            try:
                worker, page = self._server.scrape()
            except (OSError, http.client.HTTPException):  # a worker that was killed
                continue
            for series, value in before.items():
                now = page.rising.get(series, -1)
                if now < value:
                    self.falls.append(f"scrape {self.scrapes} by {worker}: {series} fell from {value!r} to {now!r}")
            before |= page.rising
            self.scrapes += 1

    def __enter__(self) -> Self:
        self._thread.start()
        self.more()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._thread.join()


QUIET = ("--lifespan=off", "--log-level=warning")
KINDS = {
    "gunicorn": ("wsgi", 3, ["gunicorn", "--workers=3", *GTHREAD]),
    "preloaded": ("wsgi", 3, ["gunicorn", "--workers=3", "--preload", *GTHREAD]),
    "uvicorn": ("asgi", 4, ["uvicorn", "--workers=4", "--port={port}", *QUIET, "service:asgi"]),
}


@contextmanager
def run(kind: str, folder: Path, variable: str) -> Iterator[Server]:
    """A running server of a kind, told by a variable of the environment what folder its workers share."""
    serves, workers, arguments = KINDS[kind]
    environment = {"SERVES": serves, variable: str(folder / "shared")}
    server = Server([sys.executable, "-m", *arguments], folder, environment, workers)
    try:
        server.start()
        yield server
        assert server.terminate() == 0
        said = server.log.read_text()
        assert "Traceback" not in said, said
    finally:
        server.end()


@pytest.fixture(scope="session")
def run_server() -> Callable[[str, Path, str], AbstractContextManager[Server]]:
    """For servers of any kind."""
    return run


@pytest.fixture(scope="session")
def read_page() -> type[Page]:
    """For pages that somebody else scraped."""
    return Page


@pytest.fixture(scope="session")
def watched() -> type[Watch]:
    """For what no scrape may show."""
    return Watch


@pytest.fixture(scope="session")
def expected() -> Callable[[Iterable[int]], Figures]:
    """What a page must show."""
    return expected_of
