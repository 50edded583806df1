"""Tasks: each has its own open call, and cancelling, timing out and closing early are what they are called."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import infermeter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from infermeter import Call, Recorder
    from tests.instrumentation.conftest import Scrape

ZEROS = {"timeout": 0, "cuda_oom": 0, "cancelled": 0, "other": 0}


def test_each_of_thousands_of_tasks_has_its_own_call(recorder: Recorder, scrape: Scrape) -> None:
    """What a task reports, at any depth and after any number of switches, is counted for its own calls."""
    tasks, steps = 2000, 5
    inner = recorder.track(model="inner")

    @recorder.track(model="outer")
    async def infer(number: int) -> int:
        mine = infermeter.current()
        for _ in range(steps):
            await asyncio.sleep(0)
            assert infermeter.current() is mine
            with inner as block:
                await asyncio.sleep(0)
                assert infermeter.current() is block
                infermeter.current().tokens(completion=number)
        infermeter.current().tokens(prompt=number)
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*map(infer, range(tasks)))

    assert asyncio.run(main()) == list(range(tasks))
    page = scrape(recorder)
    total = sum(range(tasks))
    assert page.by("model", "inferences_total") == {"outer": tasks, "inner": tasks * steps}
    assert page.by("model", "inferences_in_flight") == {"outer": 0, "inner": 0}
    assert page.by("type", "inference_tokens_total", model="outer") == {"prompt": total, "completion": 0}
    assert page.by("type", "inference_tokens_total", model="inner") == {"prompt": 0, "completion": total * steps}


def test_all_tasks_are_in_flight_while_they_wait(recorder: Recorder, scrape: Scrape) -> None:
    """The gauge counts the calls that began and did not end, however they interleave."""

    @recorder.track(model="m")
    async def infer(door: asyncio.Event) -> None:
        await door.wait()

    async def main() -> float:
        door = asyncio.Event()
        tasks = [asyncio.create_task(infer(door)) for _ in range(1000)]
        await asyncio.sleep(0)
        waiting = scrape(recorder).value("inferences_in_flight")
        door.set()
        await asyncio.gather(*tasks)
        return waiting

    assert asyncio.run(main()) == 1000
    assert scrape(recorder).value("inferences_in_flight") == 0


def test_a_task_sees_the_call_it_was_born_in_until_that_ends(recorder: Recorder, scrape: Scrape) -> None:
    """A finished parent is no parent: what a task reports after it is ignored, and not even counted as late."""
    seen: list[Call] = []

    async def child(parent_ended: asyncio.Event) -> None:
        seen.append(infermeter.current())
        infermeter.current().tokens(prompt=1)
        await parent_ended.wait()
        seen.append(infermeter.current())
        infermeter.current().tokens(prompt=100)

    async def main() -> Call:
        parent_ended = asyncio.Event()
        with recorder.track(model="parent") as parent:
            task = asyncio.create_task(child(parent_ended))
            await asyncio.sleep(0)
        parent_ended.set()
        await task
        return parent

    parent = asyncio.run(main())
    assert seen == [parent, infermeter.current()]
    page = scrape(recorder)
    assert page.value("inference_tokens_total", type="prompt") == 1
    assert page.dropped() == {}


def test_a_task_born_in_a_call_that_ended_falls_back_to_the_enclosing_one(recorder: Recorder) -> None:
    """The call around the finished one is open still, so it is the current one."""

    async def main() -> tuple[Call, Call]:
        ended = asyncio.Event()

        async def child() -> Call:
            await ended.wait()
            return infermeter.current()

        with recorder.track(model="outer") as outer:
            with recorder.track(model="inner"):
                task = asyncio.create_task(child())
                await asyncio.sleep(0)
            ended.set()
            return outer, await task

    outer, seen = asyncio.run(main())
    assert seen is outer


def test_cancelling_is_neither_failure_nor_timeout(recorder: Recorder, scrape: Scrape) -> None:
    """A cancelled task counts as an inference and as `cancelled`, and stays cancelled."""

    @recorder.track(model="m", detections=lambda _: [0.5])
    async def infer() -> None:
        infermeter.current().detections([0.9])
        await asyncio.Event().wait()

    async def main() -> list[BaseException | None]:
        tasks = [asyncio.create_task(infer()) for _ in range(100)]
        await asyncio.sleep(0)
        assert all(task.cancel() for task in tasks)
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(outcome) for outcome in asyncio.run(main())} == {asyncio.CancelledError}
    page = scrape(recorder)
    assert page.value("inferences_total") == page.value("inference_duration_count") == 100
    assert page.by("error_type", "model_errors_total") == ZEROS | {"cancelled": 100}
    assert page.value("model_timeout_total") == 0
    assert page.value("objects_per_frame_count") == 0
    assert page.value("inferences_in_flight") == 0


def test_a_task_cancelled_before_it_began_is_no_inference(recorder: Recorder, scrape: Scrape) -> None:
    """Nothing ran, so nothing is counted."""

    @recorder.track(model="m")
    async def infer() -> None:
        raise AssertionError

    async def main() -> None:
        task = asyncio.create_task(infer())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert scrape(recorder).value("inferences_total") == 0


def test_a_timeout_counts_in_both_families(recorder: Recorder, scrape: Scrape) -> None:
    """asyncio.timeout inside the call, and a TimeoutError of its own making, are timeouts."""

    @recorder.track(model="m")
    async def expires() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @recorder.track(model="m")
    async def raises() -> None:
        raise TimeoutError

    for infer in (expires, raises):
        with pytest.raises(TimeoutError):
            asyncio.run(infer())
    page = scrape(recorder)
    assert page.by("error_type", "model_errors_total") == ZEROS | {"timeout": 2}
    assert page.value("model_timeout_total") == 2


def test_a_timeout_around_the_call_cancels_it(recorder: Recorder, scrape: Scrape) -> None:
    """The call sees a cancellation, the caller its timeout."""

    @recorder.track(model="m")
    async def infer() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await infer()

    asyncio.run(main())
    assert scrape(recorder).by("error_type", "model_errors_total") == ZEROS | {"cancelled": 1}


def test_closing_an_async_generator_early_is_success(recorder: Recorder, scrape: Scrape) -> None:
    """Left with `break`, closed by another task, or abandoned: each is one inference without an error."""
    closed: list[str] = []

    @recorder.track(model="m")
    async def stream(name: str) -> AsyncGenerator[int]:
        try:
            for number in range(10):
                infermeter.current().tokens(completion=1)
                yield number
        finally:
            closed.append(name)

    async def main() -> None:
        async with aclosing(stream("break")) as items:
            async for _ in items:
                break
        elsewhere = stream("task")
        await anext(elsewhere)
        await asyncio.create_task(elsewhere.aclose())
        async for _ in stream("abandoned"):
            break
        while "abandoned" not in closed:
            gc.collect()
            await asyncio.sleep(0)
        await stream("never begun").aclose()

    asyncio.run(main())
    assert closed == ["break", "task", "abandoned"]
    page = scrape(recorder)
    assert page.value("inferences_total") == 3
    assert page.by("error_type", "model_errors_total") == ZEROS
    assert page.value("inference_tokens_total", type="completion") == 3
    assert page.value("inference_time_to_first_item_seconds_count") == 3
    assert page.value("inferences_in_flight") == 0


def test_the_consumer_of_an_async_generator_is_outside_its_call(recorder: Recorder) -> None:
    """The call is the current one while a step runs, in whatever task, and not between the steps."""
    inside: list[Call] = []
    outside: list[Call] = []

    @recorder.track(model="m")
    async def stream() -> AsyncGenerator[int]:
        for number in range(3):
            inside.append(infermeter.current())
            await asyncio.sleep(0)
            inside.append(infermeter.current())
            yield number

    async def main() -> None:
        items = stream()
        for _ in range(3):
            await asyncio.create_task(anext(items))
            outside.append(infermeter.current())
        await items.aclose()

    asyncio.run(main())
    assert inside == [inside[0]] * 6
    assert inside[0] is not infermeter.current()
    assert outside == [infermeter.current()] * 3


def test_a_block_closed_in_another_context_is_recorded_once(recorder: Recorder, scrape: Scrape) -> None:
    """As a test fixture does: the block is entered in one task and left in another."""
    track = recorder.track(model="m")

    @asynccontextmanager
    async def fixture() -> AsyncIterator[Call]:
        with track as call:
            yield call

    async def main() -> None:
        contexts = [fixture() for _ in range(5)]
        for context in contexts:
            call = await asyncio.create_task(context.__aenter__())
            call.tokens(prompt=1)
        for context in contexts:
            await asyncio.create_task(context.__aexit__(None, None, None))

    asyncio.run(main())
    page = scrape(recorder)
    assert page.value("inferences_total") == page.value("inference_tokens_total", type="prompt") == 5
    assert page.value("inferences_in_flight") == 0


def test_an_exception_in_an_async_generator_is_counted_once_and_passed_on(recorder: Recorder, scrape: Scrape) -> None:
    """The very object that the generator raised reaches the consumer."""
    error = LookupError("no such token")

    @recorder.track(model="m")
    async def stream() -> AsyncGenerator[int]:
        yield 1
        raise error

    async def main() -> None:
        items = stream()
        assert await anext(items) == 1
        with pytest.raises(LookupError) as caught:
            await anext(items)
        assert caught.value is error

    asyncio.run(main())
    assert scrape(recorder).by("error_type", "model_errors_total") == ZEROS | {"LookupError": 1}
