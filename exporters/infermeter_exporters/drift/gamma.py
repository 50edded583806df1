"""The tail of the chi-square distribution, for whole arrays and without SciPy, which would weigh more than the rest."""

import math

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats

_TINY = 1e-300
_PRECISE = 1e-15
_STEPS = 1000


def chi_square_tail(statistic: ArrayLike, degrees: ArrayLike) -> Floats:
    """How probable at least `statistic` is under the chi-square distribution: Q(degrees / 2, statistic / 2).

    Abramowitz and Stegun (1964), 26.4.19; the regularised incomplete gamma function by its series, 6.5.29, below
    a + 1, and by its continued fraction, 6.5.31, above, after Lentz (1976).

    Args:
        statistic: 0 or more.
        degrees: of freedom, 0 or more; with none there is nothing to test, and the result is NaN.

    Returns:
        0 to 1, to a relative precision of 1e-12 where it is above 1e-300.
    """
    x, a = np.broadcast_arrays(np.asarray(statistic, np.float64) / 2, np.asarray(degrees, np.float64) / 2)
    found = np.full(x.shape, np.nan)
    known = np.isfinite(x) & (x >= 0) & (a > 0)
    low, high = known & (x < a + 1), known & (x >= a + 1)
    found[low] = 1 - _scale(a[low], x[low]) * _series(a[low], x[low])
    found[high] = _scale(a[high], x[high]) * _fraction(a[high], x[high])
    found[np.isposinf(x) & (a > 0)] = 0.0
    tail: Floats = np.clip(found, 0.0, 1.0)
    return tail


def _scale(a: Floats, x: Floats) -> Floats:
    """x^a exp(-x) / Gamma(a)."""
    kinds, which = np.unique(a, return_inverse=True)
    logarithms = np.array([math.lgamma(one) for one in kinds])[which] if kinds.size else np.zeros(0)
    with np.errstate(divide="ignore"):
        found: Floats = np.exp(a * np.log(x) - x - logarithms)
    return found


def _series(a: Floats, x: Floats) -> Floats:
    term = 1 / a
    total = term.copy()
    for step in range(1, _STEPS):
        term = term * x / (a + step)
        total += term
        if (term < total * _PRECISE).all():
            break
    return total


def _fraction(a: Floats, x: Floats) -> Floats:
    b = x + 1 - a
    c = np.full_like(x, 1 / _TINY)
    d = 1 / b
    total = d.copy()
    for step in range(1, _STEPS):
        numerator = -step * (step - a)
        b = b + 2
        d = numerator * d + b
        d = 1 / np.where(np.abs(d) < _TINY, _TINY, d)
        c = b + numerator / c
        c = np.where(np.abs(c) < _TINY, _TINY, c)
        change = d * c
        total = total * change
        if (np.abs(change - 1) < _PRECISE).all():
            break
    return total
