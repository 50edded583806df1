"""Many processes behind one page: what a real Prometheus sees of them while they are killed."""

from __future__ import annotations

import mmap
import os
import random
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.processes import kill, recorder_in, start
from tests.prometheus.conftest import ADDRESS, PATIENCE, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.prometheus.conftest import Prometheus

WORKERS = 8
KILLS = 40
FOREVER = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the processes share."""
    return tmp_path / "shared"


@pytest.fixture
def prometheus(program: str, connect: type[Prometheus], folder: Path, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the page of a process that records nothing itself."""
    with recorder_in(folder).serve(0, ADDRESS) as page:
        jobs = f"  - {{job_name: service, static_configs: [{{targets: ['{ADDRESS}:{page.port}']}}]}}\n"
        with (
            running(program, tmp_path, jobs, "--enable-feature=exemplar-storage", interval="250ms") as address,
            connect(f"http://{address}", job="service") as found,
        ):
            found.next_scrape()
            yield found


def test_no_counter_ever_falls_while_processes_are_killed(prometheus: Prometheus, folder: Path) -> None:
    """Prometheus sees no reset, and at the end it has every inference whose call returned."""
    begun, returned = (memoryview(mmap.mmap(-1, 8 * WORKERS)).cast("Q") for _ in range(2))

    def work(worker: int) -> None:
        chance = random.Random(os.getpid())
        infer = recorder_in(folder).track(model="m", detections=lambda found: found)(lambda: [0.5, 0.9])
        while True:
            begun[worker] += 1
            infer()
            returned[worker] += 1
            time.sleep(chance.uniform(0, 0.002))

    workers = [start(lambda worker=worker: work(worker), stay=True) for worker in range(WORKERS)]  # type: ignore[misc]
    chance = random.Random(7)
    try:
        deadline = time.monotonic() + PATIENCE
        first = prometheus.next_scrape()
        while not first.vector("inferences_total > 0"):  # forks of a large process take their time
            assert time.monotonic() < deadline
            first = prometheus.next_scrape()
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.3))
            worker = chance.randrange(WORKERS)
            kill(workers[worker])
            workers[worker] = start(lambda worker=worker: work(worker), stay=True)  # type: ignore[misc]
    finally:
        for pid in workers:
            kill(pid)
    last = prometheus.next_scrape()

    counters = last.by("__name__", 'count by (__name__) ({job="service", __name__=~".+_(total|count|bucket)"})')
    assert {name: last.value(f"sum(resets({name}[5m]))") for name in counters} == dict.fromkeys(counters, 0)
    assert len(last.samples('inferences_total{job="service"}[5m]')) > 8
    assert first.value("inferences_total") < last.value("inferences_total")
    assert sum(returned) <= last.value("inferences_total") <= sum(begun)
    assert last.value("detection_confidence_count") == 2 * last.value("inferences_total")
    assert last.value("max_over_time(infermeter_files_skipped[5m])") == 0


def test_exemplars_of_every_process(prometheus: Prometheus, folder: Path) -> None:
    """Prometheus gives the traces of slow inferences, of a process that lives and of one that was killed."""
    started = time.time()
    traces = memoryview(mmap.mmap(-1, 32)).cast("Q")

    def work(worker: int, seconds: float) -> None:
        track = recorder_in(folder).track(model="traced")
        with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
            trace = span.get_span_context().trace_id
            track.finish(track.begin(), seconds)
        track.recorder.fold()
        traces[2 * worker + 1], traces[2 * worker] = divmod(trace, 1 << 64)

    pids = [start(lambda: work(0, 0.3), stay=True), start(lambda: work(1, 7.0), stay=True)]
    try:
        deadline = time.monotonic() + PATIENCE
        while 0 in traces:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill(pids.pop())
        prometheus.next_scrape()
    finally:
        for pid in pids:
            kill(pid)
    found = prometheus.exemplars('inference_duration_bucket{model="traced"}', started)

    assert {(one["labels"]["trace_id"], float(one["value"])) for one in found} == {
        (f"{traces[1]:016x}{traces[0]:016x}", 0.3),
        (f"{traces[3]:016x}{traces[2]:016x}", 7.0),
    }
