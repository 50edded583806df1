"""Whatever happens to GPUs, the driver and the host, a Prometheus that scrapes each second reads only what is true.

Hours are compressed: the exporter reads ten times as often as it would, and something happens every few seconds.
INFERMETER_CHAOS is for how many seconds (25 without it).
"""

from __future__ import annotations

import json
import os
import random
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

from infermeter_exporters.gpu.catalogue import FAMILIES
from tests.gpu.exporting import Root, exporting
from tests.gpu.nvml_stub import GIB, Scenario, h100x8_busy, no_driver
from tests.gpu.sockets import Socket, answer
from tests.page import Page
from tests.prometheus.conftest import ask, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.gpu.exporting import Exporting

SECONDS = float(os.environ.get("INFERMETER_CHAOS", "25"))
FAST, NORMAL = 0.2, 0.5
FLAGS = (f"--collect.fast-interval={FAST}s", f"--collect.interval={NORMAL}s", "--collect.slow-interval=2s")
CONTAINER = "ab" * 32
COUNTERS = [name for name, family in FAMILIES.items() if family.kind == "counter"]
PAUSE, LONG_PAUSE = 2.0, 7.0
"""Seconds between two events, and until what hangs has been given up."""
PERIODS = 2
SLACK = 0.3
"""Seconds from a value's end in the scenario to a reading of it that began before, on a machine that has other work."""


class Scrape(NamedTuple):
    """What was scraped.

    Attributes:
        began: when, by `time.monotonic()`.
        seconds: how long it took.
        page: what it gave.
    """

    began: float
    seconds: float
    page: Page


