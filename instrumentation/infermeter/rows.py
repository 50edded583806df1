"""Rows: the samples of one family for one set of label values, as numbers side by side, and their text.

A scrape renders only the rows that changed since the last one. Rows are read and written under the fold lock.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from infermeter.catalogue import FAMILIES, Family
from infermeter.extent import SharedRow
from infermeter.native import MAX_BUCKETS, Native
from infermeter.observation import Exemplar
from infermeter.sharing import Key

_NONE: Mapping[int, Exemplar] = {}
_BATCH = 32
_NOTHING: Mapping[str, str] = {}


class Memory(Protocol):
    """Where rows outlive their process.

    Attributes:
        targets: by number of the shared row, whatever a record may name.
    """

    targets: dict[int, Any]

    def row(self, key: Key) -> SharedRow | None:
        """The numbers of a row; None where there is no room for them."""


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
        shared: what makes them visible to other processes, if anything does.
    """

    __slots__ = ("exemplars", "family", "labels", "message", "native", "own", "shared", "stale", "text", "values")

    def __init__(
        self,
        family: Family,
        labels: tuple[str, ...],
        own: tuple[str, ...],
        values: NDArray[np.float64],
        shared: SharedRow | None = None,
    ) -> None:
        self.family = family
        self.labels = labels
        self.own = own
        self.values = values
        self.shared = shared
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

    def tell(self, value: float, moment: float) -> None:
        """Take another value, told at `moment`, in seconds since 1970, which only some gauges keep."""
        self.set(*(value, moment)[: len(self.values)])

    def changed(self) -> None:
        """Have it rendered anew."""
        self.stale = True
        self.message = None
        if self.shared is not None:
            self.shared.touch()

    def whole(self) -> NDArray[np.float64]:
        """The values, and the native buckets if it has some; a copy."""
        return self.values.copy() if self.native is None else np.concatenate((self.values, self.native.state))

    def absorb(self, whole: NDArray[np.float64]) -> None:
        """Add what `whole` gave of another histogram with the same edges."""
        with np.errstate(over="ignore"):
            self.values += whole[: len(self.values)]
        if self.native is not None:
            self.native.absorb(whole[len(self.values) :])
        self.changed()


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
        gauges: how those of several processes become one; none where there is only one.
        memory: where rows are kept; None keeps them in that of the process.
    """

    def __init__(
        self,
        edges: Mapping[str, tuple[float, ...]],
        modes: Mapping[str, str] = _NOTHING,
        max_native_buckets: int = MAX_BUCKETS,
        *,
        gauges: Mapping[str, str] = _NOTHING,
        memory: Memory | None = None,
    ) -> None:
        self.edges = edges
        self.modes = modes
        self.buckets = max_native_buckets
        self._gauges = gauges
        self._memory = memory
        self._edges: dict[str, Edges] = {}
        self._families: dict[str, dict[tuple[tuple[str, ...], tuple[str, ...]], Row]] = {name: {} for name in FAMILIES}

    def row(self, family: str, labels: tuple[str, ...], own: tuple[str, ...] = ("",)) -> Row:
        """The row of these labels, made at first use. Takes no lock: threads that race get the same one."""
        rows = self._families[family]
        row = rows.get((labels, own))
        if row is None:
            key = self.key(family, labels, own)
            shared = self._memory.row(key) if self._memory is not None else None
            whole = shared.values if shared is not None else np.zeros(key.whole)
            made = Row(FAMILIES[family], labels, own, whole, shared)
            if key.buckets:
                made.values, made.native = whole[: key.width], Native(whole[key.width :])
            row = rows.setdefault((labels, own), made)
            if self._memory is not None and shared is not None:
                self._memory.targets[shared.number] = row
        return row

    def key(self, family: str, labels: tuple[str, ...], own: tuple[str, ...]) -> Key:
        """What other processes know a row by."""
        kind = FAMILIES[family].kind
        if kind == "histogram":
            native = self.modes.get(family, "classic") != "classic"
            return Key(family, labels, own, self.edges[family], self.buckets if native else 0)
        return Key(family, labels, own, mode=self._gauges.get(family, ""))

    def edges_of(self, family: str) -> Edges:
        """The edges of a histogram family, as histograms take them."""
        edges = self._edges.get(family)
        if edges is None:
            edges = self._edges[family] = Edges(self.edges[family])
        return edges

    def remove(self, row: Row) -> None:
        """Forget a row: what it told holds no more."""
        row.set(0)
        self.hide(row)

    def hide(self, row: Row) -> None:
        """Leave out a row, until it is shown again."""
        self._families[row.family.name].pop((row.labels, row.own), None)

    def show(self, row: Row) -> None:
        """Show a row that was hidden."""
        self._families[row.family.name].setdefault((row.labels, row.own), row)

    def every(self) -> list[Row]:
        """All rows."""
        return [row for rows in self._families.values() for row in rows.values()]

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
