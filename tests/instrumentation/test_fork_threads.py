"""Forks of a process whose threads record all the while: nothing hangs, and everything is counted once."""

from __future__ import annotations

import random
import sys
import threading
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Self

import pytest

import infermeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infermeter import Recorder
    from tests.instrumentation.conftest import InChild, Scrape

pytestmark = pytest.mark.alone


class Busy:
    """Threads that record as fast as they can until the `with` block ends, and count what they did."""

    def __init__(self, *jobs: Callable[[], str]) -> None:
        self.truth: Counter[str] = Counter()
        self._jobs = jobs
        self._over = threading.Event()
        self._begun = threading.Barrier(len(jobs) + 1)
        self._threads = [threading.Thread(target=self._run, args=(job,)) for job in jobs]

    def _run(self, job: Callable[[], str]) -> None:
        done: Counter[str] = Counter()
        self._begun.wait()
        while not self._over.is_set():
            done[job()] += 1
        self.truth.update(done)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def jobs(recorder: Recorder) -> Iterator[Callable[[], str]]:
    """One way to record for each thread."""
    block = recorder.track(model="block")
    detect = recorder.track(model="function", detections=lambda result: result)(lambda: [0.5])

    @recorder.track(model="stream")
    def stream() -> Iterator[int]:
        infermeter.current().tokens(completion=1)
        yield 1

    def use_block() -> str:
        with block as call:
            call.tokens(prompt=1)
        return "block"

    def use_function() -> str:
        detect()
        return "function"

    def use_stream() -> str:
        list(stream())
        return "stream"

    def use_new_label() -> str:
        with recorder.track(model=f"new {random.randrange(10**9)}"):
            return "new"

    return iter((use_block, use_function, use_stream, use_new_label))


def totals(recorder: Recorder, scrape: Scrape) -> Counter[str]:
    """Inferences by model; most of the new labels are beyond the limit."""
    found: Counter[str] = Counter()
    for model, number in scrape(recorder).by("model", "inferences_total").items():
        found["new" if model == "_other" else model.split()[0]] += int(number)
    return found


def test_parent_and_children_count_everything_once_while_threads_record(
    in_child: InChild, recorder: Recorder, scrape: Scrape
) -> None:
    """Fifty forks amid threads that record and that bind new labels: each child counts its own, the parent its own."""
    again = list(jobs(recorder))

    def child() -> dict[str, int]:
        for number, job in enumerate(again, 1):
            for _ in range(10 * number):
                job()
        return dict(totals(recorder, scrape))

    first = Counter(job() for job in again)  # before the new labels reach the limit
    with Busy(*jobs(recorder)) as busy:
        children = [in_child(child) for _ in range(50)]
    assert children == [{"block": 10, "function": 20, "stream": 30, "new": 40}] * 50
    assert totals(recorder, scrape) == busy.truth + first
    assert scrape(recorder).value("inferences_in_flight") == 0


def test_threads_that_fork_at_once_leave_the_parent_able_to_fold(
    in_child: InChild, recorder: Recorder, scrape: Scrape
) -> None:
    """What one fork holds while it happens, another that begins or ends meanwhile must not lose."""
    errors: list[BaseException] = []

    def fork_often() -> None:
        try:
            for _ in range(40):
                with recorder.track(model="m"):
                    pass
                assert in_child(lambda: totals(recorder, scrape)) == {}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fork_often) for _ in range(8)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # those of the threads nest in this one
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.setswitchinterval(usual)
    assert errors == []
    assert not recorder.lock.locked()
    assert scrape(recorder).value("inferences_total") == 320
