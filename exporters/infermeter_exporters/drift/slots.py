"""Counts of observations that were sent, in slots of time, until no window needs them any more.

Bins are those of the reference of a feature. Where it has none yet, its first values are kept as they are; once there
are enough, they become the first version of it, and are counted over the bins that they fix. All of that happens in
the transaction in which a batch is kept, so that each observation is counted once.
"""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.dispersion import PARTS
from infermeter_exporters.drift.embeddings import Space
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.layout import Histogram, Layout, added
from infermeter_exporters.drift.samples import Column, SamplesError, Values
from infermeter_exporters.drift.store import Transaction

LEARN = 5000
"""Values that make the first reference of a feature."""
MOST_SERIES = 10_000
_NUMBERS = '{"numbers": '
_VECTORS = '{"vectors": '
_FEWER = 5
"""Times fewer vectors than numbers make a reference: each of them is large."""
_LEARNING = "SELECT began, content FROM learning WHERE source = ? AND service = ? AND model = ? AND feature = ?"
# The beginning of the content says whether these are numbers.
_SO_FAR = (
    "SELECT SUM(number), MIN(SUBSTR(content, 1, 24)) FROM learning"
    " WHERE source = ? AND service = ? AND model = ? AND feature = ?"
)
_LEARNT = "DELETE FROM learning WHERE source = ? AND service = ? AND model = ? AND feature = ?"
_COUNTS = (
    "SELECT counts FROM slots"
    " WHERE source = ? AND service = ? AND model = ? AND feature = ? AND began = ? AND layout = ?"
)


class Rules(NamedTuple):
    """How observations are counted.

    Attributes:
        slot: seconds of one; windows are whole numbers of them.
        baseline: the name of the reference that fixes bins.
        learn: values of which the first one is made; of vectors a fifth is enough.
        most: features there may be.
        embeddings: whether vectors are counted.
    """

    slot: float
    baseline: str = baselines.FROZEN
    learn: int = LEARN
    most: int = MOST_SERIES
    embeddings: bool = False


