"""Samples of which statistics are known: seeded, the same under every NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float64]
NAMES = np.array(list("ABCDEF"))


def gauss() -> tuple[Sample, Sample]:
    """Shifted by 0.3, and a tenth wider."""
    chance = np.random.default_rng(42)
    return chance.normal(0, 1, 100_000), chance.normal(0.3, 1.1, 100_000)


def beta() -> tuple[Sample, Sample]:
    """Confidences of a model that became less sure."""
    chance = np.random.default_rng(44)
    return chance.beta(8, 2, 100_000), chance.beta(6, 2.5, 100_000)


def tiny_same() -> tuple[Sample, Sample]:
    """Few, and no drift."""
    chance = np.random.default_rng(47)
    return chance.normal(0, 1, 50), chance.normal(0, 1, 50)


def const_same() -> tuple[Sample, Sample]:
    """One value for ever."""
    return np.ones(1000), np.ones(1000)


def const_shift() -> tuple[Sample, Sample]:
    """One value, then another."""
    return np.ones(1000), np.full(1000, 2.0)


def nan_inf() -> tuple[Sample, Sample]:
    """Some are no numbers now, or infinite."""
    chance = np.random.default_rng(50)
    before, now = chance.normal(0, 1, 10_000), chance.normal(0, 1, 10_000)
    now[:500], now[500:510], now[510:515] = np.nan, np.inf, -np.inf
    return before, now


def outlier() -> tuple[Sample, Sample]:
    """The same, but for one value."""
    chance = np.random.default_rng(52)
    before, now = chance.normal(0, 1, 10_000), chance.normal(0, 1, 10_000)
    now[0] = 1e4
    return before, now


def outlier_shift() -> tuple[Sample, Sample]:
    """Shifted by 1, and one value far out that makes common bins too wide to see it."""
    before, now = outlier()
    now = now + 1.0
    now[0] = 1e4
    return before, now


NUMBERS = {made.__name__: made for made in (gauss, beta, tiny_same, const_same, const_shift, nan_inf, outlier)}


def words() -> tuple[list[str], list[str]]:
    """One of six is not seen any more."""
    chance = np.random.default_rng(45)
    before = chance.choice(NAMES, 10_000, p=[0.40, 0.25, 0.15, 0.10, 0.07, 0.03])
    return list(before), list(chance.choice(NAMES[:5], 10_000, p=[0.42, 0.26, 0.15, 0.10, 0.07]))
