"""Threads that record, scrape and fold at once: nothing lost, nothing doubled, every scrape consistent."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

import infermeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infermeter import Recorder
    from tests.instrumentation.conftest import NewRecorder, Scrape
    from tests.page import Page

THREADS = 16
CALLS = 1200
CONFIDENCES = np.array([0.2, 0.6, 0.97], np.float32)


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """Threads switch a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


def together(*jobs: Callable[[], object], meanwhile: tuple[Callable[[], object], ...] = ()) -> None:
    """Run each of `jobs` in a thread, all starting at once, and `meanwhile` again and again until they end."""
    start = threading.Barrier(len(jobs) + len(meanwhile))
    over = threading.Event()
    errors: list[BaseException] = []

    def run(job: Callable[[], object], *, again: bool) -> None:
        try:
            start.wait()
            job()
            while again and not over.is_set():
                job()
        except BaseException as error:
            errors.append(error)

    def spawn(job: Callable[[], object], *, again: bool) -> threading.Thread:
        thread = threading.Thread(target=run, args=(job,), kwargs={"again": again})
        thread.start()
        return thread

    watchers = [spawn(job, again=True) for job in meanwhile]
    workers = [spawn(job, again=False) for job in jobs]
    for thread in workers:
        thread.join()
    over.set()
    for thread in watchers:
        thread.join()
    assert errors == []


def consistent(page: Page, before: dict[tuple[str, tuple[str, ...]], float]) -> None:
    """Check one scrape by itself and against the samples of the one before, which it replaces."""
    # A Counter takes what is missing for 0: a series that is being announced may be there in part.
    models = Counter(page.by("model", "inferences_total"))
    assert Counter(page.by("model", "inference_duration_count")) == models
    assert Counter(page.by("model", "inference_duration_bucket", le="+Inf")) == models
    objects = page.by("model", "objects_per_frame_sum")
    detections: Counter[str] = Counter()
    for name, labels, value in page.samples:
        if name == "detections_total":
            detections[labels["model"]] += int(value)
        if name == "inferences_in_flight":
            assert value >= 0
        if name.endswith(("_total", "_count", "_bucket")):
            key = (name, tuple(labels.values()))
            assert value >= before.get(key, 0)
            before[key] = value
    assert detections == Counter(objects)


def work(recorder: Recorder) -> Callable[[], None]:
    """A thread's share: each kind of use CALLS times."""

    @recorder.track(model="function", detections=lambda result: result)
    def function() -> object:
        return CONFIDENCES

    @recorder.track(model="told")
    def told() -> None:
        infermeter.current().tokens(prompt=2, completion=3)
        infermeter.current().detections([0.5, 0.9], classes=["cat", "dog"])

    @recorder.track(model="fails")
    def fails() -> None:
        raise TimeoutError

    @recorder.track(model="items", stream="item")
    def items() -> Iterator[int]:
        yield from range(CALLS)

    bare = recorder.track(model="block")
    full = recorder.track(model="full block", names={0: "zero", 1: "one"})

    def run() -> None:
        for _ in items():
            function()
            told()
            with pytest.raises(TimeoutError):
                fails()
            with bare:
                pass
            with full as call:
                call.detections(CONFIDENCES, classes=[0, 1, 1])
                call.detections([])
                call.fallback()

    return run


def test_nothing_is_lost_or_doubled_while_one_scrapes_and_one_folds(recorder: Recorder, scrape: Scrape) -> None:
    """Every call of every kind from 16 threads is counted once, and every scrape on the way is consistent."""
    run = work(recorder)
    before: dict[tuple[str, tuple[str, ...]], float] = {}
    together(*[run] * THREADS, meanwhile=(lambda: consistent(scrape(recorder), before), recorder.fold))
    page = scrape(recorder)
    consistent(page, before)
    number = THREADS * CALLS
    models = ("function", "told", "fails", "items", "block", "full block")
    assert page.by("model", "inferences_total") == dict.fromkeys(models, number)
    assert page.by("model", "inferences_in_flight") == dict.fromkeys(models, 0)
    assert page.by("model", "detection_confidence_count") == {
        "function": 3 * number,
        "told": 2 * number,
        "full block": 3 * number,
    }
    assert page.by("model", "objects_per_frame_count") == {"function": number, "told": number, "full block": 2 * number}
    assert page.by("class", "detections_total", model="told") == {"cat": number, "dog": number}
    assert page.by("class", "detections_total", model="full block") == {"zero": number, "one": 2 * number}
    assert page.by("type", "inference_tokens_total", model="told") == {"prompt": 2 * number, "completion": 3 * number}
    assert page.value("model_fallback_total", model="full block") == number
    assert page.value("model_timeout_total", model="fails") == number
    assert page.by("error_type", "model_errors_total", model="fails")["timeout"] == number
    assert page.dropped() == {}


def test_a_series_is_bound_once_however_many_threads_begin_it(recorder: Recorder, scrape: Scrape) -> None:
    """Threads that meet at the first call of a model share its one series."""

    def begin() -> None:
        for number in range(300):
            with recorder.track(model=f"m{number % 30}", version=str(number % 3)) as call:
                call.tokens(prompt=1)

    together(*[begin] * THREADS)
    page = scrape(recorder)
    assert page.value("inferences_total") == THREADS * 300
    assert page.value("inference_tokens_total", type="prompt") == THREADS * 300
    assert page.value("inferences_in_flight") == 0


def test_blocks_that_end_in_other_threads_are_each_recorded_once(recorder: Recorder, scrape: Scrape) -> None:
    """As a web framework enters and leaves a dependency: in any thread of a pool, each in a context of its own."""
    track = recorder.track(model="m")
    number = 200

    def dependency() -> Iterator[None]:
        with track:
            yield

    opened = [[dependency() for _ in range(number)] for _ in range(THREADS)]
    for blocks in opened:
        for block in blocks:
            copy_context().run(next, block)
    assert scrape(recorder).value("inferences_in_flight") == THREADS * number

    def end(blocks: list[Iterator[None]]) -> None:
        for block in blocks:
            copy_context().run(next, block, None)

    together(*[partial(end, blocks) for blocks in opened])
    page = scrape(recorder)
    assert page.value("inferences_total") == THREADS * number
    assert page.value("inferences_in_flight") == 0


def test_a_model_never_vanishes_between_its_announcement_and_its_first_call(new_recorder: NewRecorder) -> None:
    """A scrape that meets the first call shows the zeros or the call, never a gap that hides the first event."""
    recorder = new_recorder(max_label_values=10_000, max_series=10_000)

    def nothing() -> None:
        pass

    functions = {f"m{number}": recorder.track(model=f"m{number}")(nothing) for number in range(1000)}
    shown: list[set[str]] = []

    def call_each() -> None:
        for function in reversed(functions.values()):
            function()

    def look() -> None:
        (metric,) = [metric for metric in recorder.collect() if metric.name == "inferences"]
        shown.append({sample.labels["model"] for sample in metric.samples})

    together(call_each, meanwhile=(look,))
    assert [functions.keys() - models for models in shown] == [set()] * len(shown)
