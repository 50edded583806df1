"""The test of Kolmogorov and Smirnov: the widest gap between two cumulative distributions."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats, pair, shares

# Of the series; the 101st term is below 1e-300 wherever the sum is used.
_TERMS = np.arange(1, 101, dtype=np.float64)
_SMALLEST = 0.2
"""Below it, the probability is 1 to the last bit of a float."""


def ks(reference: ArrayLike, current: ArrayLike) -> Floats:
    """The widest gap at the edges of the bins, 0 to 1; of the values within the bins it may be wider, never narrower.

    Smirnov (1948), Table for Estimating the Goodness of Fit of Empirical Distributions.

    Args:
        reference: counts of shape (..., bins), bins in the order of the values.
        current: the same, over the same bins.

    Returns:
        Of shape (...); NaN where one of the two has no count.

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(reference, current)
    gaps = shares(before) - shares(now)
    np.cumsum(gaps, axis=-1, out=gaps)
    np.abs(gaps, out=gaps)
    # With one bin of all series after the other, which is several times as quick as all bins of one series.
    found: Floats = np.ascontiguousarray(np.moveaxis(gaps, -1, 0)).max(axis=0)
    return found


def ks_pvalue(statistic: ArrayLike, reference: ArrayLike, current: ArrayLike) -> Floats:
    """How probable a gap of at least that is without any drift, for many observations.

    The limit of Kolmogorov (1933): 2 sum over k of (-1)^(k-1) exp(-2 k^2 x^2), x being sqrt(nm / (n + m)) times the
    gap. On bins it is too large rather than too small (Conover, 1972).

    Args:
        statistic: of `ks`.
        reference: observations in the reference.
        current: observations now.

    Returns:
        0 to 1; NaN where the statistic is.
    """
    n, m = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    with np.errstate(invalid="ignore"):
        x = np.asarray(np.sqrt(n * m / (n + m)) * np.asarray(statistic, np.float64))
    signs = np.where(_TERMS % 2 == 1, 1.0, -1.0)
    series = 2 * (signs * np.exp(-2 * np.square(_TERMS * np.maximum(x, _SMALLEST)[..., None]))).sum(axis=-1)
    found: Floats = np.where(np.isnan(x), np.nan, np.where(x <= _SMALLEST, 1.0, np.clip(series, 0.0, 1.0)))
    return found
