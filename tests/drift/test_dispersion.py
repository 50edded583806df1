"""Observations that come in runs, as those of frames of a film do, are not taken for as many independent ones."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.decision import USUAL
from infermeter_exporters.drift.dispersion import PARTS, dispersion
from infermeter_exporters.drift.evaluation import Comparison, Key, evaluated
from infermeter_exporters.drift.layout import Histogram, from_cumulative
from infermeter_exporters.drift.samples import Column
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import opened

if TYPE_CHECKING:
    from pathlib import Path

KEY = Key("service", "model", "confidence")
BOUNDS = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, float("inf"))
SHARES = np.array([0.05, 0.05, 0.1, 0.2, 0.3, 0.2, 0.1])
RUN = 25
"""Frames for which an object is in the picture, and as sure as before."""


def window(chance: np.random.Generator, observations: int, run: int, shares: np.ndarray = SHARES) -> np.ndarray:
    """Counts of a window."""
    found: np.ndarray = run * chance.multinomial(observations // run, shares)
    return found


def histogram(counts: np.ndarray) -> Histogram:
    """As a source gives it."""
    return from_cumulative(BOUNDS, np.cumsum(counts))


@pytest.mark.parametrize("run", [1, 5, RUN])
def test_how_long_runs_are(run: int) -> None:
    """Is about what it says; of independent observations it is 1."""
    chance = np.random.default_rng(run)
    found = [dispersion([window(chance, 2000, run) for _ in range(PARTS)]) for _ in range(200)]
    assert np.mean(found) == pytest.approx(run, rel=0.15)
    assert min(found) >= 1


def test_nothing_to_be_said() -> None:
    """One part, empty ones, and one bin for all say nothing; what changes by itself is said."""
    counts = np.array([100.0, 200.0, 300.0])
    for parts in ([], [counts], [counts, counts * 0], [counts] * 5, [np.array([100.0])] * 3):
        assert dispersion(parts) == 1
    assert dispersion([counts, counts[::-1]]) > 50
    with pytest.raises(ValueError, match="negative"):
        dispersion([counts, -counts])


def test_one_part_in_which_something_happened() -> None:
    """Hides nothing of what happens now: of four weeks, one was another world."""
    chance = np.random.default_rng(7)
    others = SHARES[::-1]
    found = [
        dispersion([*(window(chance, 2000, 1) for _ in range(3)), window(chance, 2000, 1, others)]) for _ in range(50)
    ]
    assert np.mean(found) < 2
    assert dispersion([window(chance, 2000, 1), window(chance, 2000, 1, others)]) > 100


def test_a_film_does_not_cry_wolf() -> None:
    """Of healthy windows of a film one in three would drift by itself; a real drift is found all the same."""
    chance = np.random.default_rng(5)
    alarms = {False: 0, True: 0}
    found, windows = 0, 600
    moved = SHARES[::-1]
    for _ in range(windows):
        parts = [window(chance, 500, RUN) for _ in range(PARTS)]
        reference = histogram(np.sum(parts, axis=0))
        varies = dispersion(parts)
        for known in alarms:
            one = Comparison(
                KEY, "frozen", reference, histogram(window(chance, 1000, RUN)), dispersion=varies if known else 1.0
            )
            alarms[known] += voted(one)
        drifted = histogram(window(chance, 1000, RUN, moved))
        found += voted(Comparison(KEY, "frozen", reference, drifted, dispersion=varies))
    assert alarms[False] > windows / 4
    assert alarms[True] < windows / 100
    # Forty objects are all that these thousand detections are of.
    assert found > 0.85 * windows


def voted(comparison: Comparison) -> bool:
    """Whether a window would count as drifted."""
    (finding,) = evaluated([comparison], USUAL)
    return finding.effect >= USUAL.effect and finding.adjusted < USUAL.alpha


def test_it_is_kept_with_a_reference(tmp_path: Path) -> None:
    """Of values that are learnt, from how much they differ from slot to slot."""
    chance = np.random.default_rng(6)
    with closing(opened(str(tmp_path / "store"))) as store, store.transaction() as transaction:
        slots = Slots("push", Rules(slot=10, learn=4000))
        for place in range(8):
            values = np.repeat(chance.normal(size=20), RUN)
            slots.add(transaction, [Column(KEY, np.full(len(values), 10.0 * place), values)], 0)
        found = baselines.read(transaction, "push", "frozen")[KEY]
    assert (found.histogram.samples, 10 < found.dispersion < 50) == (4000, True)
