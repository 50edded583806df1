"""The Kullback-Leibler divergence: how surprising what is now is to who expects what was."""

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.counts import JEFFREYS, Floats, pair, shares, summed


def kl(reference: ArrayLike, current: ArrayLike, prior: float = JEFFREYS) -> Floats:
    """The divergence KL(current || reference) in nats: sum over bins of q ln(q / p).

    Kullback and Leibler (1951), On Information and Sufficiency. The other direction is `kl(current, reference)`.

    Args:
        reference: counts of shape (..., bins), whose shares are p.
        current: the same, over the same bins, whose shares are q.
        prior: added to each count. With 0, it is infinite where there is now what there never was.

    Returns:
        Of shape (...), 0 or more; NaN where one of the two has no count at all.

    Raises:
        ValueError: counts are wrong, or of different bins.
    """
    before, now = pair(reference, current)
    p, q = shares(before, prior), shares(now, prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = q / p
        np.log(terms, out=terms)
        terms *= q
    if prior == 0:
        np.copyto(terms, 0.0, where=q == 0)
    nothing = (summed(before) == 0) | (summed(now) == 0)
    return np.where(nothing, np.nan, summed(terms))
