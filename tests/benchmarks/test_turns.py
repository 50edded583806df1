"""Timing: quantiles, spreads, and callers at the same time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.models.cases import Case
from benchmarks.models.turns import Taken, in_turns, quantile, spread, turn

if TYPE_CHECKING:
    from collections.abc import Callable

CASE = Case("model", "cpu", "fp32", 4, (3, 8, 8), 0, 1)
OTHER = Case("other", "cpu", "fp32", 4, (3, 8, 8), 0, 1)


@dataclass
class Calls:
    """A runner of functions of the test's own."""

    calls: list[Callable[[], Any]]
    entered: int = field(default=0)

    def enter(self) -> None:
        self.entered += 1


def test_a_quantile_is_one_of_the_values() -> None:
    """The smallest that covers its share: of a hundred the 50th, the 95th and the 99th."""
    values = [float(value) for value in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert [quantile([7.0], share) for share in (0.0, 0.5, 0.99)] == [7, 7, 7]


def test_a_spread_is_half_of_the_distance_of_the_quartiles() -> None:
    """As a share of the median; of one turn nothing is known, of equal ones it is 0."""
    assert spread([80.0, 90.0, 100.0, 110.0, 120.0]) == pytest.approx(0.1)
    assert (spread([5.0]), spread([5.0, 5.0, 5.0])) == (0, 0)


@pytest.mark.parametrize(
    ("calls", "known"),
    [
        (19, {"p50_seconds"}),
        (20, {"p50_seconds", "p95_seconds"}),
        (99, {"p50_seconds", "p95_seconds"}),
        (100, {"p50_seconds", "p95_seconds", "p99_seconds"}),
    ],
)
def test_a_quantile_needs_calls(calls: int, known: set[str]) -> None:
    """p95 of 10 calls would be the slowest of them: it is absent."""
    figures = Taken([0.001] * calls, [10.0, 30.0, 20.0]).figures()
    assert {name for name in figures if name.startswith("p")} == known
    assert (figures["calls"], figures["inferences_per_second"]) == (calls, 20)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_every_stream_calls_at_least_once(streams: int) -> None:
    """Also in a turn of no time, after the calls that do not count; streams call at the same time."""
    together = threading.Barrier(streams, timeout=60)
    made = [0] * streams

    def call(number: int) -> None:
        made[number] += 1
        together.wait()

    runner: Any = Calls([partial(call, number) for number in range(streams)])
    latencies, seconds = turn(runner, CASE, 0.0, extra=2)

    assert (len(latencies), made, runner.entered) == (streams, [3] * streams, 1)
    assert 0 < max(latencies) <= seconds + 1


@pytest.mark.parametrize("streams", [1, 2])
def test_what_a_call_raises_is_raised(streams: int) -> None:
    """By the turn, whichever stream it was, and no stream is left waiting."""

    def fail() -> None:
        raise ValueError("out of memory")

    before = set(threading.enumerate())
    runner: Any = Calls([fail, lambda: None][:streams])
    with pytest.raises(ValueError, match="out of memory"):
        turn(runner, CASE, 0.01)
    assert set(threading.enumerate()) <= before


def test_cases_take_turns_and_one_that_fails_has_no_more() -> None:
    """Speeds are items a second, one for each turn; the other case has all its turns."""
    calls = iter(range(3))

    def fail_in_the_second_turn() -> None:
        if next(calls) == 2:
            raise RuntimeError("gone")

    runners: Any = {CASE: Calls([fail_in_the_second_turn]), OTHER: Calls([lambda: None])}
    failures: list[tuple[Case, str]] = []
    steps: list[None] = []
    taken = in_turns(
        runners, 1e-9, 4, lambda case, error: failures.append((case, str(error))), lambda: steps.append(None)
    )

    assert failures == [(CASE, "gone")]
    assert list(taken) == [OTHER]
    assert len(taken[OTHER].speeds) == 4
    assert len(steps) == 8
    latency = taken[OTHER].latencies[0]
    assert taken[OTHER].speeds[0] <= 4 / latency
