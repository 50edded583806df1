"""Rows: the samples of one family for one set of label values, as numbers side by side, and their text.

A scrape renders only the rows that changed since the last one. Rows are read and written under the fold lock.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from infermeter.catalogue import FAMILIES, Family
from infermeter.native import MAX_BUCKETS, Native, width
from infermeter.observation import Exemplar

if TYPE_CHECKING:
    from numpy.typing import NDArray


_NONE: Mapping[int, Exemplar] = {}
_BATCH = 32
_CLASSIC: Mapping[str, str] = {}


class Row:
    """One row.

    Attributes:
        labels: values of the labels that the family shares with others of its kind (service, model, version).
        own: values of the family's own labels ("" where it has none).
        values: float64, shape (n,). Counters, gauges and infos have one; a histogram the number of values up to each
            edge, their number, and their sum; a summary number and sum.
        stale: whether `text` is older than the values.
        text: the lines of the row, as rendered last.
        message: the row as protobuf, if it has not changed since.
        exemplars: of a histogram, by the index of their bucket.
        native: the native buckets of a histogram that has some.
    """

    __slots__ = ("exemplars", "family", "labels", "message", "native", "own", "stale", "text", "values")

    def __init__(self, family: Family, labels: tuple[str, ...], own: tuple[str, ...], width: int) -> None:
        self.family = family
        self.labels = labels
        self.own = own
        self.values: NDArray[np.float64] = np.zeros(width)
        self.stale = True
        self.text = ""
        self.message: bytes | None = None
        self.exemplars: Mapping[int, Exemplar] = _NONE
        self.native: Native | None = None

    def add(self, *numbers: float) -> None:
        """Count so much more."""
        for index, number in enumerate(numbers):
            if number:
                self.values[index] += number
                self.changed()

    def set(self, *values: float) -> None:
        """Take other values."""
        for index, value in enumerate(values):
            if self.values[index] != value:
                self.values[index] = value
                self.changed()

    def changed(self) -> None:
        """Have it rendered anew."""
        self.stale = True
        self.message = None


class Edges:
    """The edges of one family, for values of either width; shared by all its histograms.

    Args:
        edges: inclusive upper bounds, strictly increasing, without infinity; shape (n,).
    """

    __slots__ = ("float32", "float64")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.float64 = np.array(edges, dtype=np.float64)
        # For a float32 value, "<= edge" and "<= the largest float32 that is no greater than edge" are the same.
        with np.errstate(over="ignore"):  # an edge beyond the largest float32 becomes that one
            rounded = self.float64.astype(np.float32)
        below = np.nextafter(rounded, np.float32(-np.inf))
        self.float32 = np.where(rounded.astype(np.float64) > self.float64, below, rounded)


class Rows:
    """Every row of a ledger, by family in the order of the catalogue.

    Args:
        edges: upper edges of the buckets by histogram family.
        modes: families that are "native" or "both"; the others are classic.
        max_native_buckets: populated buckets of a native histogram before its resolution is halved.
    """

    def __init__(
        self,
        edges: Mapping[str, tuple[float, ...]],
        modes: Mapping[str, str] = _CLASSIC,
        max_native_buckets: int = MAX_BUCKETS,
    ) -> None:
        self.edges = edges
        self.modes = modes
        self._native_width = width(max_native_buckets)
        self._edges: dict[str, Edges] = {}
        self._families: dict[str, dict[tuple[tuple[str, ...], tuple[str, ...]], Row]] = {name: {} for name in FAMILIES}

    def row(self, family: str, labels: tuple[str, ...], own: tuple[str, ...] = ("",)) -> Row:
        """The row of these labels, made at first use. Takes no lock: threads that race get the same one."""
        rows = self._families[family]
        row = rows.get((labels, own))
        if row is None:
            kind = FAMILIES[family].kind
            size = len(self.edges[family]) + 2 if kind == "histogram" else 2 if kind == "summary" else 1
            made = Row(FAMILIES[family], labels, own, size)
            if self.modes.get(family, "classic") != "classic":
                made.native = Native(np.zeros(self._native_width))
            row = rows.setdefault((labels, own), made)
        return row

    def edges_of(self, family: str) -> Edges:
        """The edges of a histogram family, as histograms take them."""
        edges = self._edges.get(family)
        if edges is None:
            edges = self._edges[family] = Edges(self.edges[family])
        return edges

    def remove(self, row: Row) -> None:
        """Forget a row: what it told holds no more."""
        self._families[row.family.name].pop((row.labels, row.own), None)

    def of(self, family: str) -> list[Row]:
        """The rows of a family; inferring threads may add some meanwhile."""
        return list(self._families[family].values())


def batched(rows: list[Row]) -> Iterator[list[Row]]:
    """A few rows at a time, rendered in some tenths of a millisecond."""
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def labels_of(row: Row, constant: Mapping[str, str]) -> dict[str, str]:
    """The labels of a row with their values, by name; `constant` ones on families of a service."""
    names = row.family.labels
    shared = len(row.labels)
    found = dict(zip(names, row.labels, strict=False)) | dict(zip(names[shared:], row.own, strict=False))
    if constant and "service" in found:
        found |= constant
    return dict(sorted(found.items()))
