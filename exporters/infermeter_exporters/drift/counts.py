"""Counts in bins, from which all statistics are made: arrays of shape (..., bins), one series or many."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

JEFFREYS = 0.5
"""What is added to each count: half an observation, of Jeffreys (1946), An invariant form for the prior probability."""


def checked(counts: ArrayLike) -> Floats:
    """Counts as numbers.

    Args:
        counts: of shape (..., bins), at least one bin; finite, 0 or more. They may be fractions, as rates of counters.

    Raises:
        ValueError: they are not.
    """
    found = np.asarray(counts, dtype=np.float64)
    if found.ndim == 0 or found.shape[-1] == 0:
        raise ValueError(f"counts have the shape {found.shape}, expected (..., bins) with at least one bin")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("counts are negative or not finite, expected 0 or more in every bin")
    return found


def pair(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    """Two sets of counts over the same bins.

    Raises:
        ValueError: a count is wrong, or they have different bins.
    """
    before, now = checked(reference), checked(current)
    if before.shape[-1] != now.shape[-1]:
        raise ValueError(f"the reference has {before.shape[-1]} bins and the current {now.shape[-1]}, expected as many")
    return before, now


def summed(numbers: Floats) -> Floats:
    """The sum over bins, of shape (...).

    With as few numbers to a series as there are bins, `sum` takes several times as long: it begins anew for each.
    """
    return np.asarray(np.einsum("...i->...", numbers))


def shares(counts: Floats, prior: float = 0.0) -> Floats:
    """What part of all is in each bin: (count + prior) / (total + bins * prior); NaN without any count and prior."""
    total: Any = summed(counts)[..., None] + counts.shape[-1] * prior
    found: Floats = counts + prior
    with np.errstate(invalid="ignore"):
        found /= total  # in place, here and where shares are used: for many series, new arrays take most of the time
    return found
