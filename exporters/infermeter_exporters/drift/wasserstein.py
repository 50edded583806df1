"""The Wasserstein distance: how far, on average, values would have to be moved."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats, pair, shares


def wasserstein(reference: ArrayLike, current: ArrayLike, edges: ArrayLike) -> Floats:
    """The distance W1 in the unit of the values: the area between two cumulative distributions.

    Vallender (1974), Calculation of the Wasserstein Distance Between Probability Distributions on the Line. Within a
    bin values are taken to lie evenly, so that both distributions are straight there. Wide bins make it too large: it
    is meant for fine ones, not for deciles.

    Args:
        reference: counts of shape (..., bins), bins in the order of the values.
        current: the same, over the same bins.
        edges: of the bins, of shape (bins + 1,), finite and growing.

    Returns:
        Of shape (...); NaN where one of the two has no count.

    Raises:
        ValueError: counts or edges are wrong.
    """
    before, now = pair(reference, current)
    ends = np.asarray(edges, dtype=np.float64)
    if ends.shape != (before.shape[-1] + 1,) or not np.isfinite(ends).all() or (np.diff(ends) <= 0).any():
        raise ValueError(f"there are {ends.shape} edges, expected {before.shape[-1] + 1} that are finite and grow")
    gaps = np.cumsum(shares(now) - shares(before), axis=-1)
    gaps[..., -1] = np.where(np.isnan(gaps[..., -1]), np.nan, 0.0)  # both are 1 there, but for rounding
    left = np.concatenate((np.zeros_like(gaps[..., :1]), gaps[..., :-1]), axis=-1)
    # Of a line from left to right: a trapezium, or two triangles where it crosses 0.
    total = np.abs(left) + np.abs(gaps)
    crosses = left * gaps < 0
    with np.errstate(invalid="ignore", divide="ignore"):
        triangles = (np.square(left) + np.square(gaps)) / total
    found: Floats = (np.where(crosses, triangles, total) / 2 * np.diff(ends)).sum(axis=-1)
    return found
