"""What counts are over: bins of numbers or of words; and counts over different bins, brought to common ones."""

import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from infermeter_exporters.drift.bins import Bins, Categories, even_bins, quantile_bins
from infermeter_exporters.drift.counts import Floats

QUANTILES = 30
"""Bins that a reference is cut into for tests: ten of them keep nine tenths of a drift, thirty nearly all of it."""
OUTSIDE = 5
"""What is counted besides bins: no number, infinite, minus infinite, below and above all that the reference had."""
_MOST_NAMES = 200
_NAN, _POSITIVE, _NEGATIVE, _BELOW, _ABOVE = range(OUTSIDE)


class Layout:
    """Bins of numbers or of words; equal ones are equal, and can be keys.

    Args:
        edges: between bins of numbers, growing; a value that equals one belongs below it.
        tested: those of the edges that tests and divergences use; all of them if it is None. The others are for
            distances in the unit of the values, which need finer bins.
        lowest: of the reference; minus infinity where nobody knows.
        highest: of the reference; infinity where nobody knows.
        names: words instead of numbers; all other words are in a last bin.
        sparse: whether bins are only where something was observed, as those of native histograms are.
    """

    def __init__(
        self,
        edges: Iterable[float] = (),
        tested: Iterable[float] | None = None,
        lowest: float = -math.inf,
        highest: float = math.inf,
        names: Iterable[str] | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        self.edges = tuple(edges)
        self.tested = self.edges if tested is None else tuple(tested)
        self.lowest, self.highest = lowest, highest
        self.names = None if names is None else tuple(names)
        self.sparse = sparse

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._all == other._all

    def __hash__(self) -> int:
        return self._hash

    @property
    def numeric(self) -> bool:
        """Whether it is of numbers."""
        return self.names is None

    @property
    def bins(self) -> int:
        """How many there are, without what is outside of them."""
        return len(self.edges) + 1 if self.names is None else len(self.names) + 1

    @property
    def size(self) -> int:
        """The length of an array of counts: bins, and what is outside of them."""
        return self.bins + OUTSIDE

    def counted(self, values: Any) -> Floats:
        """Counts of shape (size,).

        Args:
            values: an array of numbers, or a sequence of words in which None is a missing one.
        """
        found = np.zeros(self.size)
        if self.names is not None:
            words = [word for word in values if word is not None]
            found[: self.bins] = Categories(self.names).counted(words)[0]
            found[self.bins + _NAN] = len(values) - len(words)
        else:
            bins, outside = Bins(np.asarray(self.edges), self.lowest, self.highest).counted(values)
            found[: self.bins], found[self.bins :] = bins, outside
        return found

    def cut(self, counts: Floats) -> Floats:
        """What tests are made of: counts over the tested edges, or over words.

        Args:
            counts: of shape (..., size); what is outside of bins is left out.
        """
        if self._cuts is None:
            return counts[..., : self.bins]
        return np.diff(np.cumsum(counts[..., : self.bins], axis=-1)[..., self._cuts], axis=-1, prepend=0.0)

    def ends(self) -> Floats:
        """Edges of all bins, with those of the first and the last one, for distances; bins without an end are narrow.

        A histogram of Prometheus begins at 0 where its first bound is above it.
        """
        first, last = self.edges[0], self.edges[-1]
        low = self.lowest if math.isfinite(self.lowest) else 0.0 if first > 0 else -math.inf
        ends = (low if low < first else math.nextafter(first, -math.inf), *self.edges)
        high = self.highest if last < self.highest < math.inf else math.nextafter(last, math.inf)
        return np.asarray((*ends, high))

    def written(self) -> str:
        """As JSON, which `read_layout` reads."""
        if self.names is not None:
            return json.dumps({"names": self.names})
        known = {"lowest": self.lowest, "highest": self.highest}
        return json.dumps(
            {"edges": self.edges, "tested": self.tested}
            | ({"sparse": True} if self.sparse else {})
            | {name: value for name, value in known.items() if math.isfinite(value)}
        )

    @cached_property
    def _all(self) -> tuple[object, ...]:
        return self.edges, self.tested, self.lowest, self.highest, self.names, self.sparse

    @cached_property
    def _hash(self) -> int:
        return hash(self._all)

    @cached_property
    def _cuts(self) -> list[int] | None:
        if self.names is not None or self.tested == self.edges:
            return None
        return [*(bisect_left(self.edges, edge) for edge in self.tested), self.bins - 1]


class Histogram(NamedTuple):
    """Counts over a layout; those of two times or instances can be added.

    Attributes:
        layout: of shape (size,).
        counts: the same.
    """

    layout: Layout
    counts: Floats

    @property
    def samples(self) -> float:
        """All that was observed in bins."""
        return float(self.counts[: self.layout.bins].sum())

    @property
    def non_finite(self) -> float:
        """No numbers, infinite ones, and missing words."""
        outside = self.counts[self.layout.bins :]
        return float(outside[_NAN] + outside[_POSITIVE] + outside[_NEGATIVE])

    @property
    def out_of_range(self) -> float:
        """Numbers below or above all that the reference had."""
        outside = self.counts[self.layout.bins :]
        return float(outside[_BELOW] + outside[_ABOVE])

    @property
    def new_words(self) -> float:
        """Words that the reference did not have."""
        return float(self.counts[self.layout.bins - 1]) if not self.layout.numeric else 0.0

    def over(self, layout: Layout) -> "Histogram":
        """The same over a layout whose edges or names this one has as well."""
        if layout == self.layout:
            return self
        return Histogram(layout, _moved(self.layout, layout, self.counts))


def learnt(values: Any) -> Layout:
    """The layout that a reference fixes.

    Args:
        values: an array of numbers, or a sequence of words in which None is a missing one.

    Raises:
        ValueError: there is no finite number and no word among them.
    """
    if len(values) and not isinstance(values, np.ndarray):
        words = Counter(word for word in values if word is not None)
        if not words:
            raise ValueError("the reference has no word, expected some")
        # Of more, the rarest are all others: bins of one observation each say nothing.
        return Layout(names=sorted(word for word, _ in words.most_common(_MOST_NAMES)))
    tested, fine = quantile_bins(values, QUANTILES), even_bins(values) if len(values) else None
    if fine is None or tested.lowest == tested.highest:
        # Of one value for ever, each other one is news, also a smaller one.
        return Layout((math.nextafter(tested.lowest, -math.inf), tested.lowest), None, tested.lowest, tested.highest)
    edges = np.union1d(tested.edges, fine.edges)
    return Layout(edges.tolist(), tested.edges.tolist(), tested.lowest, tested.highest)


def cut_anew(histogram: Histogram) -> Histogram:
    """The same as a reference: tests use those of its edges that cut it best into bins of about as many."""
    layout = histogram.layout
    if not layout.numeric or layout.sparse or not histogram.samples or layout.tested == layout.edges:
        return histogram
    parts = np.cumsum(histogram.counts[: layout.bins]) / histogram.samples
    places = np.unique(np.searchsorted(parts[:-1], np.arange(1, QUANTILES) / QUANTILES))
    tested = [layout.edges[place] for place in places if place < len(layout.edges)]
    made = Layout(layout.edges, tested or None, layout.lowest, layout.highest)
    return Histogram(made, histogram.counts)


def read_layout(text: str) -> Layout:
    """What `Layout.written` wrote."""
    found = json.loads(text)
    if "names" in found:
        return Layout(names=found["names"])
    ends = found.get("lowest", -math.inf), found.get("highest", math.inf)
    return Layout(found["edges"], found["tested"], *ends, sparse=found.get("sparse", False))


@lru_cache(maxsize=10_000)
def common(first: Layout, second: Layout) -> Layout | None:
    """The finest layout to which both can be brought exactly: edges or names that both have.

    Its range, and which edges are tested, are of the first one. None if they have nothing in common.
    """
    if first == second:
        return first
    if first.names is not None and second.names is not None:
        names = set(first.names) & set(second.names)
        return Layout(names=sorted(names)) if names else None
    edges = set(first.edges) & set(second.edges)
    if first.names is not None or second.names is not None or not edges:
        return None
    tested = [edge for edge in first.tested if edge in edges]
    return Layout(sorted(edges), tested or None, first.lowest, first.highest)


def aligned(first: Histogram, second: Histogram) -> tuple[Histogram, Histogram] | None:
    """Both over the finest layout to which they can be brought exactly; None if they have nothing in common."""
    if first.layout.sparse and second.layout.sparse:
        edges = sorted(_kept(first, second) | _kept(second, first))
        layout: Layout | None = Layout(edges, sparse=True) if edges else None
    else:
        layout = common(first.layout, second.layout)
    return None if layout is None else (first.over(layout), second.over(layout))


def _kept(first: Histogram, second: Histogram) -> set[float]:
    """Edges of the first that no observation of the second straddles: those of its own, and those in empty bins."""
    edges, counts = second.layout.edges, second.counts
    own = set(edges)
    return {edge for edge in first.layout.edges if edge in own or not counts[bisect_left(edges, edge)]}


def added(histograms: Iterable[Histogram]) -> Histogram | None:
    """The sum over what their layouts have in common; None of none, or if they have nothing in common."""
    total: Histogram | None = None
    for one in histograms:
        if total is None:
            total = one
            continue
        pair = aligned(total, one)
        if pair is None:
            return None
        total = Histogram(pair[0].layout, pair[0].counts + pair[1].counts)
    return total


def from_cumulative(bounds: Sequence[float], cumulative: ArrayLike) -> Histogram:
    """What buckets of Prometheus say.

    Args:
        bounds: `le`, growing, the last one infinite.
        cumulative: at most each of them. Counters that were extrapolated may fall by a little, which is taken as 0.

    Raises:
        ValueError: there is no finite bound.
    """
    if len(bounds) < 2 or bounds[-1] != math.inf:  # noqa: PLR2004
        raise ValueError("buckets have no finite bound or no infinite one, expected both")
    layout = _of_bounds(tuple(bounds))
    counts = np.zeros(layout.size)
    counts[: layout.bins] = np.maximum(np.diff(np.asarray(cumulative, dtype=np.float64), prepend=0.0), 0.0)
    return Histogram(layout, counts)


def from_native(buckets: Iterable[tuple[float, float, float]]) -> Histogram:
    """What a native histogram of Prometheus says, bucket by bucket.

    Args:
        buckets: lower bound, upper bound and count of those that are not empty.

    Raises:
        ValueError: there is no bucket.
    """
    found = sorted(buckets)
    edges = sorted({edge for low, high, _ in found for edge in (low, high) if math.isfinite(edge)})
    if not edges:
        raise ValueError("a native histogram has no bucket, expected some")
    layout = Layout(edges, sparse=True)
    counts = np.zeros(layout.size)
    for _, high, count in found:
        counts[bisect_left(edges, high)] += count
    return Histogram(layout, counts)


@lru_cache(maxsize=10_000)
def _of_bounds(bounds: tuple[float, ...]) -> Layout:
    return Layout(bounds[:-1])


def _moved(before: Layout, after: Layout, counts: Floats) -> Floats:
    found = np.zeros(after.size)
    found[after.bins :] = counts[before.bins :]
    if before.names is not None and after.names is not None:
        places = {name: place for place, name in enumerate(after.names)}
        for name, count in zip((*before.names, None), counts, strict=False):
            found[places.get(name or "", len(places)) if name is not None else len(places)] += count
        return found
    # Of an edge that is none of before's, the bin that it is in is empty: see `aligned`.
    places_of = [bisect_left(before.edges, edge) for edge in after.edges]
    cumulative = np.cumsum(counts[: before.bins])
    found[: after.bins] = np.diff([*cumulative[places_of], cumulative[-1]], prepend=0.0)
    return found
