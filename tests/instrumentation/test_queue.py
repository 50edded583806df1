"""How much waits for a model, and how long."""

from __future__ import annotations

import asyncio
import queue
import random  # noqa: TC003  (hypothesis reads the annotations)
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter import Recorder
from infermeter.queue import Queue, Ticket

if TYPE_CHECKING:
    from tests.instrumentation.conftest import InChild, NewRecorder, Scrape


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves: what stands last in the list is now."""
    times = [0.0]
    monkeypatch.setattr(sys.modules["infermeter.queue"], "now", lambda: times[-1])  # infermeter.queue is the verb
    return times


def waits(recorder: Recorder, scrape: Scrape) -> tuple[float, float]:
    """How many items were taken out, and the seconds that they had waited."""
    page = scrape(recorder)
    return page.value("model_queue_wait_seconds_count"), page.value("model_queue_wait_seconds_sum")


def length(recorder: Recorder, scrape: Scrape) -> float:
    """How many items wait."""
    return scrape(recorder).value("model_queue_length")


def test_items_leave_in_the_order_they_came(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """The one that came first waited longest."""
    waiting = recorder.queue("a")
    waiting.put()
    clock.append(1.0)
    waiting.put()
    clock.append(3.0)

    assert length(recorder, scrape) == 2
    waiting.get()
    assert (length(recorder, scrape), waits(recorder, scrape)) == (1, (1, 3))
    waiting.get()
    assert (length(recorder, scrape), waits(recorder, scrape)) == (0, (2, 3 + 2))


def test_a_ticket_tells_which_item_leaves(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """For queues with priorities."""
    waiting = recorder.queue("a")
    waiting.put()
    clock.append(1.0)
    urgent = waiting.put()
    clock.append(1.5)
    waiting.get(urgent)

    assert (length(recorder, scrape), waits(recorder, scrape)) == (1, (1, 0.5))


def test_what_is_discarded_did_not_wait_for_anything(recorder: Recorder, scrape: Scrape) -> None:
    """A frame that is dropped because a newer one is there makes the queue shorter, and no wait."""
    waiting = recorder.queue("a")
    first = waiting.put()
    waiting.put()
    waiting.discard(first)
    waiting.discard()

    assert length(recorder, scrape) == 0
    assert "model_queue_wait_seconds_count" not in scrape(recorder).names


def test_a_block_around_waiting(recorder: Recorder, scrape: Scrape, clock: list[float]) -> None:
    """It is in the queue while the block runs; who gives up waited too."""
    waiting = recorder.queue("a")
    with waiting.wait():
        clock.append(2.0)
        assert length(recorder, scrape) == 1
    with pytest.raises(TimeoutError), waiting.wait():
        clock.append(7.0)
        raise TimeoutError

    assert (length(recorder, scrape), waits(recorder, scrape)) == (0, (2, 2 + 5))


def test_tasks_wait_at_the_same_time(recorder: Recorder, scrape: Scrape) -> None:
    """Around an `await`, each task has its own wait."""
    lengths = []

    async def request(semaphore: asyncio.Semaphore) -> None:
        with recorder.queue("a").wait():
            await semaphore.acquire()
        lengths.append(length(recorder, scrape))
        semaphore.release()

    async def main() -> None:
        semaphore = asyncio.Semaphore(1)
        await asyncio.gather(*(request(semaphore) for _ in range(4)))

    asyncio.run(main())
    assert (lengths[0], length(recorder, scrape), waits(recorder, scrape)[0]) == (0, 0, 4)


def test_the_length_is_exposed_from_the_start(recorder: Recorder, scrape: Scrape) -> None:
    """At 0, also of a model whose inferences are recorded already."""
    with recorder.track(model="a"):
        pass
    scrape(recorder)
    recorder.queue("a")
    recorder.queue("b")

    assert scrape(recorder).by("model", "model_queue_length") == {"a": 0, "b": 0}


def test_a_queue_is_the_same_wherever_it_is_asked_for(recorder: Recorder, scrape: Scrape) -> None:
    """One end may stand in another module than the other."""
    recorder.queue("a", "2").put()
    recorder.queue(model="a", version="2").get()

    assert (length(recorder, scrape), waits(recorder, scrape)[0]) == (0, 1)


def test_what_is_not_waiting_cannot_leave(recorder: Recorder, scrape: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, logged once, and nothing is raised in the service."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    waiting = recorder.queue("a")
    waiting.get()
    ticket = waiting.put()
    waiting.get(ticket)
    waiting.get(ticket)
    waiting.discard([])  # type: ignore[arg-type]

    page = scrape(recorder)
    assert (page.value("model_queue_length"), page.value("model_queue_wait_seconds_count")) == (0, 1)
    assert page.dropped() == {"not_waiting": 3}


def test_models_that_fold_share_their_length(new_recorder: NewRecorder, scrape: Scrape) -> None:
    """What is folded into one series is added, not overwritten."""
    recorder = new_recorder(max_label_values={"model": 1})
    for model in ("a", "b", "c"):
        recorder.queue(model).put()

    assert scrape(recorder).by("model", "model_queue_length") == {"a": 1, "_other": 2}


@pytest.mark.alone
def test_a_child_begins_with_empty_queues(recorder: Recorder, scrape: Scrape, in_child: InChild) -> None:
    """What waits in the parent is the parent's."""
    waiting = recorder.queue("a")
    waiting.put()
    waiting.get()
    waiting.put()

    def work() -> Any:
        before = length(recorder, scrape)
        waiting.put()
        page = scrape(recorder)
        return before, page.value("model_queue_length"), sorted(page.names & {"model_queue_wait_seconds_count"})

    assert in_child(work) == [0, 1, []]
    assert (length(recorder, scrape), waits(recorder, scrape)[0]) == (1, 1)


def test_no_item_is_lost_between_threads(recorder: Recorder, scrape: Scrape) -> None:
    """Producers and consumers on a real queue: every item has one wait, and none is left."""
    items: queue.Queue[tuple[Ticket, int]] = queue.Queue(8)
    waiting = recorder.queue("a")

    def produce() -> None:
        for number in range(500):
            items.put((waiting.put(), number))

    def consume() -> None:
        for _ in range(500):
            ticket, _ = items.get()
            waiting.get(ticket)

    threads = [threading.Thread(target=work) for work in (produce, consume) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (length(recorder, scrape), waits(recorder, scrape)[0]) == (0, 2000)
    assert scrape(recorder).dropped() == {}


@given(st.lists(st.sampled_from(["put", "get", "get this", "discard", "discard this"]), max_size=60), st.randoms())
def test_it_agrees_with_a_list(steps: list[str], chance: random.Random) -> None:
    """Any order of steps leaves what a plain list would hold, and records what left by `get`."""
    recorder = Recorder(service="test")
    waiting = Queue(recorder, "a", "")
    inside: list[Ticket] = []
    worked = 0
    for step in steps:
        if step == "put":
            inside.append(waiting.put())
            continue
        if not inside:
            continue
        ticket = inside.pop(chance.randrange(len(inside)) if step.endswith("this") else 0)
        (waiting.get if step.startswith("get") else waiting.discard)(ticket if step.endswith("this") else None)
        worked += step.startswith("get")

    assert list(waiting.waiting) == inside
    assert len(recorder._notes) == worked
