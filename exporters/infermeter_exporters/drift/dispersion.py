"""How much more counts vary than those of independent observations would: frames of a film are not independent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats, checked
from infermeter_exporters.drift.pooling import ENOUGH

PARTS = 10
"""Into which the time of a reference is cut, to see how much they differ."""
_LEAST = 20.0
"""Observations of a part that says anything."""


def dispersion(parts: Sequence[ArrayLike]) -> float:
    """Pearson's chi-square between parts of one reference over its degrees of freedom, at least 1.

    It is the median over pairs of parts, so that one part in which something happened does not hide what happens now;
    divided by the median of chi-square, after Wilson and Hilferty (1931).

    It is about 1 where observations are independent, and as many times more as there are alike ones in a row. Dividing
    counts by it makes tests right again: Rao and Scott (1981), The Analysis of Categorical Data from Complex Sample
    Surveys; McCullagh and Nelder (1989), Generalized Linear Models, 4.5. What changes from part to part without being
    drift, as from one week to the next, is in it too.

    Args:
        parts: counts of shape (bins,) each, over the same bins. Those that hold too little are left out.

    Returns:
        1 where there are fewer than two parts, or nothing differs.

    Raises:
        ValueError: counts are wrong.
    """
    counts = [checked(part) for part in parts]
    held = np.array([part for part in counts if part.sum() >= _LEAST])
    if len(held) < 2:  # noqa: PLR2004
        return 1.0
    sizes = held.sum(axis=1)
    pooled = _pooled(held, sizes.min() / sizes.sum())
    degrees = int(pooled.shape[1] - 1)
    if not degrees:
        return 1.0
    first, second = np.triu_indices(len(pooled), 1)
    n, m = sizes[first, None], sizes[second, None]
    both = pooled[first] + pooled[second]  # where both are empty, nothing differs
    gaps = np.square(pooled[first] / n - pooled[second] / m) * n * m / np.where(both > 0, both, 1.0)
    statistics = np.sort(gaps.sum(axis=1))
    # The lower one of two in the middle: of the pairs of four parts, three are of one of them.
    median = float(statistics[(len(statistics) - 1) // 2])
    return max(1.0, median / (degrees * (1 - 2 / (9 * degrees)) ** 3))


def _pooled(held: Floats, smallest: float) -> Floats:
    """Adjacent bins put together until enough is expected in each of them of the smallest part."""
    groups: list[list[int]] = [[]]
    expected, whole = 0.0, held.sum(axis=0) * smallest
    for place, more in enumerate(whole.tolist()):
        if expected >= ENOUGH:
            groups.append([])
            expected = 0.0
        groups[-1].append(place)
        expected += more
    if expected < ENOUGH and len(groups) > 1:
        last = groups.pop()
        groups[-1] += last
    return np.stack([held[:, group].sum(axis=1) for group in groups], axis=1)
