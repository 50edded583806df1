"""The population stability index: how far two distributions are apart, in both directions."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import JEFFREYS, Floats, pair, shares, summed


def psi(reference: ArrayLike, current: ArrayLike, prior: float = JEFFREYS) -> Floats:
    """The index: sum over bins of (q - p) ln(q / p), which is KL(q || p) + KL(p || q).

    Siddiqi (2006), Credit Risk Scorecards; as a divergence Jeffreys (1946). With few observations it is far from 0
    without any drift: see `noise_floor`. Coarser bins only make it smaller (the data processing inequality), so that of
    buckets it is a lower bound.

    Args:
        reference: counts of shape (..., bins).
        current: the same, over the same bins.
        prior: added to each count. With 0, it is infinite where only one of the two is empty.

    Returns:
        Of shape (...), 0 or more; NaN where there is no count at all.

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(reference, current)
    p, q = shares(before, prior), shares(now, prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = q / p
        np.log(terms, out=terms)
        terms *= q - p
    if prior == 0:
        np.copyto(terms, 0.0, where=(p == 0) & (q == 0))  # where both are empty there is no difference
    return np.where(_empty(before, now), np.nan, summed(terms))


def noise_floor(bins: ArrayLike, reference: ArrayLike, current: ArrayLike) -> Floats:
    """What the index is on average without any drift: (bins - 1) (1 / n + 1 / m).

    Yurdakul (2018), Statistical Properties of Population Stability Index: without drift the index is distributed as
    (1 / n + 1 / m) times chi-square with bins - 1 degrees of freedom.

    Args:
        bins: how many there are.
        reference: observations in the reference.
        current: observations now.

    Returns:
        Infinite where there are no observations.
    """
    with np.errstate(divide="ignore"):
        found: Floats = (np.asarray(bins, np.float64) - 1) * (
            1 / np.asarray(reference, np.float64) + 1 / np.asarray(current, np.float64)
        )
    return found


def _empty(before: Floats, now: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    found = (summed(before) == 0) | (summed(now) == 0)
    return np.asarray(found)
