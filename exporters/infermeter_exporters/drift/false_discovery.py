"""Many tests at once: p-values that hold for all of them."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats


def benjamini_hochberg(pvalues: ArrayLike) -> Floats:
    """P-values by which, where they are below a level, at most that part of what is found is expected to be wrong.

    Benjamini and Hochberg (1995), Controlling the False Discovery Rate, in the adjusted form of Yekutieli and Benjamini
    (1999): the smallest, over all ranks k not below that of a value, of p(k) times the number of tests over k.

    Args:
        pvalues: of the features of one model, 0 to 1, of shape (tests,); NaN for tests that were not made.

    Returns:
        Of the same shape, 0 to 1; NaN where there was no test, which does not count as one.

    Raises:
        ValueError: a value is outside 0 to 1.
    """
    values = np.asarray(pvalues, dtype=np.float64)
    made = ~np.isnan(values)
    tested = values[made]
    if ((tested < 0) | (tested > 1)).any():
        raise ValueError("a p-value is outside 0 to 1")
    order = np.argsort(tested)
    scaled = tested[order] * len(tested) / np.arange(1, len(tested) + 1)
    adjusted = np.empty_like(tested)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    found = np.full(values.shape, np.nan)
    found[made] = adjusted
    return found
