"""How sure one can be of a ratio that was counted."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats

NORMAL_95 = 1.959963984540054
"""The standard normal distribution is between minus and plus this with a probability of 95 %."""


def wilson(successes: ArrayLike, total: ArrayLike, z: float = NORMAL_95) -> tuple[Floats, Floats]:
    """The lower and the upper bound of a ratio.

    Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference: all ratios that a test would
    not reject.

    Args:
        successes: how many were right, 0 to `total`.
        total: how many there were.
        z: how many standard deviations are allowed.

    Returns:
        0 to 1; NaN where there were none.

    Raises:
        ValueError: there are more successes than there were tries, or fewer than none.
    """
    right, n = np.asarray(successes, np.float64), np.asarray(total, np.float64)
    if (right < 0).any() or (right > n).any():
        raise ValueError("successes are below 0 or above the total")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = right / n
        centre = ratio + z * z / (2 * n)
        width = z * np.sqrt(ratio * (1 - ratio) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        low: Floats = np.where(n > 0, np.clip((centre - width) / scale, 0.0, 1.0), np.nan)
        high: Floats = np.where(n > 0, np.clip((centre + width) / scale, 0.0, 1.0), np.nan)
    return low, high
