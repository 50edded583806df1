"""Recorders of many processes that are killed while they record: nothing is lost, and nothing counted twice.

What really happened is kept outside of what is tested, in memory that the processes share with the test: what each
began to record, and what returned. A call that had not returned at the kill may go either way.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.processes import kill, recorder_in, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from infermeter import Recorder
    from tests.instrumentation.conftest import Scrape
    from tests.page import Page

KILLS = int(os.environ.get("INFERMETER_KILLS", "20"))
RESTARTS = 50 * int(os.environ.get("INFERMETER_KILLS", "14"))
WORKERS = 8
PATIENCE = 600
KINDS = ("array", "list", "block", "failing", "cache", "queue", "load", "dropped", "huge")
ARRAY = np.array([0.25, 0.75], np.float32)
HUGE = np.full(100_000, 0.5, np.float32)


class Truth:
    """What was begun and what returned, by kind; each worker has numbers of its own, which outlive it."""

    def __init__(self, workers: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 16 * workers * len(KINDS))).cast("Q")

    def record(self, worker: int, kind: str, job: Callable[[], object]) -> None:
        place = 2 * (worker * len(KINDS) + KINDS.index(kind))
        self._numbers[place] += 1
        job()
        self._numbers[place + 1] += 1

    def of(self, kind: str) -> tuple[int, int]:
        """The number that were begun, and the number that returned."""
        first, step = 2 * KINDS.index(kind), 2 * len(KINDS)
        return sum(self._numbers[first::step]), sum(self._numbers[first + 1 :: step])


def jobs(recorder: Recorder) -> dict[str, Callable[[], object]]:
    """A way to record for each kind, each with a model of its own."""
    use_array = recorder.track(model="array", detections=lambda result: result)(lambda: ARRAY)
    use_list = recorder.track(model="list", detections=lambda result: result)(lambda: [0.5])
    use_huge = recorder.track(model="huge", detections=lambda result: result)(lambda: HUGE)
    cache, waiting = recorder.cache("features"), recorder.queue("queue")

    def use_block() -> None:
        with recorder.track(model="block") as call:
            call.detections([0.1, 0.9], classes=[0, 1], names=["cat", "dog"])
            call.detections([])
            call.tokens(prompt=3)
            with call.stage("preprocess"):
                pass

    def fail() -> None:
        with pytest.raises(TimeoutError), recorder.track(model="failing"):
            raise TimeoutError

    def wait() -> None:
        waiting.get(waiting.put())

    return {
        "array": use_array,
        "list": use_list,
        "block": use_block,
        "failing": fail,
        "cache": cache.hit,
        "queue": wait,
        "load": lambda: recorder.load("load").loaded(1.0),
        "dropped": lambda: recorder.load("load").loaded(-1.0),
        "huge": use_huge,
    }


def counted(page: Page) -> dict[str, list[float]]:
    """Every number on the page that tells how many of a kind were recorded."""
    found = {
        kind: [page.value(name, model=kind) for name in ("inferences_total", "inference_duration_count")]
        for kind in ("array", "list", "block", "failing", "huge")
    }
    found["array"] += [page.value("detections_total", model="array") / 2, confidences(page, "array") / 2]
    found["list"] += [page.value("detections_total", model="list"), confidences(page, "list")]
    found["huge"] += [page.value("detections_total", model="huge") / len(HUGE), confidences(page, "huge") / len(HUGE)]
    found["block"] += [page.value("objects_per_frame_count", model="block") / 2, confidences(page, "block") / 2]
    found["block"] += [page.value("detections_total", model="block", **{"class": name}) for name in ("cat", "dog")]
    found["block"] += [page.value("inference_tokens_total", model="block", type="prompt") / 3]
    found["block"] += [page.value("inference_stage_duration_seconds_count", model="block")]
    found["failing"] += [page.value("model_errors_total", model="failing"), page.value("model_timeout_total")]
    found["cache"] = [page.value("cache_hits_total")]
    found["queue"] = [page.value("model_queue_wait_seconds_count")]
    found["load"] = [page.value("model_load_seconds_count"), page.value("model_load_seconds_sum")]
    found["dropped"] = [page.value("infermeter_observations_dropped_total", reason="negative")]
    return found


def confidences(page: Page, model: str) -> float:
    return page.value("detection_confidence_count", model=model)


def test_a_kill_loses_nothing_and_counts_nothing_twice(tmp_path: Path, scrape: Scrape) -> None:
    """Workers that record flat out are killed at random; meanwhile no counter on anybody's page ever falls."""
    truth = Truth(WORKERS)
    chance = random.Random(7)

    def work(worker: int) -> None:
        mine = random.Random(os.getpid())
        ways = jobs(recorder_in(tmp_path))
        # The first inference settles the name of the service; what is told before waits for it in memory.
        truth.record(worker, "array", ways["array"])
        kinds = [kind for kind in KINDS if kind != "huge"]
        while True:
            kind = "huge" if mine.random() < 0.001 else mine.choice(kinds)
            truth.record(worker, kind, ways[kind])

    reader = recorder_in(tmp_path)
    workers = [start(lambda worker=worker: work(worker), PATIENCE) for worker in range(WORKERS)]  # type: ignore[misc]
    highest: dict[Any, float] = {}
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.2))
            worker = chance.randrange(WORKERS)
            kill(workers[worker])
            workers[worker] = start(lambda worker=worker: work(worker), PATIENCE)  # type: ignore[misc]
            page = scrape(reader)
            seen = {
                (name, tuple(labels.items())): value
                for name, labels, value in page.samples
                if name.endswith(("_total", "_count", "_bucket"))
            }
            fallen = {name: (highest[name], seen.get(name)) for name in highest if seen.get(name, -1) < highest[name]}
            assert fallen == {}
            highest = seen
            assert page.value("infermeter_files_skipped") == 0
    finally:
        for pid in workers:
            kill(pid)
    page = scrape(reader)
    for kind, numbers in counted(page).items():
        begun, returned = truth.of(kind)
        assert returned > 0
        assert len(set(numbers)) == 1, (kind, numbers)
        assert returned <= numbers[0] <= begun, (kind, numbers)
    assert "inferences_in_flight" not in page.names  # nobody is left who could tell
    assert page.value("infermeter_files_skipped") == 0
    assert page.value("infermeter_processes") == 1  # who reads this


def test_restarts_leave_no_files_behind(tmp_path: Path, scrape: Scrape) -> None:
    """However often workers restart, the folder stays small and the counters go on; reapers end in the middle too."""
    reader = recorder_in(tmp_path)
    most = 0
    for number in range(RESTARTS):

        def work() -> None:
            recorder = recorder_in(tmp_path)
            recorder.track(model="m", detections=lambda result: result)(lambda: ARRAY)()

        assert os.waitpid(start(work), 0)[1] == 0
        most = max(most, len(list(tmp_path.iterdir())))
        if number % 100 == 0:
            assert scrape(reader).value("inferences_total") == number + 1
    page = scrape(reader)
    assert [page.value("inferences_total"), page.value("detections_total")] == [RESTARTS, 2 * RESTARTS]
    assert most < 600
