"""A generator is one inference, or each of its items is; its clock stands still while the consumer works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import infermeter

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from infermeter import Call, Recorder
    from tests.instrumentation.conftest import Scrape

ZEROS = {"timeout": 0, "cuda_oom": 0, "cancelled": 0, "other": 0}


def test_a_generator_is_one_inference(recorder: Recorder, scrape: Scrape) -> None:
    """However many items it gives, with the facts of all its steps and the detections of all its items."""

    @recorder.track(model="m", detections=lambda item: [item])
    def stream() -> Generator[float, None, str]:
        for _ in range(10):
            infermeter.current().tokens(completion=1)
            yield 0.5
        return "stop"

    def consume() -> Generator[float, None, str]:
        return (yield from stream())

    items = consume()
    assert [next(items) for _ in range(10)] == [0.5] * 10
    with pytest.raises(StopIteration, match="stop"):
        next(items)
    page = scrape(recorder)
    assert page.value("inferences_total") == page.value("inference_duration_count") == 1
    assert page.value("inference_tokens_total", type="completion") == 10
    assert page.value("objects_per_frame_count") == page.value("detection_confidence_count") == 10
    assert page.value("inference_time_to_first_item_seconds_count") == 1


def test_with_stream_item_each_item_is_an_inference(recorder: Recorder, scrape: Scrape) -> None:
    """The end of the generator is none, and there is no first item to wait for."""

    @recorder.track(model="m", detections=lambda item: [item], stream="item")
    def stream() -> Iterator[float]:
        for _ in range(10):
            infermeter.current().tokens(completion=1)
            yield 0.5

    assert list(stream()) == [0.5] * 10
    assert list(zip(stream(), range(3), strict=False)) == [(0.5, 0), (0.5, 1), (0.5, 2)]
    page = scrape(recorder)
    assert page.value("inferences_total") == 10 + 4  # zip takes one more than it can use
    assert page.value("inference_tokens_total", type="completion") == 14
    assert page.value("objects_per_frame_count") == 14
    assert page.value("inferences_in_flight") == 0
    assert "inference_time_to_first_item_seconds_count" not in page.names


def test_the_time_of_the_consumer_is_not_that_of_the_generator(recorder: Recorder, scrape: Scrape) -> None:
    """The clock of the generator and that of its consumer add up to the time that passed."""

    def work(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    @recorder.track(model="m")
    def stream() -> Iterator[int]:
        for number in range(5):
            work(0.01)
            yield number

    consumed = 0.0
    began = time.perf_counter()
    for _ in stream():
        started = time.perf_counter()
        work(0.05)
        consumed += time.perf_counter() - started
    passed = time.perf_counter() - began
    page = scrape(recorder)
    assert 5 * 0.01 <= page.value("inference_duration_sum") <= passed - consumed
    assert 0.01 <= page.value("inference_time_to_first_item_seconds_sum") < page.value("inference_duration_sum")


def test_a_generator_that_gives_nothing_has_no_first_item(recorder: Recorder, scrape: Scrape) -> None:
    """It is an inference all the same; one that was never begun is none."""

    @recorder.track(model="m")
    def stream() -> Iterator[int]:
        yield from ()

    stream()
    assert list(stream()) == []
    page = scrape(recorder)
    assert page.value("inferences_total") == 1
    assert "inference_time_to_first_item_seconds_count" not in page.names


@pytest.mark.parametrize("abandon", ["close", "break", "del"])
def test_closing_early_is_success(recorder: Recorder, scrape: Scrape, abandon: str) -> None:
    """Closed, left by `break`, or dropped: one inference without an error, and the generator cleans up."""
    cleaned = []

    @recorder.track(model="m", detections=lambda item: [item])
    def stream() -> Iterator[float]:
        try:
            while True:
                yield 0.5
        finally:
            cleaned.append(abandon)

    items = stream()
    for _ in items:
        if abandon == "break":
            break
        next(items)
        if abandon == "close":
            items.close()  # type: ignore[attr-defined]
        break
    del items
    assert cleaned == [abandon]
    page = scrape(recorder)
    assert page.value("inferences_total") == 1
    assert page.by("error_type", "model_errors_total") == ZEROS
    assert page.value("objects_per_frame_count") == (1 if abandon == "break" else 2)
    assert page.value("inferences_in_flight") == 0


@pytest.mark.parametrize("stream", ["call", "item"])
def test_an_error_is_counted_once_and_is_the_same_object(recorder: Recorder, scrape: Scrape, stream: str) -> None:
    """The detections of a stream that failed do not count; those of items that were inferences before it do."""
    error = LookupError("no such frame")

    @recorder.track(model="m", detections=lambda item: [item], stream=stream)  # type: ignore[arg-type]
    def frames() -> Iterator[float]:
        yield 0.5
        yield 0.6
        raise error

    items = frames()
    assert [next(items), next(items)] == [0.5, 0.6]
    with pytest.raises(LookupError) as caught:
        next(items)
    assert caught.value is error
    page = scrape(recorder)
    assert page.value("inferences_total") == (1 if stream == "call" else 3)
    assert page.by("error_type", "model_errors_total") == ZEROS | {"LookupError": 1}
    counted = page.value("objects_per_frame_count") if "objects_per_frame_count" in page.names else 0
    assert counted == (0 if stream == "call" else 2)


def test_the_call_of_a_generator_is_current_only_while_it_runs(recorder: Recorder) -> None:
    """Between its steps the consumer is in its own call, or in none."""
    inside: list[Call] = []

    @recorder.track(model="stream")
    def stream() -> Iterator[int]:
        for number in range(3):
            inside.append(infermeter.current())
            yield number

    none = infermeter.current()
    with recorder.track(model="consumer") as consumer:
        for _ in stream():
            assert infermeter.current() is consumer
    for _ in stream():
        assert infermeter.current() is none
    assert inside[0] is inside[1] is inside[2] is not consumer
    assert inside[3] is inside[4] is inside[5] is not inside[0]


def test_a_step_is_inside_the_call_of_its_generator_whoever_asks_for_it(recorder: Recorder, scrape: Scrape) -> None:
    """Also when a function that is watched itself, and began later, takes the next item."""

    @recorder.track(model="stream")
    def stream() -> Iterator[int]:
        for number in range(3):
            infermeter.current().fallback()
            yield number

    items = stream()

    @recorder.track(model="function")
    def function() -> int:
        return next(items)

    assert [next(items), function(), function(), *items] == [0, 1, 2]
    assert scrape(recorder).by("model", "model_fallback_total") == {"stream": 3, "function": 0}


def test_interleaved_generators_are_counted_apart(recorder: Recorder, scrape: Scrape) -> None:
    """Two streams that take turns each keep their own facts."""

    @recorder.track(model="m")
    def stream(number: int) -> Iterator[Call]:
        for _ in range(5):
            infermeter.current().tokens(prompt=number)
            yield infermeter.current()

    pairs = list(zip(stream(1), stream(100), strict=True))
    assert len({first for first, _ in pairs}) == len({second for _, second in pairs}) == 1
    page = scrape(recorder)
    assert page.value("inferences_total") == 2
    assert page.value("inference_tokens_total", type="prompt") == 505


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_blocks_in_interleaved_generators_end_in_any_order(
    recorder: Recorder, scrape: Scrape, *, same: bool, first: int
) -> None:
    """Each is recorded exactly once, and the call around them is the current one before and after."""
    models = ["a", "a" if same else "b"]

    def block(model: str) -> Iterator[Call]:
        with recorder.track(model=model) as call:
            yield call

    with recorder.track(model="outer") as outer:
        open_blocks = [block(model) for model in models]
        calls = [next(one) for one in open_blocks]
        assert calls[0] is not calls[1]
        for call in calls:
            call.tokens(prompt=1)
        assert [*open_blocks[first], *open_blocks[1 - first]] == []
        assert infermeter.current() is outer
    assert infermeter.current() is not outer
    page = scrape(recorder)
    assert page.by("model", "inferences_total") == ({"outer": 1, "a": 2} if same else {"outer": 1, "a": 1, "b": 1})
    assert page.value("inferences_in_flight") == 0
    assert page.value("inference_tokens_total", type="prompt") == 2


def test_a_block_in_a_generator_that_is_closed_early_was_cancelled(recorder: Recorder, scrape: Scrape) -> None:
    """The block sees a GeneratorExit: its caller went away."""

    def stream() -> Iterator[int]:
        with recorder.track(model="m"):
            yield 1

    for _ in stream():
        break
    assert scrape(recorder).by("error_type", "model_errors_total") == ZEROS | {"cancelled": 1}


def test_a_generator_inside_a_generator_is_an_inference_of_its_own(recorder: Recorder, scrape: Scrape) -> None:
    """An explicit track always records, also inside another."""

    @recorder.track(model="inner")
    def inner() -> Iterator[int]:
        infermeter.current().tokens(prompt=1)
        yield 1
        infermeter.current().tokens(prompt=1)

    @recorder.track(model="outer")
    def outer() -> Iterator[int]:
        infermeter.current().tokens(prompt=10)
        yield from inner()
        infermeter.current().tokens(prompt=10)

    assert list(outer()) == [1]
    page = scrape(recorder)
    assert page.by("model", "inferences_total") == {"outer": 1, "inner": 1}
    assert page.by("model", "inference_tokens_total", type="prompt") == {"outer": 20, "inner": 2}


def test_an_item_is_not_kept_alive_once_it_was_consumed(recorder: Recorder) -> None:
    """A frame that the consumer dropped is freed before the next one is made, as with the bare generator."""

    class Image:
        alive = 0

        def __init__(self) -> None:
            Image.alive += 1

        def __del__(self) -> None:
            Image.alive -= 1

    def stream() -> Iterator[Image]:
        for _ in range(3):
            alive.append(Image.alive)
            yield Image()

    for make in (stream, recorder.track(model="m")(stream)):
        alive: list[int] = []
        items = make()
        for _ in range(3):
            next(items)
        assert alive == [0, 0, 0]
