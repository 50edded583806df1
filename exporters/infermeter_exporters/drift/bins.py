"""Bins that a reference fixes, and what falls into none of them.

Bins of both samples together would move with what is now: one value far out makes them so wide that nothing is seen.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermeter_exporters.drift.counts import Floats

DECILES = 10
FINE = 100
"""Bins for distances in the unit of the values."""
# Below so many edges, a pass over all values for each edge is quicker than a search for each value.
_FEW = 64
_PIECE = 1 << 16
"""Values at a time: few enough for a cache, and enough that calls cost little."""
_LEARNT = 1 << 17
"""Values that quantiles are taken of. Of more, so many are drawn: a tenth is then off by 0.8 % of it (one sigma)."""


class Outside(NamedTuple):
    """How many values are in no bin.

    Attributes:
        nan: no number.
        positive: infinite.
        negative: infinite and below 0.
        below: finite, and below all that the reference had.
        above: the same above. Both are counted in the first and the last bin all the same.
    """

    nan: int
    positive: int
    negative: int
    below: int
    above: int


class Bins(NamedTuple):
    """Bins of numbers.

    Attributes:
        edges: between bins, growing; a value that equals one belongs below it, as with `le` of Prometheus. The first
            and the last bin are open.
        lowest: of the reference.
        highest: the same.
    """

    edges: Floats
    lowest: float
    highest: float

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.edges) + 1

    def counted(self, values: ArrayLike) -> tuple[Floats, Outside]:
        """Counts of shape (bins,), and what is in none.

        Args:
            values: of any shape.
        """
        flat = np.asarray(values).reshape(-1)
        if flat.dtype not in (np.float32, np.float64):
            flat = flat.astype(np.float64)
        counts = self._searched(flat) if len(self.edges) > _FEW else self._compared(flat)
        outside = np.zeros(len(Outside._fields), dtype=np.int64)
        for begin in range(0, len(flat), _PIECE):
            outside += self._outside(flat[begin : begin + _PIECE])
        found = Outside(*outside.tolist())
        counts[-1] -= found.nan + found.positive
        counts[0] -= found.negative
        return counts, found

    def _outside(self, piece: NDArray[np.floating]) -> Outside:
        """Mostly there is nothing to count, as the extremes tell, which take less time than a comparison."""
        least, most = float(piece.min()), float(piece.max())
        nan = positive = negative = below = above = 0
        if not np.isfinite(least + most):
            nan = int(np.count_nonzero(np.isnan(piece)))
            positive, negative = int(np.count_nonzero(piece == np.inf)), int(np.count_nonzero(piece == -np.inf))
        if not least >= self.lowest:  # of NaN, nothing is known
            below = int(np.count_nonzero(piece < self.lowest)) - negative
        if not most <= self.highest:
            above = int(np.count_nonzero(piece > self.highest)) - positive
        return Outside(nan, positive, negative, below, above)

    def _compared(self, flat: NDArray[np.floating]) -> Floats:
        edges = self.edges.astype(flat.dtype) if flat.dtype == np.float32 else self.edges
        if flat.dtype == np.float32:
            # Rounded up, an edge would take values that are above it.
            edges = np.where(edges > self.edges, np.nextafter(edges, np.float32(-np.inf)), edges)
        at_most = np.zeros(len(edges) + 2)
        for begin in range(0, len(flat), _PIECE):
            piece = flat[begin : begin + _PIECE]
            for place, edge in enumerate(edges, start=1):
                at_most[place] += np.count_nonzero(piece <= edge)
        at_most[-1] = len(flat)
        return np.diff(at_most)

    def _searched(self, flat: NDArray[np.floating]) -> Floats:
        places = np.searchsorted(self.edges, flat, side="left")
        return np.bincount(places, minlength=self.number).astype(np.float64)


def quantile_bins(reference: ArrayLike, number: int = DECILES) -> Bins:
    """Bins that hold about as many values of the reference each; fewer where values repeat.

    Args:
        reference: values of any shape; those that are not finite are left out.
        number: of bins, 2 or more.

    Raises:
        ValueError: no value is finite, or fewer than 2 bins are asked for.
    """
    values = _finite(reference)
    if number < 2:  # noqa: PLR2004
        raise ValueError(f"{number} bins are asked for, expected 2 or more")
    # Drawn, since what is taken at regular distances may have a rhythm of its own; always the same, so that bins are.
    learnt = values
    if len(values) > _LEARNT:
        learnt = values[np.random.default_rng(0).integers(0, len(values), _LEARNT)]
    lowest, highest = float(values.min()), float(values.max())
    smaller = _scale(lowest, highest)
    edges = np.unique(np.quantile(learnt * smaller, np.arange(1, number) / number) / smaller)
    return Bins(edges, lowest, highest)


def even_bins(reference: ArrayLike, number: int = FINE) -> Bins:
    """Bins of one width between the lowest and the highest value of the reference; errors as of `quantile_bins`."""
    values = _finite(reference)
    if number < 2:  # noqa: PLR2004
        raise ValueError(f"{number} bins are asked for, expected 2 or more")
    lowest, highest = float(values.min()), float(values.max())
    smaller = _scale(lowest, highest)
    edges = np.unique(np.linspace(lowest * smaller, highest * smaller, number + 1)[1:-1] / smaller)
    return Bins(edges, lowest, highest)


def _scale(lowest: float, highest: float) -> float:
    """By what values are multiplied lest their difference is infinite; a power of two, which changes no digit."""
    return 1.0 if math.isfinite(highest - lowest) else 0.25


def _finite(reference: ArrayLike) -> Floats:
    values = np.asarray(reference, dtype=np.float64).reshape(-1)
    finite = np.isfinite(values)
    if not finite.all():
        values = values[finite]
    if not len(values):
        raise ValueError("the reference has no finite value, expected some")
    return values


class Categories(NamedTuple):
    """Bins of words.

    Attributes:
        names: those of the reference, in the order of their bins; a last bin holds all others.
    """

    names: Sequence[str]

    def counted(self, values: Sequence[str]) -> tuple[Floats, int]:
        """Counts of shape (names + 1,), and how many values are of none of the names."""
        places = {name: place for place, name in enumerate(self.names)}
        counts = np.zeros(len(self.names) + 1)
        for value in values:
            counts[places.get(value, len(self.names))] += 1
        return counts, int(counts[-1])