class Truth:
    """What the driver says of temperatures changes all the time, and it is known when."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.ended: dict[float, float] = {}
        self.value = 20
        self.lock = threading.Lock()

    def change(self) -> None:
        """Something else is true from now on."""
        with self.lock:
            before, self.value = self.value, self.value + 1
            self.scenario.gpu("*", "temperature", self.value)
            self.scenario.save()
            self.ended[before] = time.monotonic()


class Host:
    """The machine to which things happen."""

    def __init__(self, truth: Truth, root: Root) -> None:
        self.truth, self.root = truth, root
        self.worker: Callable[[], int] = lambda: 0
        self.random = random.Random(7)
        self.docker: Socket | None = None
        self.docker_comes()

    def docker_comes(self) -> None:
        """Docker answers."""
        folder = self.root.folder / "var/run"
        folder.mkdir(parents=True, exist_ok=True)
        self.docker = Socket(folder / "docker.sock")
        described = {"Id": CONTAINER, "Name": "/shop-ocr-1", "Config": {"Image": "ocr", "Labels": {}}}
        self.docker.says = {f"/containers/{CONTAINER}/json": answer("200 OK", json.dumps(described).encode())}

    def docker_goes(self) -> None:
        """Its socket is gone."""
        if self.docker is not None:
            self.docker.__exit__()
            self.docker = None

    def events(self) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
        """What happens, and how it ends, for ever."""
        scenario, truth = self.truth.scenario, self.truth

        def all_well() -> None:
            scenario.rules.clear()
            for gpu in range(8):
                scenario.lose(gpu, lost=False)
            truth.change()

        def changed(work: Callable[[], object]) -> Callable[[], None]:
            def both() -> None:
                work()
                truth.change()

            return both

        while True:
            gpu = self.random.randrange(8)
            yield changed(lambda gpu=gpu: scenario.lose(gpu)), all_well  # type: ignore[misc]
            yield changed(lambda gpu=gpu: scenario.hang("nvmlDeviceGetPowerUsage", gpu)), all_well  # type: ignore[misc]
            yield lambda: os.kill(self.worker(), 9), truth.change
            yield self.docker_goes, self.docker_comes
            yield changed(lambda: scenario.tell("*", "*", 1)), all_well  # the library lost its driver
            yield changed(lambda: scenario.crash("nvmlDeviceGetTemperature", "*", 11)), all_well
            yield lambda: self.root.refuse(10_000), lambda: self.root.process(10_000, "face-detection")
            yield changed(lambda: scenario.gpu("*", "energy", "0+420000")), all_well  # the driver was loaded again
            yield changed(lambda: scenario.hang("*", "*", deaf=True)), all_well


def scraping(exporter: Exporting, found: list[Scrape], stopped: threading.Event) -> None:
    """Scrape ten times a second."""
    with httpx.Client(base_url=exporter.url, timeout=10, trust_env=False) as client:
        while not stopped.wait(0.1):
            began = time.monotonic()
            answer = client.get("/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "1"})
            seconds = time.monotonic() - began
            assert answer.status_code == 200
            found.append(Scrape(began, seconds, Page(answer.text)))


@pytest.fixture(scope="module")
def chaos(
    nvml_library: Path, tmp_path_factory: pytest.TempPathFactory, program: str
) -> Iterator[tuple[Truth, list[Scrape], list[Scrape], dict[str, Any]]]:
    """All that was scraped of an exporter to which things happened, of one to which nothing did, and Prometheus."""
    folder = tmp_path_factory.mktemp("chaos")
    scenario = h100x8_busy(folder / "scenario").save()
    root = Root(folder / "r")
    for gpu in range(8):
        root.process(10_000 + 10 * gpu, "face-detection")
        root.process(10_001 + 10 * gpu, container=CONTAINER)
    (folder / "idle").mkdir()
    idle = no_driver(folder / "idle" / "scenario").save()
    empty = Root(folder / "idle" / "r")
    truth = Truth(scenario)
    host = Host(truth, root)
    with (
        exporting(folder, scenario.environment(nvml_library), *FLAGS, f"--path.rootfs={root.folder}") as exporter,
        exporting(folder / "idle", idle.environment(nvml_library), *FLAGS, f"--path.rootfs={empty.folder}") as other,
    ):
        exporter.until_page(lambda page: "nvidia_gpu_temperature_celsius" in page.names)
        target = exporter.url.removeprefix("http://")
        (folder / "prometheus").mkdir()
        job = f"  - {{job_name: gpu, static_configs: [{{targets: ['{target}']}}]}}\n"
        stopped = threading.Event()
        ours: list[Scrape] = []
        theirs: list[Scrape] = []
        threads = [
            threading.Thread(target=scraping, args=(one, scrapes, stopped))
            for one, scrapes in ((exporter, ours), (other, theirs))
        ]
        with running(program, folder / "prometheus", job) as address:
            began = time.monotonic()
            for thread in threads:
                thread.start()
            host.worker = lambda: exporter.worker
            try:
                happen(host, truth, began + SECONDS)
                quiet(exporter, truth)
            finally:
                stopped.set()
                for thread in threads:
                    thread.join()
                host.docker_goes()
            with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=30) as client:
                yield truth, ours, theirs, judged(client, time.monotonic() - began)


def happen(host: Host, truth: Truth, until: float) -> None:
    """Something happens and ends, until the time is up; what is true changes meanwhile."""
    for begin, end in host.events():
        begin()
        hangs = any(kind == "hang" for kind, _, _ in truth.scenario.rules)
        for work, pause in ((lambda: None, LONG_PAUSE if hangs else PAUSE), (end, PAUSE)):
            work()
            for _ in range(round(pause / 0.5)):
                time.sleep(0.5)
                truth.change()
        if time.monotonic() > until:
            return


def quiet(exporter: Exporting, truth: Truth) -> None:
    """All is well again at the end."""
    page = exporter.until_page(lambda page: sum(page.by("gpu", "nvidia_gpu_up").values()) == 8, 60)
    assert page.value("nvidia_gpu_devices") == 8
    truth.change()
    exporter.until_page(lambda page: page.by("gpu", "nvidia_gpu_temperature_celsius").get("0") == truth.value)


def judged(client: httpx.Client, seconds: float) -> dict[str, Any]:
    """What Prometheus says of all its scrapes."""
    window = f"[{seconds + 5:.0f}s]"
    named = f'last_over_time(nvidia_gpu_utilization{{service=~"[^_].*"}}{window})'
    return {
        "up": ask(client, f"min_over_time(up{window})"),
        "slowest": ask(client, f"max_over_time(scrape_duration_seconds{window})"),
        "fallen": [series for name in COUNTERS for series in ask(client, f"resets({name}{window}) > 0")],
        "services": ask(client, f"count by (service) ({named})"),
    }


Chaos = tuple[Truth, list[Scrape], list[Scrape], dict[str, Any]]


def test_all_of_it_happened(chaos: Chaos) -> None:
    """Workers hung, crashed and lost their driver, a GPU was lost, and one timed out."""
    _, ours, _, _ = chaos
    reasons = ours[-1].page.by("reason", "nvidia_gpu_exporter_worker_restarts_total")
    assert {reason for reason, number in reasons.items() if number} == {"hang", "crash", "source"}
    states = {
        labels["state"]
        for scrape in ours
        for name, labels, value in scrape.page.samples
        if name == "nvidia_gpu_status" and value
    }
    assert {"ok", "lost", "timeout"} <= states


def test_no_scrape_fails_or_is_late(chaos: Chaos) -> None:
    """Neither ours nor those of Prometheus, which waits for a second; beside those of an exporter without GPUs."""
    _, ours, theirs, prometheus = chaos
    assert [float(series["value"][1]) for series in prometheus["up"]] == [1]
    [slowest] = [float(series["value"][1]) for series in prometheus["slowest"]]
    late = {
        name: statistics.quantiles([scrape.seconds for scrape in scrapes], n=100)[98]
        for name, scrapes in (("ours", ours), ("idle", theirs))
    }
    print(
        f"\nchaos of {ours[-1].began - ours[0].began:.0f} s: {len(ours)} scrapes, p99 {1e3 * late['ours']:.1f} ms, "
        f"of an idle exporter {1e3 * late['idle']:.1f} ms; the slowest of Prometheus' own {1e3 * slowest:.1f} ms"
    )
    assert max(slowest, *(scrape.seconds for scrape in ours)) < 1


def test_no_counter_falls(chaos: Chaos) -> None:
    """Over hangs, crashes and reloads: neither in our scrapes nor in Prometheus."""
    _, ours, _, prometheus = chaos
    assert prometheus["fallen"] == []
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for scrape in ours:
        for name, labels, value in scrape.page.samples:
            if name in COUNTERS:
                key = name, frozenset(labels.items())
                assert value >= before.get(key, 0.0), key
                before[key] = value


def test_services_add_up_to_their_gpu(chaos: Chaos) -> None:
    """In every single page: time and memory."""
    _, ours, _, _ = chaos
    seen = 0
    for scrape in ours:
        page = scrape.page
        busy = page.by("gpu", "nvidia_gpu_busy_ratio")
        for gpu, ratio in busy.items():
            seen += 1
            assert page.value("nvidia_gpu_utilization", gpu=gpu) == 100 * ratio
            assert page.value("nvidia_gpu_memory_used_bytes", gpu=gpu) == 20 * GIB
    assert seen > len(ours)


def test_no_value_outlives_its_truth(chaos: Chaos) -> None:
    """For longer than two periods of collection; a GPU that is lost or hangs has none."""
    truth, ours, _, _ = chaos
    seen = set()
    for scrape in ours:
        up = scrape.page.by("gpu", "nvidia_gpu_up")
        found = scrape.page.by("gpu", "nvidia_gpu_temperature_celsius")
        assert {gpu for gpu in found if not up[gpu]} == set()
        for value in found.values():
            seen.add(value)
            assert scrape.began - truth.ended.get(value, scrape.began) <= PERIODS * NORMAL + SLACK
    assert len(seen) > SECONDS / PAUSE


def test_services_have_names_throughout(chaos: Chaos) -> None:
    """By the environment of their processes, and by Docker, which was away for a while."""
    _, _, _, prometheus = chaos
    assert {series["metric"]["service"] for series in prometheus["services"]} == {"face-detection", "shop-ocr-1"}
