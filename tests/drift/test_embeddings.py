"""Embeddings that moved are found, those that did not are left in peace, from sums that can be added."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter_exporters.drift.embeddings import Space, learnt_space, read_space, shift

if TYPE_CHECKING:
    from infermeter_exporters.drift.counts import Floats

CHANCE = np.random.default_rng(8)
DIMENSIONS = 24
MIXING = CHANCE.normal(size=(6, DIMENSIONS))


def vectors(number: int, chance: np.random.Generator = CHANCE) -> Floats:
    """Of few hidden causes and some noise, as embeddings are."""
    found: Floats = chance.normal(size=(number, 6)) @ MIXING + 0.3 * chance.normal(size=(number, DIMENSIONS)) + 5
    return found


REFERENCE = vectors(3000)
SPACE = learnt_space(REFERENCE)
SUMS = SPACE.counted(REFERENCE)


def exact(before: Floats, now: Floats) -> float:
    """The squared discrepancy by the kernel itself, without the pairs of a vector with itself."""
    standard = [(one - SPACE.centre) / SPACE.scale for one in (before, now)]

    def kernel(first: Floats, second: Floats) -> Floats:
        squares = np.square(first[:, None] - second[None]).sum(axis=2)
        found: Floats = np.exp(-squares / (2 * SPACE.width**2))
        return found

    within = []
    for one in standard:
        values = kernel(one, one)
        within.append((values.sum() - len(one)) / len(one) / (len(one) - 1))
    return float(sum(within) - 2 * kernel(*standard).mean())


@pytest.mark.parametrize("moved", [0.0, 0.5, 1.0])
def test_discrepancy(moved: float) -> None:
    """It is that of the kernel, as far as so many random features say."""
    now = vectors(600) + moved * SPACE.scale
    found = shift(SPACE, SPACE.counted(REFERENCE[:600]), SPACE.counted(now), 0.001)
    assert found.mmd**2 == pytest.approx(max(exact(REFERENCE[:600], now), 0.0), rel=0.15, abs=0.004)


def test_false_alarms() -> None:
    """Of a thousand windows without drift about ten are below 0.01, and few below 0.001."""
    chance = np.random.default_rng(9)
    found = np.array([shift(SPACE, SUMS, SPACE.counted(vectors(300, chance)), 0.001).pvalue for _ in range(1000)])
    assert 0.002 <= (found < 0.01).mean() <= 0.022
    assert (found < 0.001).mean() <= 0.005
    assert (found < 0.5).mean() == pytest.approx(0.5, abs=0.06)


def test_what_moved() -> None:
    """A shift of one hidden cause, a rotation that no mean shows, and more noise are all found."""
    chance = np.random.default_rng(10)
    usual = vectors(1000, chance)
    shifted = usual + 0.5 * MIXING[0]
    noisy = usual + chance.normal(size=usual.shape)
    mixed = usual.copy()
    for column in range(DIMENSIONS):
        chance.shuffle(mixed[:, column])  # each dimension by itself is as it was
    for now, means in ((shifted, True), (noisy, False), (mixed, False)):
        found = shift(SPACE, SUMS, SPACE.counted(now), 0.001)
        assert found.pvalue < 1e-6
        assert found.mmd > 0.05
        assert (found.moved > 0.5) is means
    assert shift(SPACE, SUMS, SPACE.counted(usual), 0.001).moved == 0


def test_sums_can_be_added() -> None:
    """Of parts they are those of the whole."""
    now = vectors(500)
    assert SPACE.counted(now[:200]) + SPACE.counted(now[200:]) == pytest.approx(SPACE.counted(now))


def test_what_is_kept() -> None:
    """Is the same space to the last bit."""
    again = read_space(json.loads(SPACE.written()))
    assert (again, hash(again)) == (SPACE, hash(SPACE))
    assert again.counted(REFERENCE).tolist() == SUMS.tolist()


def test_odd_references() -> None:
    """A dimension that never moves, one value for ever, too few vectors, and some that are none."""
    still = REFERENCE.copy()
    still[:, 0] = 0.7
    space = learnt_space(still)
    now = vectors(500)
    now[:, 0] = 0.7
    same = shift(space, space.counted(still), space.counted(now), 0.001)
    assert same.moved == 0
    now[:, 0] = 0.9
    assert shift(space, space.counted(still), space.counted(now), 0.001).moved == pytest.approx(1 / DIMENSIONS)
    ones = np.ones((500, 3))
    one = learnt_space(ones)
    assert shift(one, one.counted(ones), one.counted(ones), 0.001) == (0.0, 1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="fewer than two"):
        learnt_space(np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match="no vector"):
        shift(SPACE, SUMS, np.zeros(SPACE.size), 0.001)
    broken = vectors(100)
    broken[:7, 3] = np.nan
    assert SPACE.counted(broken)[:2].tolist() == [93, 7]
    assert isinstance(learnt_space(broken), Space)
