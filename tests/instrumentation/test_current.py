"""Finding the open call from code inside it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import infermeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infermeter import Recorder
    from tests.instrumentation.conftest import Scrape


def report(tokens: int = 1) -> None:
    """A helper somewhere below a tracked call."""
    infermeter.current().tokens(prompt=tokens)


def deep(levels: int) -> None:
    """The same, further below."""
    if levels:
        deep(levels - 1)
    else:
        report()


def prompts(recorder: Recorder, scrape: Scrape) -> dict[str, float]:
    """Prompt tokens by model."""
    return scrape(recorder).by("model", "inference_tokens_total", type="prompt")


def test_outside_any_call_reports_are_ignored(recorder: Recorder, scrape: Scrape) -> None:
    """Every method of what `current` gives there does nothing, and nothing is counted as dropped."""
    call = infermeter.current()
    call.detections([0.5], classes=[0])
    call.batch_size(1)
    call.input_size(1)
    call.tokens(prompt=1)
    call.fallback()
    assert scrape(recorder).dropped() == {}
    assert infermeter.current() is call


def test_helpers_find_the_decorated_call(recorder: Recorder, scrape: Scrape) -> None:
    """However deep below it."""
    recorder.track(model="m")(deep)(50)
    assert prompts(recorder, scrape) == {"m": 1}


def test_current_is_the_call_of_the_with_block(recorder: Recorder) -> None:
    """The very same object."""
    with recorder.track(model="m") as call:
        assert infermeter.current() is call


def test_repeated_questions_get_the_same_call(recorder: Recorder, scrape: Scrape) -> None:
    """Reports of several helpers add up in one inference."""

    @recorder.track(model="m")
    def infer() -> None:
        assert infermeter.current() is infermeter.current()
        report(2)
        report(3)

    infer()
    assert prompts(recorder, scrape) == {"m": 5}


def test_the_innermost_call_wins(recorder: Recorder, scrape: Scrape) -> None:
    """Decorated in `with`, `with` in decorated, decorated in decorated; the outer one is back afterwards."""

    @recorder.track(model="inner")
    def inner() -> None:
        report(1)

    @recorder.track(model="outer")
    def outer() -> None:
        report(10)
        inner()
        report(10)
        with recorder.track(model="block"):
            report(100)
            inner()
            report(100)
        report(10)

    with recorder.track(model="around"):
        report(1000)
        outer()
        report(1000)
    assert prompts(recorder, scrape) == {"inner": 2, "outer": 30, "block": 200, "around": 2000}


def test_recursion_reports_to_its_own_level(recorder: Recorder, scrape: Scrape) -> None:
    """Each level is an inference with its own facts."""

    @recorder.track(model="m")
    def infer(level: int) -> None:
        if level:
            infer(level - 1)
        infermeter.current().batch_size(2**level)

    infer(3)
    page = scrape(recorder)
    assert page.value("inferences_total") == 4
    assert page.by("le", "inference_batch_size_bucket")["4.0"] == 3
    assert page.value("inference_batch_size_sum") == 15


def test_another_thread_is_outside(recorder: Recorder, scrape: Scrape) -> None:
    """A thread that a tracked call starts has no call of its own."""

    @recorder.track(model="m")
    def infer() -> None:
        thread = threading.Thread(target=report)
        thread.start()
        thread.join()

    infer()
    assert prompts(recorder, scrape) == {"m": 0}


def test_threads_of_one_function_report_to_their_own_call(recorder: Recorder, scrape: Scrape) -> None:
    """All are open at once."""
    together = threading.Barrier(8)

    @recorder.track(model="m")
    def infer(number: int) -> None:
        together.wait()
        infermeter.current().input_size(number)
        together.wait()
        infermeter.current().batch_size(number)

    threads = [threading.Thread(target=infer, args=(1 + number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = scrape(recorder)
    assert page.value("inference_input_size_bytes_sum") == 36
    assert page.value("inference_batch_size_sum") == 36
    assert page.value("inference_batch_size_count") == 8


def test_reports_to_an_ended_call_are_late(recorder: Recorder, scrape: Scrape) -> None:
    """They are counted as dropped, for `with` blocks and for decorated functions."""

    @recorder.track(model="m")
    def infer() -> infermeter.Call:
        return infermeter.current()

    with recorder.track(model="m") as call:
        pass
    for ended in (call, infer()):
        ended.tokens(prompt=1)
        ended.detections([0.5])
    page = scrape(recorder)
    assert page.dropped() == {"late": 4}
    assert page.value("inference_tokens_total", type="prompt") == 0


def test_reports_of_a_failed_call_count(recorder: Recorder, scrape: Scrape) -> None:
    """Tokens were used, whatever came of them."""

    @recorder.track(model="m")
    def infer() -> None:
        report(7)
        raise LookupError

    try:
        infer()
    except LookupError:
        pass
    page = scrape(recorder)
    assert page.value("inference_tokens_total", type="prompt") == 7
    assert page.by("error_type", "model_errors_total")["LookupError"] == 1
    assert page.value("inferences_total") == 1


def test_the_reader_of_results_is_still_inside(recorder: Recorder, scrape: Scrape) -> None:
    """`detections=` may report more than detections, also when it raises in the end."""

    def read(result: list[float]) -> list[float]:
        report(len(result))
        if not result:
            raise LookupError
        return result

    infer: Callable[[list[float]], list[float]] = recorder.track(model="m", detections=read)(lambda frame: frame)
    for frame in ([0.5, 0.5], [], [0.5]):
        assert infer(frame) is frame
    page = scrape(recorder)
    assert page.value("inference_tokens_total", type="prompt") == 3
    assert page.value("objects_per_frame_count") == 2
    assert page.dropped() == {"extractor_error": 1}
    assert [len(series.on_stack_calls) for series in recorder.series.values()] == [0]


def test_a_loop_inside_a_plain_function(recorder: Recorder, scrape: Scrape) -> None:
    """Tasks of an event loop that runs inside a tracked function report to it, or to a call of their own."""

    @recorder.track(model="task")
    async def task() -> None:
        await asyncio.sleep(0)
        report(1)

    async def plain() -> None:
        await asyncio.sleep(0)
        report(10)

    async def both() -> None:
        await asyncio.gather(task(), plain(), task())

    @recorder.track(model="m")
    def infer() -> None:
        asyncio.run(both())

    infer()
    assert prompts(recorder, scrape) == {"m": 10, "task": 2}


def test_to_thread_keeps_the_call_of_a_coroutine(recorder: Recorder, scrape: Scrape) -> None:
    """`asyncio.to_thread` copies the context, and the call with it."""

    @recorder.track(model="m")
    async def infer() -> None:
        await asyncio.to_thread(report, 5)

    asyncio.run(infer())
    assert prompts(recorder, scrape) == {"m": 5}


def test_a_generator_body_is_inside_and_its_consumer_is_not(recorder: Recorder, scrape: Scrape) -> None:
    """Between two steps the call is not current."""

    @recorder.track(model="m")
    def stream() -> Iterator[int]:
        report(1)
        yield 1
        report(10)

    for _ in stream():
        report(100)
    assert prompts(recorder, scrape) == {"m": 11}
