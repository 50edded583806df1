"""Bins that a reference fixes, and what falls into none of them.

Bins of both samples together would move with what is now: one value far out makes them so wide that nothing is seen.
"""

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
_PIECE = 1 << 14
"""Values at a time: what fits into the nearest cache."""


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
        if len(self.edges) > _FEW:
            counts, finite = self._searched(flat)
        else:
            counts, finite = self._compared(flat)
        if finite == len(flat):
            nan = positive = negative = 0
        else:
            nan = int(np.count_nonzero(np.isnan(flat)))
            positive, negative = int(np.count_nonzero(flat == np.inf)), int(np.count_nonzero(flat == -np.inf))
            counts[-1] -= positive
            counts[0] -= negative
        below = int(np.count_nonzero(flat < self.lowest)) - negative
        above = int(np.count_nonzero(flat > self.highest)) - positive
        return counts, Outside(nan, positive, negative, below, above)

    def _compared(self, flat: NDArray[np.floating]) -> tuple[Floats, int]:
        edges = self.edges.astype(flat.dtype) if flat.dtype == np.float32 else self.edges
        if flat.dtype == np.float32:
            # Rounded up, an edge would take values that are above it.
            edges = np.where(edges > self.edges, np.nextafter(edges, np.float32(-np.inf)), edges)
        at_most = np.zeros(len(edges) + 2)
        finite = 0
        for begin in range(0, len(flat), _PIECE):
            piece = flat[begin : begin + _PIECE]
            for place, edge in enumerate(edges, start=1):
                at_most[place] += np.count_nonzero(piece <= edge)
            at_most[-1] += np.count_nonzero(piece <= np.inf)  # all but NaN
            finite += int(np.count_nonzero(np.isfinite(piece)))
        return np.diff(at_most), finite

    def _searched(self, flat: NDArray[np.floating]) -> tuple[Floats, int]:
        places = np.searchsorted(self.edges, flat, side="left")
        numbers = ~np.isnan(flat)
        counts = np.bincount(places[numbers], minlength=self.number).astype(np.float64)
        return counts, int(np.count_nonzero(np.isfinite(flat)))


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
    edges = np.unique(np.quantile(values, np.arange(1, number) / number))
    return Bins(edges, float(values.min()), float(values.max()))


def even_bins(reference: ArrayLike, number: int = FINE) -> Bins:
    """Bins of one width between the lowest and the highest value of the reference; errors as of `quantile_bins`."""
    values = _finite(reference)
    if number < 2:  # noqa: PLR2004
        raise ValueError(f"{number} bins are asked for, expected 2 or more")
    lowest, highest = float(values.min()), float(values.max())
    edges = np.unique(np.linspace(lowest, highest, number + 1)[1:-1])
    return Bins(edges, lowest, highest)


def _finite(reference: ArrayLike) -> Floats:
    values = np.asarray(reference, dtype=np.float64).reshape(-1)
    values = values[np.isfinite(values)]
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
