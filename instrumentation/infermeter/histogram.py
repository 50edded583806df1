"""A classic histogram that takes its values in bulk."""

import math

import numpy as np
from numpy.typing import NDArray

# Up to here a binary search per value is cheaper; beyond, one vectorised comparison per edge is, by up to nine times.
_SEARCH_BELOW = 2500


class Histogram:
    """Counts of values up to each edge, with their number and sum; agrees with prometheus_client bucket by bucket.

    Attributes:
        edges: inclusive upper bounds, strictly increasing, without infinity; shape (n,).
        cumulative: number of values <= each edge; shape (n,), int64.
        count: number of values.
        total: sum of values.
    """

    __slots__ = ("_edges32", "_edges64", "count", "cumulative", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self._edges64 = np.array(edges, dtype=np.float64)
        # For a float32 value, "<= edge" and "<= the largest float32 that is no greater than edge" are the same.
        with np.errstate(over="ignore"):  # an edge beyond the largest float32 becomes that one
            rounded = self._edges64.astype(np.float32)
        below = np.nextafter(rounded, np.float32(-np.inf))
        self._edges32 = np.where(rounded.astype(np.float64) > self._edges64, below, rounded)
        self.cumulative: NDArray[np.int64] = np.zeros(len(edges), dtype=np.int64)
        self.count = 0
        self.total = 0.0

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
        edges = self._edges32 if values.dtype == np.float32 else self._edges64
        if len(values) < _SEARCH_BELOW:
            # side="left": a value equal to an edge belongs to that edge's bucket, as in prometheus_client.
            buckets = edges.searchsorted(values, side="left")
            self.cumulative += np.bincount(buckets, minlength=len(edges) + 1)[:-1].cumsum()
        else:
            # Edges below the lowest value hold none and edges above the highest all, which spares detectors, whose
            # confidences begin at a threshold, a third of the work.
            lowest, highest = values.min(), values.max()
            counts = [
                0 if edge < lowest else len(values) if edge >= highest else np.count_nonzero(values <= edge)
                for edge in edges
            ]
            self.cumulative += np.array(counts, dtype=np.int64)
        self.count += len(values)
        self.total += total
