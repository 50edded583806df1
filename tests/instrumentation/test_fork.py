"""Parent and child together count everything once: the parent what was before the fork, each what it did itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import warnings
from typing import TYPE_CHECKING

import pytest

import infermeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from infermeter import Recorder
    from tests.instrumentation.conftest import InChild, OnBothSides, RunPython, Scrape

    Scenario = Callable[[Recorder, Callable[[], None]], None]

pytestmark = pytest.mark.alone


def in_a_block(recorder: Recorder, fork: Callable[[], None]) -> None:
    with recorder.track(model="m") as call:
        fork()
        call.tokens(prompt=1)


def in_a_function(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="m")
    def infer() -> None:
        fork()
        infermeter.current().tokens(prompt=1)

    infer()


def in_a_function_that_reported(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="m")
    def infer() -> None:
        infermeter.current().tokens(prompt=1)
        fork()

    infer()


def in_a_generator(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="m")
    def infer() -> Iterator[int]:
        infermeter.current().tokens(prompt=1)
        yield 1
        fork()
        yield 2

    assert list(infer()) == [1, 2]


def between_two_items(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="m")
    def infer() -> Iterator[int]:
        yield 1
        infermeter.current().tokens(prompt=1)
        yield 2

    items = infer()
    next(items)
    fork()
    assert list(items) == [2]


def in_a_coroutine(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="m")
    async def infer() -> None:
        fork()
        infermeter.current().tokens(prompt=1)

    asyncio.run(infer())


def in_a_call_that_fails(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="m")
    def infer() -> None:
        infermeter.current().tokens(prompt=1)
        fork()
        raise LookupError

    with pytest.raises(LookupError):
        infer()


def in_nested_calls(recorder: Recorder, fork: Callable[[], None]) -> None:
    @recorder.track(model="around", detections=lambda _: [0.5])
    def infer() -> None:
        in_a_block(recorder, fork)

    with recorder.track(model="around"):
        infer()


SCENARIOS: list[Scenario] = [
    in_a_block,
    in_a_function,
    in_a_function_that_reported,
    in_a_generator,
    between_two_items,
    in_a_coroutine,
    in_a_call_that_fails,
    in_nested_calls,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_call_that_is_open_at_the_fork_belongs_to_the_parent(
    on_both_sides: OnBothSides, recorder: Recorder, scrape: Scrape, scenario: Scenario
) -> None:
    """The parent counts it once and the child not at all, though both run it to its end; both go on recording."""

    def run(fork: Callable[[], None]) -> list[float]:
        with recorder.track(model="m") as call:
            call.tokens(prompt=100)
        scenario(recorder, fork)
        with recorder.track(model="m") as call:
            call.tokens(prompt=10)
            in_flight = scrape(recorder).value("inferences_in_flight")
        page = scrape(recorder)
        of_m = [page.value(name, model="m") for name in ("inferences_total", "inference_tokens_total")]
        return [*of_m, in_flight, page.value("inferences_in_flight")]

    parent, child = on_both_sides(run)
    assert parent == [3, 111, 1, 0]
    assert child == [1, 10, 1, 0]


def test_a_child_of_a_child_starts_from_zero_too(in_child: InChild, recorder: Recorder, scrape: Scrape) -> None:
    """At every level, what was before is somebody else's."""

    def infer() -> float:
        with recorder.track(model="m"):
            pass
        return scrape(recorder).value("inferences_total")

    infer()
    assert in_child(lambda: [infer(), infer(), in_child(infer), infer()]) == [1, 2, 1, 3]
    assert infer() == 2


def test_a_child_announces_what_was_decorated_in_its_parent(
    in_child: InChild, recorder: Recorder, scrape: Scrape
) -> None:
    """The zeros are there before its first call, and what the parent dropped or folded is not."""
    infer = recorder.track(model="m", detections="auto")(lambda: "unrecognised")
    infer()
    page = scrape(recorder)
    assert page.dropped() == {"unrecognised_result": 1}

    def child() -> list[object]:
        page = scrape(recorder)
        return [page.value("inferences_total"), page.value("objects_per_frame_count"), page.dropped()]

    assert in_child(child) == [0, 0, {}]


def test_a_fork_in_the_middle_of_a_fold_ends_it_in_both(
    on_both_sides: OnBothSides, recorder: Recorder, scrape: Scrape
) -> None:
    """A signal handler or the user's names may fork while totals are made."""

    def scenario(fork: Callable[[], None]) -> list[float]:
        class Names(dict[int, str]):
            def __missing__(self, key: int) -> str:
                fork()
                return "cat"

        with recorder.track(model="m") as call:
            call.detections([0.5], [0], Names())
        page = scrape(recorder)
        with recorder.track(model="m") as call:
            call.detections([0.5], [0], ["cat"])
        page = scrape(recorder)
        return [page.value("inferences_total"), page.value("detections_total")]

    assert on_both_sides(scenario) == ([2, 2], [1, 1])


def test_multiprocessing_with_fork(recorder: Recorder, scrape: Scrape) -> None:
    """Workers that were forked count what they did, and the parent what it did."""
    infer = recorder.track(model="m")(lambda: None)
    infer()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def work() -> None:
        for _ in range(5):
            infer()
        theirs.send(scrape(recorder).value("inferences_total"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        worker = context.Process(target=work)
        worker.start()
    assert ours.poll(20)
    assert ours.recv() == 5
    worker.join()
    assert worker.exitcode == 0
    assert scrape(recorder).value("inferences_total") == 1


def test_a_pool_of_spawned_processes(run_python: RunPython, tmp_path: Path) -> None:
    """A decorated function is found by its name in the worker, where a recorder of the worker's own counts it."""
    (tmp_path / "service.py").write_text(
        """
import infermeter
from prometheus_client import REGISTRY

@infermeter.track(model="m")
def infer(number):
    return number + 1

def total():
    return REGISTRY.get_sample_value("inferences_total", {"service": "s", "model": "m", "version": ""})
"""
    )
    printed = run_python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import multiprocessing, service
        from concurrent.futures import ProcessPoolExecutor
        service.infer(0)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print([*pool.map(service.infer, range(3))], int(pool.submit(service.total).result()), int(service.total()))
        """,
        environment={"INFERMETER_SERVICE": "s"},
    )
    assert printed == "[1, 2, 3] 3 1\n"
