"""A native histogram: exponential buckets of which only the populated ones exist, filled in bulk.

Bucket `i` of schema `s` holds the values above 2^((i-1) * 2^-s), up to and including 2^(i * 2^-s). That is exact, also
where no float64 can hold the bound.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32] | NDArray[np.float64]
Integers = NDArray[np.int64]

SCHEMA = 3  # bounds grow by 2^(1/8), so no quantile is wrong by more than 9 %, and most by half of that
MAX_BUCKETS = 160
# The lowest resolution that Prometheus knows; its bounds are powers of 65536.
_LOWEST = -4
# A power of 65536 too, so that it is a bound in every schema; client_golang's default.
_ZERO_THRESHOLD = 2.0**-128

_SCHEMA, _THRESHOLD, _ZERO, _COUNT, _TOTAL, _USED, _HEADER = range(7)


class Sparse(NamedTuple):
    """The buckets of a native histogram, as Prometheus wants to be told.

    Attributes:
        schema: -4 to 8.
        zero_threshold: inclusive upper bound of the zero bucket.
        zero_count: number of values in the zero bucket.
        spans: runs of populated buckets: the distance to the run before (of the first one, its index), and the length.
        deltas: the count of each populated bucket, less that of the populated one before.
        negative_spans, negative_deltas: the same for values below zero; ours have none.
    """

    schema: int
    zero_threshold: float
    zero_count: int
    spans: list[tuple[int, int]]
    deltas: Integers
    negative_spans: list[tuple[int, int]] = []  # noqa: RUF012 - read only, like every part of a tuple
    negative_deltas: Integers = np.zeros(0, np.int64)


def width(max_buckets: int = MAX_BUCKETS) -> int:
    """How many float64 the state of a histogram takes that has up to `max_buckets` populated buckets, 1 or more."""
    return _HEADER + 2 * max_buckets


class Native:
    """A native histogram whose whole state is one array.

    When more buckets would be populated than the array has places, pairs of neighbours become one, down to bounds that
    are powers of 65536; where that is not enough, the lowest buckets join the zero bucket.

    Args:
        view: shape (`width(max_buckets)`,); all zeros, or what a histogram has left in it.
        schema: the resolution to begin with, -4 to 8, in a view of zeros.
    """

    __slots__ = ("_counts", "_indices", "state")

    def __init__(self, view: NDArray[np.float64], schema: int = SCHEMA) -> None:
        most = (len(view) - _HEADER) // 2
        self.state = view
        self._indices = view[_HEADER : _HEADER + most]
        self._counts = view[_HEADER + most : _HEADER + 2 * most]
        if not view[_THRESHOLD]:
            view[_SCHEMA] = schema
            view[_THRESHOLD] = _ZERO_THRESHOLD

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.state[_COUNT])

    @property
    def total(self) -> float:
        """Sum of values."""
        return float(self.state[_TOTAL])

    def add(self, values: Values) -> None:
        """Add `values`, shape (n,), all finite and none negative."""
        if len(values) == 0:
            return
        state = self.state
        doubles = values.astype(np.float64, copy=False)
        above = doubles[doubles > state[_THRESHOLD]]
        if len(above):
            indices = _bucket(above, int(state[_SCHEMA]))
            lowest = indices.min()
            counts = np.bincount(indices - lowest)
            (populated,) = counts.nonzero()
            self._put(populated + lowest, counts[populated])
        state[_ZERO] += len(doubles) - len(above)
        state[_COUNT] += len(doubles)
        with np.errstate(over="ignore"):
            state[_TOTAL] += doubles.sum()

    def sparse(self) -> Sparse:
        """Its buckets, as they are now."""
        state = self.state
        used = int(state[_USED])
        deltas = self._counts[:used].astype(np.int64)
        deltas[1:] -= deltas[:-1].copy()
        spans: list[tuple[int, int]] = []
        if used:
            indices = self._indices[:used].astype(np.int64)
            gaps = indices[1:] - indices[:-1]
            starts = [0, *((gaps > 1).nonzero()[0] + 1).tolist()]
            offsets = [int(indices[0]), *(gaps[gaps > 1] - 1).tolist()]
            spans = [
                (offset, end - start) for offset, start, end in zip(offsets, starts, [*starts[1:], used], strict=True)
            ]
        return Sparse(
            int(state[_SCHEMA]),
            float(state[_THRESHOLD]),
            int(state[_ZERO]),
            spans,
            deltas,
        )

    def absorb(self, view: NDArray[np.float64]) -> None:
        """Add what the histogram in `view` holds."""
        self.state[:] = merge((self.state, view), len(self._indices))

    def _put(self, indices: Integers, counts: NDArray[Any]) -> None:
        """Add `counts` to the buckets `indices`, which are sorted and distinct."""
        used = int(self.state[_USED])
        known = self._indices[:used]
        places = known.searchsorted(indices)
        if used and places[-1] < used and np.array_equal(known[places], indices):
            self._counts[places] += counts
            return
        every = np.concatenate((known.astype(np.int64), indices))
        self._replace(every, np.concatenate((self._counts[:used], counts)))

    def _replace(self, indices: Integers, counts: NDArray[Any]) -> None:
        """Hold these buckets instead, those of equal index together, at a lower resolution if they are too many."""
        state, most = self.state, len(self._indices)
        schema = int(state[_SCHEMA])
        indices, counts = _together(indices, counts)
        while len(indices) > most and schema > _LOWEST:
            schema -= 1
            indices, counts = _together(_coarser(indices, 1), counts)
        surplus = len(indices) - most
        if surplus > 0:
            state[_THRESHOLD] = math.ldexp(1.0, int(indices[surplus - 1]) << -_LOWEST)
            state[_ZERO] += counts[:surplus].sum()
            indices, counts = indices[surplus:], counts[surplus:]
        state[_SCHEMA] = schema
        state[_USED] = used = len(indices)
        self._indices[:used], self._indices[used:] = indices, 0
        self._counts[:used], self._counts[used:] = counts, 0


def merge(views: Iterable[NDArray[np.float64]], max_buckets: int = MAX_BUCKETS) -> NDArray[np.float64]:
    """The state of one histogram of all that the histograms in `views` hold, at the lowest of their resolutions.

    A view of zeros, which no histogram has used yet, holds nothing. The views are not changed.
    """
    merged = np.zeros(width(max_buckets))
    used_views = [view for view in views if view[_THRESHOLD]]
    if not used_views:
        return merged
    schema = min(int(view[_SCHEMA]) for view in used_views)
    threshold = max(float(view[_THRESHOLD]) for view in used_views)
    parts = []
    for view in used_views:
        used, most = int(view[_USED]), (len(view) - _HEADER) // 2
        indices = _coarser(view[_HEADER : _HEADER + used].astype(np.int64), int(view[_SCHEMA]) - schema)
        parts.append((indices, view[_HEADER + most : _HEADER + most + used]))
    every, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    # Thresholds are bounds in every schema: this is the highest bucket that the widest zero bucket covers.
    covered = every <= math.ldexp(math.frexp(threshold)[1] - 1, schema)
    with np.errstate(over="ignore"):
        merged[_ZERO : _TOTAL + 1] = np.sum([view[_ZERO : _TOTAL + 1] for view in used_views], axis=0)
    merged[_ZERO] += counts[covered].sum()
    merged[_SCHEMA], merged[_THRESHOLD] = schema, threshold
    Native(merged)._replace(every[~covered], counts[~covered])
    return merged


@lru_cache
def _bounds(schema: int) -> NDArray[np.float64]:
    """The lower bounds of the buckets from 0.5 to 1, for a schema of 0 to 8."""
    roots = []
    for step in range(1 << schema):
        # The integer part of a bound with 53 bits is the largest float64 that is no greater: no value lies in between.
        root = 1 << (step + (52 << schema))
        for _ in range(schema):
            root = math.isqrt(root)
        roots.append(math.ldexp(root, -53))
    return np.array(roots)


def _bucket(values: NDArray[np.float64], schema: int) -> Integers:
    """The bucket of each of `values`, all above zero."""
    # Not by the logarithm, which is wrong on exact powers.
    fraction, exponent = np.frexp(values)
    fine = max(schema, 0)
    indices = _bounds(fine).searchsorted(fraction) + ((exponent.astype(np.int64) - 1) << fine)
    return _coarser(indices, fine - schema)


def _coarser(indices: Integers, times: int) -> Integers:
    """The buckets that hold the buckets `indices` once the resolution has been halved so many times."""
    return -(-indices >> times)


def _together(indices: Integers, counts: NDArray[Any]) -> tuple[Integers, NDArray[Any]]:
    """The distinct indices in order, and the sum of the counts of each."""
    distinct, places = np.unique(indices, return_inverse=True)
    return distinct, np.bincount(places, weights=counts, minlength=len(distinct))
