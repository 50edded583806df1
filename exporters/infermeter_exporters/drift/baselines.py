"""References that have a name: made once, kept in versions, the newest of which is used."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from infermeter_exporters.drift.dispersion import dispersion
from infermeter_exporters.drift.embeddings import Space, learnt_space, read_space
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.layout import Histogram, Layout, aligned, learnt, read_layout
from infermeter_exporters.drift.store import Transaction

FROZEN = "frozen"
"""What a reference is called unless it is given another name."""


class Baseline(NamedTuple):
    """A version of a reference.

    Attributes:
        histogram: what it holds.
        version: 1 is the first.
        began: of what it was made, in seconds since 1970.
        ended: the same; its age counts from there.
        dispersion: how much more its parts vary than independent observations would, 1 or more.
    """

    histogram: Histogram
    version: int
    began: float
    ended: float
    dispersion: float


def write(
    transaction: Transaction,
    source: str,
    name: str,
    histograms: Mapping[Key, Histogram],
    period: tuple[float, float],
    now: float,
    dispersions: Mapping[Key, float] | None = None,
) -> int:
    """Keep references as the next version; gives its number, which all of them share.

    Args:
        transaction: in which it happens.
        source: of the references.
        name: of them.
        histograms: what they hold.
        period: beginning and end of what they are made of, in seconds since 1970.
        now: the same of this moment.
        dispersions: of `dispersions`; 1 where there is none.
    """
    known = dispersions or {}
    versions = transaction(
        "SELECT service, model, feature, MAX(version) FROM baselines WHERE source = ? AND name = ?"
        " GROUP BY service, model, feature",
        source,
        name,
    )
    version = 1 + max((row[3] for row in versions if Key(row[0], row[1], row[2]) in histograms), default=0)
    transaction.many(
        "INSERT INTO baselines VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(source, *key, name, version, *period, now),
                *(write_layout(transaction, one.layout), write_counts(one), known.get(key, 1.0)),
            )
            for key, one in histograms.items()
        ],
    )
    return version


def read(transaction: Transaction, source: str, name: str) -> dict[Key, Baseline]:
    """The newest version of each reference of that name."""
    rows = transaction(
        "SELECT b.service, b.model, b.feature, b.version, b.began, b.ended, l.content, b.counts, b.dispersion"
        " FROM baselines b JOIN layouts l ON l.id = b.layout WHERE b.source = ? AND b.name = ? ORDER BY b.version",
        source,
        name,
    )
    return {
        Key(service, model, feature): Baseline(read_histogram(layout, counts), version, began, ended, varies)
        for service, model, feature, version, began, ended, layout, counts, varies in rows
    }


def dispersions(wholes: Mapping[Key, Histogram], parts: Sequence[Mapping[Key, Histogram]]) -> dict[Key, float]:
    """How much more parts of references vary than independent observations would; see `dispersion`.

    Args:
        wholes: references.
        parts: what there is of each in parts of its time.
    """
    found = {}
    for key, whole in wholes.items():
        if isinstance(whole.layout, Space):
            continue
        pairs = [aligned(part[key], whole) for part in parts if key in part]
        found[key] = dispersion(
            [one.layout.cut(one.counts) for one, _ in filter(None, pairs) if one.layout == whole.layout]
        )
    return found


def listed(transaction: Transaction) -> list[tuple[str, str, int, float, float, int]]:
    """Source, name, version, beginning, end and number of features of each version, the oldest first."""
    rows = transaction(
        "SELECT source, name, version, MIN(began), MAX(ended), COUNT(*) FROM baselines"
        " GROUP BY source, name, version ORDER BY source, name, version"
    )
    return [(source, name, version, began, ended, number) for source, name, version, began, ended, number in rows]


def delete(transaction: Transaction, source: str, name: str, version: int) -> int:
    """Forget a version; gives how many features it had."""
    where = "FROM baselines WHERE source = ? AND name = ? AND version = ?"
    found: int = transaction(f"SELECT COUNT(*) {where}", source, name, version)[0][0]
    transaction(f"DELETE {where}", source, name, version)
    return found


def write_layout(transaction: Transaction, layout: Layout) -> str:
    """Keep a layout, unless it is kept; gives its identity."""
    text = layout.written()
    identity = hashlib.sha256(text.encode()).hexdigest()[:32]
    transaction("INSERT INTO layouts VALUES (?, ?) ON CONFLICT (id) DO NOTHING", identity, text)
    return identity


def write_counts(histogram: Histogram) -> str:
    """Counts as JSON; whole numbers, which nearly all are, are short."""
    return json.dumps([int(count) if count.is_integer() else count for count in histogram.counts.tolist()])


def fixed(values: Any) -> Layout:
    """The layout that a reference fixes, of vectors a space; arguments and errors are as of `layout.learnt`."""
    vectors = isinstance(values, np.ndarray) and values.ndim > 1
    return learnt_space(values) if vectors else learnt(values)


def read_histogram(layout: str, counts: str) -> Histogram:
    """What was written."""
    return Histogram(_read(layout), np.asarray(json.loads(counts), dtype=np.float64))


@lru_cache(maxsize=10_000)
def _read(text: str) -> Layout:
    return read_space(json.loads(text)) if text.startswith('{"centre"') else read_layout(text)
