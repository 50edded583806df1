"""From records of a ring to totals, for the process that wrote them and for whoever finds them after its death."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np

from infermeter.fold import Drop, fold_confidences, fold_durations, fold_exemplars, fold_requests, told
from infermeter.payload import ANSWERED, BARE, FLOATS32, MOMENT, PACKED, SIZE, TOLD, unpacked, untagged
from infermeter.ring import Record
from infermeter.rows import HistogramRow, Row, Rows
from infermeter.series import Series

_DTYPES = {2: "f", 3: "d"}


class Subject(NamedTuple):
    """Who infers.

    Attributes:
        series: where its inferences are counted.
        usd_per_second: what a second costs, if it has a price.
    """

    series: Series
    usd_per_second: float | None


Targets = Mapping[int, Row | Subject]


def grouped(records: list[Record]) -> dict[int, list[Record]]:
    """Records by their tag."""
    groups: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        groups[record[0]].append(record)
    return groups


def tally(tagged: int, records: list[Record], rows: Rows, targets: Targets, drop: Drop) -> None:
    """Count records that share a tag.

    Args:
        tagged: their tag.
        records: those records, at least one.
        rows: where they are counted.
        targets: by number of the shared row, who infers and what rows of `rows` they name.
        drop: told the reason and number of values that were refused.

    Raises:
        KeyError, TypeError, ValueError, struct.error: a record is not as it was written; some may be counted.
    """
    number, kind = untagged(tagged)
    target = targets[number]
    if kind == TOLD:
        row = _row(target)
        moment = MOMENT.unpack(records[-1][2])[0] if row.family.kind == "gauge" else 0.0
        told(rows, row, [value for _, value, _ in records], moment)
    elif kind == ANSWERED:
        sizes = [SIZE.unpack(payload)[0] for _, _, payload in records]
        fold_requests(rows, _row(target), [seconds for _, seconds, _ in records], sizes)
    elif isinstance(target, Subject) and kind <= PACKED:
        _infer(target, kind, records, rows, targets, drop)
    else:
        raise TypeError(f"record of kind {kind} for row {number}")


def _row(target: Row | Subject) -> Row:
    if isinstance(target, Row):
        return target
    raise TypeError("a record names a series as a row")


def _infer(subject: Subject, kind: int, records: list[Record], rows: Rows, targets: Targets, drop: Drop) -> None:
    series, usd_per_second = subject
    totals = series.totals
    seconds = np.array([record[1] for record in records])
    usd = np.zeros(len(records))
    payloads = [record[2] for record in records]
    if kind == PACKED:
        found = [unpacked(payload) for payload in payloads]
        usd += [one.usd for one in found]
        given = [
            one.exemplar._replace(value=record[1])
            for one, record in zip(found, records, strict=True)
            if one.exemplar is not None
        ]
    else:
        given = []
    fold_durations(totals, usd_per_second, seconds, usd)
    fold_exemplars(series, seconds, given)
    if kind == PACKED:
        _add_told([item for one in found for item in one.told], rows, targets)
        for one in found:
            for number, whole in one.wholes:
                cast("HistogramRow", _row(targets[number])).absorb(whole)
        for dtype in ("f", "d"):
            some = [one for one in found if one.dtype == dtype and one.sizes]
            if some:
                sizes = np.array([size for one in some for size in one.sizes], np.float64)
                confidences = np.frombuffer(b"".join([one.confidences for one in some]), dtype)
                fold_confidences(totals, drop, sizes, confidences)
    elif kind != BARE:
        sizes = np.fromiter(map(len, payloads), np.float64, len(payloads)) / (4 if kind == FLOATS32 else 8)
        confidences = np.frombuffer(b"".join(payloads), _DTYPES[kind])
        fold_confidences(totals, drop, sizes, confidences)
        if len(confidences):
            totals.add("detections_total", len(confidences))


def _add_told(pairs: list[tuple[int, float]], rows: Rows, targets: Targets) -> None:
    values: defaultdict[int, list[float]] = defaultdict(list)
    for number, value in pairs:
        values[number].append(value)
    for number, some in values.items():
        told(rows, _row(targets[number]), some, 0.0)
