"""Tests of whether two samples are of one distribution, whose statistics are distributed as chi-square if they are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermeter_exporters.drift.counts import JEFFREYS, Floats, pair, summed
from infermeter_exporters.drift.gamma import chi_square_tail
from infermeter_exporters.drift.pooling import ENOUGH, pooled

_COARSE = 10
"""Bins of the coarser test, at most."""


class Test(NamedTuple):
    """The outcome of a test; arrays of shape (...).

    Attributes:
        statistic: NaN where one of the samples is empty.
        degrees: of freedom; with 0 there is nothing to test.
        pvalue: how probable at least that statistic is without drift; NaN where nothing is tested.
    """

    statistic: Floats
    degrees: NDArray[np.int64]
    pvalue: Floats


def chi_square(reference: ArrayLike, current: ArrayLike) -> Test:
    """The test of homogeneity over the bins as they are; those that are empty in both are left out.

    Pearson (1900), and of two samples Fisher (1922), On the Interpretation of Chi-square from Contingency Tables. With
    few observations in a bin its p-values are too small: `pooled_chi_square` is for decisions.

    Args:
        reference: counts of shape (..., bins).
        current: the same, over the same bins.

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(reference, current)
    return _pearson(before, now)


def pooled_chi_square(reference: ArrayLike, current: ArrayLike, enough: ArrayLike = ENOUGH) -> Test:
    """The same over bins that were put together so that `enough` is expected in each; see `pooling`."""
    made = pooled(reference, current, enough)
    return _pearson(made.reference, made.current)


def drift_pvalue(reference: ArrayLike, current: ArrayLike, fine: Test | None = None) -> Floats:
    """How probable such a difference is without drift, over fine bins or over coarse ones, whichever shows more of it.

    Fine bins see what happens in a tail. In few observations, coarse ones see a shift of the whole, which many degrees
    of freedom would hide. Of two p-values the smaller one counts twice (Bonferroni, 1936).

    Args:
        reference: counts of shape (..., bins).
        current: the same, over the same bins.
        fine: what `pooled_chi_square` says of them, if that is known.

    Returns:
        Of shape (...), 0 to 1; NaN where nothing is tested.

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(reference, current)
    fine = pooled_chi_square(before, now) if fine is None else fine
    coarse = pooled_chi_square(before, now, np.maximum(np.minimum(summed(before), summed(now)) / _COARSE, ENOUGH))
    both = np.minimum(2 * np.fmin(fine.pvalue, coarse.pvalue), 1.0)
    return np.where(fine.degrees == coarse.degrees, fine.pvalue, both)


def psi_test(reference: ArrayLike, current: ArrayLike, prior: float = JEFFREYS) -> Test:
    """The population stability index as a test, over bins that were put together; arguments as of `chi_square`.

    Yurdakul (2018): without drift PSI / (1 / n + 1 / m) is distributed as chi-square with bins - 1 degrees of freedom.
    """
    made = pooled(reference, current)
    n, m = made.reference.sum(axis=-1), made.current.sum(axis=-1)
    inside = np.arange(made.reference.shape[-1]) < made.bins[..., None]
    p, q = (
        np.where(inside, counts + prior, 1.0) / (counts.sum(axis=-1) + prior * made.bins)[..., None]
        for counts in (made.reference, made.current)
    )
    index = np.where(inside, (q - p) * np.log(q / p), 0.0).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic: Floats = np.where((n > 0) & (m > 0), index / (1 / n + 1 / m), np.nan)
    degrees = made.bins - 1
    return Test(statistic, degrees, chi_square_tail(statistic, degrees))


def _pearson(before: Floats, now: Floats) -> Test:
    n, m = before.sum(axis=-1, keepdims=True), now.sum(axis=-1, keepdims=True)
    both = before + now
    with np.errstate(divide="ignore", invalid="ignore"):
        expected_before, expected_now = both * n / (n + m), both * m / (n + m)
        terms = np.square(before - expected_before) / expected_before + np.square(now - expected_now) / expected_now
    statistic: Floats = np.where(both > 0, terms, 0.0).sum(axis=-1)
    statistic = np.where(((n > 0) & (m > 0))[..., 0], statistic, np.nan)
    degrees = np.maximum((both > 0).sum(axis=-1) - 1, 0)
    return Test(statistic, degrees, chi_square_tail(statistic, degrees))
