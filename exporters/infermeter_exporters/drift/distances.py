"""Distances between two distributions that are bounded: Jensen-Shannon, Hellinger, total variation."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats, pair, shares, summed


def js_divergence(reference: ArrayLike, current: ArrayLike) -> Floats:
    """The Jensen-Shannon divergence in nats, 0 to ln 2: the mean of KL(p || h) and KL(q || h), h being (p + q) / 2.

    Lin (1991), Divergence Measures Based on the Shannon Entropy. Its root is a distance.

    Args:
        reference: counts of shape (..., bins), whose shares are p.
        current: the same, over the same bins, whose shares are q.

    Returns:
        Of shape (...); NaN where one of the two has no count.

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(reference, current)
    p, q = shares(before), shares(now)
    half = p + q
    half /= 2
    # Rounding may leave a little less than 0.
    found: Floats = np.maximum((_surprise(p, half) + _surprise(q, half)) / 2, 0.0)
    return found


def _surprise(shares_: Floats, half: Floats) -> Floats:
    """KL(shares || half)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = shares_ / half
        np.log(terms, out=terms)
        terms *= shares_
    np.copyto(terms, 0.0, where=shares_ == 0)
    return summed(terms)


def hellinger(reference: ArrayLike, current: ArrayLike) -> Floats:
    """The Hellinger distance, 0 to 1: the root of half the sum over bins of (sqrt(p) - sqrt(q)) squared.

    Hellinger (1909), Neue Begruendung der Theorie quadratischer Formen. Arguments, returns and errors are as of
    `js_divergence`.
    """
    before, now = pair(reference, current)
    p, q = shares(before), shares(now)
    difference = np.sqrt(p, out=p) - np.sqrt(q, out=q)
    found: Floats = np.sqrt(summed(np.square(difference, out=difference)) / 2)
    return found


def total_variation(reference: ArrayLike, current: ArrayLike) -> Floats:
    """The total variation distance, 0 to 1: half the sum over bins of |p - q|, which is the part that moved.

    Levin, Peres and Wilmer (2017), Markov Chains and Mixing Times, proposition 4.2. Arguments, returns and errors are
    as of `js_divergence`.
    """
    before, now = pair(reference, current)
    found: Floats = summed(np.abs(shares(before) - shares(now))) / 2
    return found