class Slots:
    """Those of one source.

    Args:
        source: its name.
        rules: how observations are counted.
    """

    def __init__(self, source: str, rules: Rules) -> None:
        self.source = source
        self.rules = rules
        self._layouts: dict[Key, Layout] = {}
        self._learning: set[Key] = set()
        self._read: tuple[int, float | None] | None = None

    def add(self, transaction: Transaction, columns: Iterable[Column], now: float) -> None:
        """Count some values.

        Those that are missing before the first one of a feature are not counted: nobody knows what they would be.

        Args:
            transaction: in which it happens.
            columns: of any features, each at most once.
            now: in seconds since 1970.

        Raises:
            SamplesError: numbers of a feature of words or the other way round, or too many features. Nothing has been
                changed then.
        """
        self._refresh(transaction)
        checked = self._checked(transaction, columns)
        counts: dict[tuple[Key, float], Histogram] = {}
        references: dict[tuple[float, float], dict[Key, Histogram]] = defaultdict(dict)
        varies: dict[Key, float] = {}
        for column, so_far in checked:
            layout = self._layouts.get(column.key)
            if layout is None:
                made = self._learn(transaction, column, so_far, references, varies)
            else:
                made = self._counted(column, layout)
            for began, one in made:
                before = counts.get((column.key, began))
                counts[column.key, began] = one if before is None else Histogram(one.layout, before.counts + one.counts)
        for period, of_period in references.items():
            baselines.write(transaction, self.source, self.rules.baseline, of_period, period, now, varies)
            self._layouts |= {key: one.layout for key, one in of_period.items()}
            self._learning -= set(of_period)
            if self._read is not None:  # of these, nothing needs to be read anew
                number, newest = self._read
                self._read = number + len(of_period), max(newest or now, now)
        self._write(transaction, counts)

    def forget(self) -> None:
        """Read anew what is cached: a transaction in which it was changed did not happen."""
        self._read = None

    def read(self, transaction: Transaction, begin: float, end: float) -> dict[Key, Histogram]:
        """What was counted in slots that began from `begin` on and before `end`.

        Slots over other bins than those of today are brought to what they have in common; if that is nothing, they are
        left out.
        """
        self._refresh(transaction)
        rows = transaction(
            "SELECT s.service, s.model, s.feature, l.content, s.counts FROM slots s JOIN layouts l ON l.id = s.layout"
            " WHERE s.source = ? AND s.began >= ? AND s.began < ? ORDER BY s.began DESC",
            # Of times that are no whole numbers, the same one may be computed to different last digits.
            *(self.source, begin - self.rules.slot / 1000, end - self.rules.slot / 1000),
        )
        found: dict[Key, dict[Layout, list[Histogram]]] = defaultdict(lambda: defaultdict(list))
        for service, model, feature, layout, counts in rows:
            one = baselines.read_histogram(layout, counts)
            found[Key(service, model, feature)][one.layout].append(one)
        return {key: _summed(by_layout, self._layouts.get(key)) for key, by_layout in found.items()}

    def learning(self, transaction: Transaction) -> dict[Key, float]:
        """Features that have no reference yet, and how many of their values are kept."""
        rows = transaction(
            "SELECT service, model, feature, SUM(number) FROM learning WHERE source = ?"
            " GROUP BY service, model, feature",
            self.source,
        )
        return {Key(service, model, feature): float(number) for service, model, feature, number in rows}

    def prune(self, transaction: Transaction, before: float) -> None:
        """Forget slots that began before a time."""
        transaction("DELETE FROM slots WHERE source = ? AND began < ?", self.source, before)

    def _refresh(self, transaction: Transaction) -> None:
        """Learn which references there are, if that may have changed."""
        name = self.rules.baseline
        state = transaction(
            "SELECT COUNT(*), MAX(created) FROM baselines WHERE source = ? AND name = ?", self.source, name
        )[0]
        if self._read == tuple(state):
            return
        found = baselines.read(transaction, self.source, name)
        self._layouts = {key: one.histogram.layout for key, one in found.items()}
        rows = transaction("SELECT DISTINCT service, model, feature FROM learning WHERE source = ?", self.source)
        self._learning = {Key(*row) for row in rows} - set(self._layouts)
        self._read = state[0], state[1]

    def _slot(self, times: Floats) -> Floats:
        found: Floats = np.floor(times / self.rules.slot) * self.rules.slot
        return found

    def _checked(self, transaction: Transaction, columns: Iterable[Column]) -> list[tuple[Column, int]]:
        """Columns that can be counted, and how many values are kept of each that has no reference yet."""
        found: list[tuple[Column, int]] = []
        fresh: set[Key] = set()
        for column in columns:
            key, number = column.key, 0
            begins: str | None = None
            layout = self._layouts.get(key)
            numeric = layout.numeric if layout is not None else isinstance(column.values, np.ndarray)
            if key in self._learning:
                number, begins = transaction(_SO_FAR, self.source, *key)[0]
                if begins is not None:
                    numeric = begins.startswith((_NUMBERS, _VECTORS))
            elif layout is None:
                if _say_nothing(column.values):
                    continue
                fresh.add(key)
            values = _of_kind(column.values, numeric=numeric)
            if isinstance(values, np.ndarray) != numeric:
                expected, given = ("numbers", "words") if numeric else ("words", "numbers")
                raise SamplesError("dtype", f"{'/'.join(key)} has {given}, expected {expected}, as it had before")
            if isinstance(values, np.ndarray):
                known = layout.dimensions if isinstance(layout, Space) else 0 if layout is not None else None
                if begins is not None:
                    known = int(begins[len(_VECTORS) :].partition(",")[0]) if begins.startswith(_VECTORS) else 0
                values = self._vectors(key, values, known)
            found.append((column._replace(values=values), int(number or 0)))
        if fresh and len(fresh) + len(self._learning) + len(self._layouts) > self.rules.most:
            text = f"{'/'.join(max(fresh))} would be one more than {self.rules.most} features, which is the most"
            raise SamplesError("too_many_series", text)
        self._learning |= fresh
        return found

    def _vectors(self, key: Key, values: Floats, known: int | None) -> Floats:
        """Numbers or vectors as they were before: of as many dimensions, 0 of numbers; None if nothing was before."""
        dimensions = values.shape[1] if values.ndim > 1 else 0
        if dimensions and not self.rules.embeddings:
            text = f"{'/'.join(key)} is an embedding; they are not counted unless `embeddings` of the source is true"
            raise SamplesError("dtype", text)
        if known and not dimensions and np.isnan(values).all():
            return np.full((len(values), known), math.nan)
        if known is not None and known != dimensions:
            given, before = (f"vectors of {number}" if number else "numbers" for number in (dimensions, known))
            raise SamplesError("dtype", f"{'/'.join(key)} has {given}, expected {before}, as it had before")
        return values

    def _counted(self, column: Column, layout: Layout) -> list[tuple[float, Histogram]]:
        parts = _by_slot(self._slot(column.times), column.values)
        return [(began, Histogram(layout, layout.counted(part))) for began, part in parts]

    def _learn(
        self,
        transaction: Transaction,
        column: Column,
        so_far: int,
        references: dict[tuple[float, float], dict[Key, Histogram]],
        varies: dict[Key, float],
    ) -> list[tuple[float, Histogram]]:
        """Keep values of a feature that has no reference yet; counts of all of them once there are enough for one."""
        key = column.key
        where = (self.source, *key)
        fresh = list(_by_slot(self._slot(column.times), column.values))
        least = (
            self.rules.learn // _FEWER
            if isinstance(column.values, np.ndarray) and column.values.ndim > 1
            else self.rules.learn
        )
        if so_far + len(column.values) < least:
            transaction.many(
                "INSERT INTO learning VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*where, began, len(values), write_values(values)) for began, values in fresh],
            )
            return []
        kept = [(began, read_values(content)) for began, content in transaction(_LEARNING, *where)]
        transaction(_LEARNT, *where)
        everything = [*kept, *fresh]
        layout = baselines.fixed(_joined([values for _, values in everything]))
        histograms = [(began, Histogram(layout, layout.counted(values))) for began, values in everything]
        reference = added(one for _, one in histograms)
        starts = [began for began, _ in everything]
        if reference is not None:  # as it always is, over one layout
            references[min(starts), max(starts) + self.rules.slot][key] = reference
            parts = [{key: one} for one in _in_parts(histograms)]
            varies |= baselines.dispersions({key: reference}, parts)
        return histograms

    def _write(self, transaction: Transaction, counts: dict[tuple[Key, float], Histogram]) -> None:
        rows = []
        for (key, began), one in counts.items():
            layout = baselines.write_layout(transaction, one.layout)
            where = (self.source, *key, began, layout)
            before = transaction(_COUNTS, *where)
            total = one
            if before:
                total = Histogram(one.layout, one.counts + np.asarray(json.loads(before[0][0])))
            rows.append((*where, baselines.write_counts(total)))
        transaction.many(
            "INSERT INTO slots VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source, service, model, feature, began, layout) DO UPDATE SET counts = excluded.counts",
            rows,
        )


