"""Timing: cases take turns in one process, so that a machine that changes its speed changes it for all of them."""

from __future__ import annotations

import math
import random
import statistics
import threading
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.models.cases import Case, Runner

ENOUGH = {0.5: 1, 0.95: 20, 0.99: 100}
"""Calls from which a quantile is told: with fewer, p95 and p99 would be the slowest call under another name."""


class Turn(NamedTuple):
    """Seconds of each call, and of all from the first start to the last end."""

    latencies: list[float]
    seconds: float


@dataclass
class Taken:
    """What the turns of a case took: seconds of each call, inferences (items, not batches) a second of each turn."""

    latencies: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Medians and quantiles; a quantile for which there were too few calls is absent."""
        found: dict[str, float] = {
            "calls": len(self.latencies),
            "inferences_per_second": statistics.median(self.speeds),
            "spread_ratio": spread(self.speeds),
        }
        ordered = sorted(self.latencies)
        for share, enough in ENOUGH.items():
            if len(ordered) >= enough:
                found[f"p{share * 100:.0f}_seconds"] = quantile(ordered, share)
        return found


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least this share of them does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def spread(values: Sequence[float]) -> float:
    """Half of the distance between the quartiles, as a share of the median: 0 where all turns were equal."""
    if len(values) < 2:  # noqa: PLR2004
        return 0.0
    first, middle, last = statistics.quantiles(values, n=4, method="inclusive")
    return (last - first) / 2 / middle


def turn(runner: Runner, case: Case, seconds: float, extra: int = 0) -> Turn:
    """Let every stream call for so many seconds, at least once; what begins in time is finished.

    Args:
        runner: makes the calls.
        case: says how many items are in each.
        seconds: 0 for one call of each stream.
        extra: calls of each stream before those, which are not counted.

    Raises:
        Exception: what a call raised.
    """
    runner.enter()
    if len(runner.calls) == 1:
        for _ in range(extra):
            runner.calls[0]()
        started = perf_counter()
        latencies = _calls(runner.calls[0], started + seconds)
        return Turn(latencies, perf_counter() - started)

    taken: list[list[float]] = [[] for _ in runner.calls]
    failures: list[Exception] = []
    start, done = threading.Barrier(len(runner.calls) + 1), threading.Barrier(len(runner.calls) + 1)

    def stream(number: int) -> None:
        try:
            for _ in range(extra):
                runner.calls[number]()
            start.wait()
            taken[number] = _calls(runner.calls[number], perf_counter() + seconds)
            done.wait()
        except threading.BrokenBarrierError:  # another stream failed
            pass
        except Exception as error:  # of the library that runs the model
            failures.append(error)
            start.abort()
            done.abort()

    threads = [threading.Thread(target=stream, args=(number,), daemon=True) for number in range(len(runner.calls))]
    for thread in threads:
        thread.start()
    try:
        start.wait()
        started = perf_counter()
        done.wait()
    except threading.BrokenBarrierError:
        pass
    ended = perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return Turn([seconds for own in taken for seconds in own], ended - started)


def _calls(call: Callable[[], object], end: float) -> list[float]:
    """Seconds of each call, until the end."""
    latencies = []
    now = perf_counter()
    while True:
        call()
        before, now = now, perf_counter()
        latencies.append(now - before)
        if now >= end:
            return latencies


def in_turns(
    runners: Mapping[Case, Runner],
    seconds: float,
    rounds: int,
    failed: Callable[[Case, Exception], None],
    advance: Callable[[], None],
) -> dict[Case, Taken]:
    """Time every case in every round, in another order each time; one that raises is told and has no further turn.

    Args:
        runners: by case, warmed up.
        seconds: of all turns of a case together.
        rounds: turns of a case.
        failed: is told which case raised what.
        advance: is called after each turn.
    """
    taken = {case: Taken() for case in runners}
    order = list(runners)
    for _ in range(rounds):
        random.shuffle(order)
        for case in order:
            if case in taken:
                try:
                    # The first call finds the caches full of another case.
                    latencies, lasted = turn(runners[case], case, seconds / rounds, extra=1)
                except Exception as error:  # of the library that runs the model
                    failed(case, error)
                    del taken[case]
                else:
                    taken[case].latencies += latencies
                    taken[case].speeds.append(len(latencies) * case.batch / lasted)
            advance()
    return taken
