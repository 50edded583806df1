"""What the accuracy would be, where nobody has told the truth yet."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import Floats, checked, shares


def estimated_accuracy(current: ArrayLike, accuracy: ArrayLike) -> Floats:
    """The accuracy by confidences: sum over bins of the part of all in it times the part of those that was right once.

    Guerra and others (2022) call it confidence-based performance estimation; here on buckets. It sees that inputs
    became harder, and is blind to what makes the model wrong at the same confidence (concept drift).

    Args:
        current: counts of confidences of shape (..., bins).
        accuracy: of each bin on a labelled reference, 0 to 1, of shape (bins,); NaN where none was labelled.

    Returns:
        Of shape (...), 0 to 1; NaN without a count, or with one in a bin of which nothing is known.

    Raises:
        ValueError: counts or ratios are wrong, or of different bins.
    """
    counts = checked(current)
    known = np.asarray(accuracy, dtype=np.float64)
    if known.shape != counts.shape[-1:]:
        raise ValueError(f"accuracies are of the shape {known.shape}, expected {counts.shape[-1:]}")
    if ((known < 0) | (known > 1)).any():
        raise ValueError("an accuracy is outside 0 to 1")
    found: Floats = np.where(counts == 0, 0.0, shares(counts) * known).sum(axis=-1)
    return np.where(counts.sum(axis=-1) > 0, found, np.nan)
