"""What waits for a fold, and what is kept for ever, stays bounded whatever a service does and whoever scrapes it."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import infermeter
from infermeter import CostModel, Recorder
from infermeter.observation import FLOATS, OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.instrumentation.conftest import Scrape

MOST_RECORDS = 256 + 1
MOST_BYTES = 8 * 2**20


def waiting(recorder: Recorder) -> int:
    """The most records that wait in a list of one series, or in that of the recorder; a record notes three things."""
    per_series = [length for series in recorder.series.values() for length in (len(series.bare), len(series.full) // 7)]
    return max([*per_series, len(recorder._notes) // 3])


def payload(recorder: Recorder) -> int:
    """The bytes of confidences and classes that wait; a float in a tuple has 32, a name 8, because names are shared."""
    records = [series.full[at : at + 7] for series in recorder.series.values() for at in range(0, len(series.full), 7)]
    frames = [record[1:5] for record in records]
    frames += [frame[:4] for record in records if record[6] is not None for frame in record[6].frames or ()]
    return sum(
        len(confidences or "") * (32 if dtype == FLOATS else 1) + len(classes or "") * (8 if kind == OBJECTS else 1)
        for dtype, confidences, kind, classes in frames
    )


def extractor_that_raises(recorder: Recorder) -> Iterator[None]:
    infer = recorder.track(model="m", detections=lambda result: result.boxes)(lambda: 1)
    while True:
        infer()
        yield


def late_facts(recorder: Recorder) -> Iterator[None]:
    with recorder.track(model="m") as call:
        pass
    while True:
        call.fallback()
        yield


def negative_facts(recorder: Recorder) -> Iterator[None]:
    with recorder.track(model="m") as call:
        while True:
            call.tokens(prompt=-1)
            yield


def new_labels(recorder: Recorder) -> Iterator[None]:
    for number in range(10**9):
        with recorder.track(model=f"request {number}", version=f"{number}"):
            yield


def items(recorder: Recorder) -> Iterator[object]:
    def numbers() -> Iterator[int]:
        yield from range(10**9)

    return recorder.track(model="m", stream="item")(numbers)()


def failures(recorder: Recorder) -> Iterator[None]:
    @recorder.track(model="m")
    def infer() -> None:
        raise LookupError

    while True:
        with pytest.raises(LookupError):
            infer()
        yield


def current_facts(recorder: Recorder) -> Iterator[None]:
    infer = recorder.track(model="m")(lambda: infermeter.current().tokens(prompt=1))
    while True:
        infer()
        yield


SOURCES = [extractor_that_raises, late_facts, negative_facts, new_labels, items, failures, current_facts]


@pytest.mark.parametrize("source", SOURCES)
def test_records_are_folded_before_they_pile_up(recorder: Recorder, source: Any) -> None:
    """A loop that is faster than the timer leaves some 256 records at a time, of whatever kind."""
    turns = source(recorder)
    most = 0
    for _ in range(2000):
        next(turns)
        most = max(most, waiting(recorder))
    assert most <= MOST_RECORDS


@pytest.mark.parametrize("length", [128, 2000, 60_000])
@pytest.mark.parametrize("frames", [1, 40])
@pytest.mark.parametrize("classes", ["none", "int64", "names"])
def test_payloads_wait_in_eight_mebibytes(recorder: Recorder, length: int, frames: int, classes: str) -> None:
    """Confidences and classes, however they are spread over calls and frames."""
    confidences = np.full(length, 0.5, np.float32)
    given: Any = {"none": None, "int64": np.zeros(length, np.int64), "names": ["cat"] * length}[classes]
    track = recorder.track(model="m")
    most = 0
    for turn in range(min(256, 24 * MOST_BYTES // (12 * length * frames))):
        with track as call:
            for _ in range(frames):
                call.detections(confidences, given)
        if turn % 4 == 3:
            most = max(most, payload(recorder))
    assert most <= MOST_BYTES + 4 * frames * 12 * length


def test_the_clock_folds_what_waits_though_nobody_scrapes(recorder: Recorder) -> None:
    """Within seconds after the last call nothing waits any more."""
    with recorder.track(model="m") as call:
        call.detections([0.5])
    (series,) = recorder.series.values()
    while series.waits():
        gc.collect()  # not a sleep: the timer must get its turn among busy threads
    assert series.totals.value("inferences_total") == 1


def test_model_names_without_end_are_not_kept(recorder: Recorder, scrape: Scrape) -> None:
    """Request ids as names of models and classes, with prices and decorated functions, take bounded room."""
    tables: dict[str, int] = {}
    cost = CostModel(usd_per_hour=1)
    for number in range(20_000):
        model = f"request {number}"
        with recorder.track(model=model, cost=cost, names=["cat"]) as call:
            call.detections([0.5], classes=[model])
        if number % 10 == 0:
            recorder.track(model=f"declared {number}")(lambda: None)
        if number in {9_999, 19_999}:
            scrape(recorder)
            tables |= {
                f"{name} {number}": len(value) for name, value in vars(recorder).items() if hasattr(value, "__len__")
            }
    assert {name: length for name, length in tables.items() if length > 2100} == {}


def test_nothing_of_a_call_is_kept(recorder: Recorder) -> None:
    """Arguments and results are free once the call is over, whether it failed or not."""

    class Image:
        pass

    seen: list[weakref.ref[Image]] = []

    def extract(image: Image) -> list[float]:
        infermeter.current().tokens(completion=1)
        return [0.5]

    @recorder.track(model="m", detections=extract)
    def infer(image: Image, *, fail: bool) -> Image:
        seen.append(weakref.ref(image))
        infermeter.current().tokens(prompt=1)
        if fail:
            raise LookupError
        return image

    for fail in (False, True):
        infer(Image(), fail=False)
        if fail:
            with pytest.raises(LookupError):
                infer(Image(), fail=True)
    recorder.fold()
    gc.collect()
    assert [image() for image in seen] == [None, None, None]


def test_recorders_are_freed() -> None:
    """A recorder that nobody holds goes, with its registry and its series, though its timer runs."""
    recorder = Recorder(registry=CollectorRegistry(), service="test")
    reference = weakref.ref(recorder)
    with recorder.track(model="m"):
        pass
    del recorder
    while reference() is not None:
        gc.collect()  # the timer holds it for the moment in which it folds
