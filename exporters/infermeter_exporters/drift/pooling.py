"""Bins for tests: adjacent ones are put together until enough is expected in each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermeter_exporters.drift.counts import Floats, pair

ENOUGH = 5.0
"""Observations expected in a bin: Cochran (1954), Some Methods for Strengthening the Common Chi-square Tests."""


class Pooled(NamedTuple):
    """Counts of shape (..., bins) whose bins were put together; those beyond `bins` hold nothing.

    Attributes:
        reference: counts.
        current: counts.
        bins: how many are left, of shape (...).
    """

    reference: Floats
    current: Floats
    bins: NDArray[np.int64]


def pooled(reference: ArrayLike, current: ArrayLike, enough: ArrayLike = ENOUGH) -> Pooled:
    """Put adjacent bins together, from the first on, until in each at least `enough` is expected of the smaller sample.

    What is left at the end goes to the last bin. What is expected follows from both samples together, so that which
    bins there are does not depend on how they differ.

    Args:
        reference: counts of shape (..., bins).
        current: the same, over the same bins.
        enough: observations expected in the smaller of the two, of shape (...).

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = np.broadcast_arrays(*pair(reference, current))
    shape, count = before.shape[:-1], before.shape[-1]
    before, now = before.reshape(-1, count), now.reshape(-1, count)
    both = before + now
    least = np.broadcast_to(np.asarray(enough, dtype=np.float64), shape).reshape(-1)
    n, m = before.sum(axis=-1), now.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(n + m > 0, np.minimum(n, m) / (n + m), 0.0)
    rows = np.arange(len(both))
    place = np.zeros(len(both), dtype=np.int64)
    held = np.zeros(len(both))
    # Which pooled bin each bin goes to: a new one is begun when the one before has enough.
    target = np.empty(both.shape, dtype=np.int64)
    for bin_ in range(count):
        full = held * part >= least
        place, held = place + full, np.where(full, 0.0, held) + both[:, bin_]
        target[:, bin_] = place
    # The last one may not have enough.
    last = np.where((held * part < least) & (place > 0), place - 1, place)
    target = np.minimum(target, last[:, None])
    outcome = []
    for counts in (before, now):
        found = np.zeros_like(both)
        np.add.at(found, (rows[:, None], target), counts)
        outcome.append(found.reshape(*shape, count))
    return Pooled(outcome[0], outcome[1], (last + 1).reshape(shape))
