"""Evidence that grows over windows: small drifts, which no single window shows, are found all the same.

Of each window it is asked how much better one that drifts explains it than the baseline does. That is an e-value: its
mean is at most 1 without drift. Shin, Ramdas and Rinaldo (2023), E-detectors: a nonparametric framework for sequential
change detection, accumulate it as a cumulative sum does, and mix such sums: where the alarm is at 1 / alpha, false ones
are at least 1 / alpha windows apart on average.

The baseline is an estimate, so that this is measured rather than proven; and however small a drift is, it is found if
it lasts. So it goes together with a limit on the size of the effect, never alone.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import JEFFREYS, Floats, pair, shares

STRENGTHS = (20.0, 100.0, 500.0, 2500.0)
"""How closely windows that drift are taken to lie about the baseline, in observations: from wide to narrow."""


class Evidence:
    """The evidence of one or many series.

    Args:
        sums: of an earlier one, which goes on.

    Attributes:
        sums: the logarithm of a cumulative sum for each of `STRENGTHS`, 0 or more, of shape (strengths, ...).
    """

    def __init__(self, sums: ArrayLike | None = None) -> None:
        self.sums: Floats = np.zeros(len(STRENGTHS)) if sums is None else np.asarray(sums, dtype=np.float64)

    @property
    def log(self) -> Floats:
        """The natural logarithm of the evidence, of shape (...): of the mean of the sums."""
        return log_mean(self.sums)

    def update(self, baseline: ArrayLike, window: ArrayLike) -> Floats:
        """Add a window; gives `log`.

        Args:
            baseline: counts of shape (..., bins).
            window: the same, over the same bins; empty ones say nothing.

        Raises:
            ValueError: counts are wrong, or of different bins.
        """
        values = log_evalues(baseline, window)
        before = self.sums.reshape(self.sums.shape + (1,) * (values.ndim - self.sums.ndim))
        self.sums = np.maximum(before + values, 0.0)
        return self.log


def log_mean(sums: ArrayLike) -> Floats:
    """The natural logarithm of the mean over the first axis of numbers whose logarithms these are."""
    values = np.asarray(sums, dtype=np.float64)
    highest = values.max(axis=0)
    found: Floats = highest + np.log(np.exp(values - highest).mean(axis=0))
    return found


def log_evalues(baseline: ArrayLike, window: ArrayLike) -> Floats:
    """The natural logarithms of the e-values of one window, one for each of `STRENGTHS`.

    The ratio of two Dirichlet-multinomial probabilities (Johnson, Kotz and Balakrishnan, 1997, Discrete Multivariate
    Distributions, chapter 35.13): with the mean of the baseline and one of the strengths, over that which the baseline
    gives after all of its observations and a prior of Jeffreys.

    Args:
        baseline: counts of shape (..., bins).
        window: the same, over the same bins.

    Returns:
        Of shape (strengths, ...).

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(baseline, window)
    mean = shares(before, JEFFREYS)
    expected = _log_probability(before + JEFFREYS, now)
    return np.stack([_log_probability(strength * mean, now) for strength in STRENGTHS]) - expected


def _log_probability(weights: Floats, counts: Floats) -> Floats:
    """Of counts, whichever order they came in, if bins have Dirichlet weights; without what both of a ratio share."""
    total, number = weights.sum(axis=-1), counts.sum(axis=-1)
    each = (_log_gamma(counts + weights) - _log_gamma(weights)).sum(axis=-1)
    found: Floats = _log_gamma(total) - _log_gamma(total + number) + each
    return found


# Stirling's series, Abramowitz and Stegun (1964), 6.1.41, is as precise as a float from here on.
_LARGE = 10.0
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _log_gamma(x: ArrayLike) -> Floats:
    """The logarithm of the gamma function of numbers above 0; small ones are moved up by its recurrence."""
    value = np.array(x, dtype=np.float64)
    moved = np.ones_like(value)
    while (small := value < _LARGE).any():
        moved = np.where(small, moved * value, moved)
        value = np.where(small, value + 1, value)
    series = np.zeros_like(value)
    for place, coefficient in enumerate(_STIRLING):
        series += coefficient / value ** (2 * place + 1)
    found: Floats = (value - 0.5) * np.log(value) - value + 0.5 * math.log(2 * math.pi) + series - np.log(moved)
    return found