def write_values(values: Values) -> str:
    """Values as JSON: numbers that are none as null, infinite ones as words; vectors as their bytes."""
    if not isinstance(values, np.ndarray):
        return json.dumps({"words": values})
    if values.ndim > 1:
        text = base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode()
        return f'{_VECTORS}{values.shape[1]}, "content": "{text}"}}'
    plain = [one if math.isfinite(one) else None if math.isnan(one) else str(one) for one in values.tolist()]
    return f"{_NUMBERS}{json.dumps(plain)}}}"


def read_values(text: str) -> Values:
    """What `write_values` wrote."""
    found = json.loads(text)
    if "words" in found:
        words: list[str | None] = found["words"]
        return words
    if "vectors" in found:
        return np.frombuffer(base64.b64decode(found["content"]), dtype="<f8").reshape(-1, found["vectors"])
    return np.asarray([math.nan if one is None else float(one) for one in found["numbers"]])


def _in_parts(histograms: Sequence[tuple[float, Histogram]]) -> list[Histogram]:
    """Histograms of one layout in the order of their time, put together to as many parts as is usual."""
    ordered = [one for _, one in sorted(histograms, key=lambda pair: pair[0])]
    size = math.ceil(len(ordered) / PARTS)
    groups = [ordered[place : place + size] for place in range(0, len(ordered), size)]
    return [Histogram(group[0].layout, np.sum([one.counts for one in group], axis=0)) for group in groups]


def _by_slot(slots: Floats, values: Values) -> Iterable[tuple[float, Values]]:
    different = np.unique(slots)
    if len(different) == 1:
        yield float(different[0]), values
        return
    for began in different:
        places = np.flatnonzero(slots == began)
        yield float(began), values[places] if isinstance(values, np.ndarray) else [values[place] for place in places]


def _joined(parts: list[Values]) -> Values:
    numbers = [part for part in parts if isinstance(part, np.ndarray)]
    if numbers:
        return np.concatenate(numbers)
    return [word for part in parts for word in part if isinstance(word, str | None)]


def _say_nothing(values: Values) -> bool:
    """Whether nothing can be learnt of values: all are missing, no numbers or infinite."""
    if isinstance(values, np.ndarray):
        return not np.isfinite(values).any()
    return all(word is None for word in values)


def _of_kind(values: Values, *, numeric: bool) -> Values:
    """Values of which all are missing as what the others are: nobody could know when they were read."""
    if numeric and not isinstance(values, np.ndarray) and all(word is None for word in values):
        return np.full(len(values), math.nan)
    if not numeric and isinstance(values, np.ndarray) and np.isnan(values).all():
        return [None] * len(values)
    return values


def _summed(by_layout: dict[Layout, list[Histogram]], today: Layout | None) -> Histogram:
    """All of them over what they have in common with the layout of today, or with the newest one."""
    totals = {
        layout: Histogram(layout, np.sum([one.counts for one in histograms], axis=0))
        for layout, histograms in by_layout.items()
    }
    first = today if today in totals and today is not None else next(iter(totals))
    found = totals.pop(first)
    for other in totals.values():
        found = added((found, other)) or found
    return found
