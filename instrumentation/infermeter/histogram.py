"""A classic histogram that takes its values in bulk."""

import math

import numpy as np
from numpy.typing import NDArray

from infermeter.rows import Edges, HistogramRow

# Up to here a binary search per value is cheaper; beyond, one vectorised comparison per edge is, by up to nine times.
_SEARCH_BELOW = 2500


class Histogram:
    """Counts of values up to each edge, with their number and sum; agrees with prometheus_client bucket by bucket.

    Args:
        row: where the counts are kept.
        edges: inclusive upper bounds.
    """

    __slots__ = ("_edges", "_values", "row")

    def __init__(self, row: HistogramRow, edges: Edges) -> None:
        self.row = row
        self._edges = edges
        self._values = row.values

    @property
    def edges(self) -> NDArray[np.float64]:
        """Inclusive upper bounds; shape (n,)."""
        return self._edges.float64

    @property
    def cumulative(self) -> NDArray[np.float64]:
        """Number of values <= each edge; shape (n,)."""
        return self._values[:-2]

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self._values[-2])

    @property
    def total(self) -> float:
        """Sum of values."""
        return float(self._values[-1])

    def add(self, values: NDArray[np.float32] | NDArray[np.float64]) -> tuple[int, int]:
        """Add `values`, shape (n,), without those that a Prometheus histogram cannot hold.

        NaN and infinity would poison the sum for ever; a negative value makes it fall, which Prometheus reads as a
        restart.

        Returns:
            How many values were not finite, and how many were negative.
        """
        if len(values) == 0:
            return 0, 0
        # One sum and one minimum tell that nothing is wrong, which is nearly always so.
        with np.errstate(over="ignore", invalid="ignore"):  # inf - inf is no warning to the user
            total = float(values.sum(dtype=np.float64))
        if math.isfinite(total) and values.min() >= 0:
            self._add(values, total)
            return 0, 0
        finite = values[np.isfinite(values)]
        kept = finite[finite >= 0]
        with np.errstate(over="ignore"):
            self._add(kept, float(kept.sum(dtype=np.float64)))
        return len(values) - len(finite), len(finite) - len(kept)

    def add_checked(self, values: NDArray[np.float64]) -> None:
        """Add `values`, shape (n,), all finite and none negative."""
        with np.errstate(over="ignore"):
            self._add(values, float(values.sum()))

    def _add(self, values: NDArray[np.float32] | NDArray[np.float64], total: float) -> None:
        cumulative = self._values[:-2]
        edges = self._edges.float32 if values.dtype == np.float32 else self._edges.float64
        if len(values) < _SEARCH_BELOW:
            # side="left": a value equal to an edge belongs to that edge's bucket, as in prometheus_client.
            buckets = edges.searchsorted(values, side="left")
            cumulative += np.bincount(buckets, minlength=len(edges) + 1)[:-1].cumsum()
        else:
            # Edges below the lowest value hold none and edges above the highest all, which spares detectors, whose
            # confidences begin at a threshold, a third of the work.
            lowest, highest = values.min(), values.max()
            counts = [
                0 if edge < lowest else len(values) if edge >= highest else np.count_nonzero(values <= edge)
                for edge in edges
            ]
            cumulative += np.array(counts, dtype=np.float64)
        if self.row.native is not None:
            self.row.native.add(values)
        self._values[-2] += len(values)
        self._values[-1] += total
        self.row.changed()
