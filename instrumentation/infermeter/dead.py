"""What a process that died counted, with the records that it did not get to count itself."""

import numpy as np

from infermeter import exemplars
from infermeter.catalogue import FAMILIES
from infermeter.guard import Labels
from infermeter.rows import HistogramRow, Row, Rows
from infermeter.segments import Dump
from infermeter.series import Series
from infermeter.sharing import EXEMPLARS, SERIES, Key, Numbers, unpacked
from infermeter.tally import Subject, grouped, tally


def left_by(dump: Dump) -> dict[bytes, Numbers]:
    """The numbers of the rows of a dead process that do not end with it, by their key.

    Raises:
        DamagedError, KeyError, TypeError, ValueError, struct.error: a row or a record is not as it was written.
    """
    keys = [unpacked(entry.key) for entry in dump.entries]
    rows = _rows_like(keys)
    targets: dict[int, Row | Subject] = {}
    kept: dict[bytes, Numbers] = {}
    for entry, key in zip(dump.entries, keys, strict=True):
        numbers = dump.values[entry.start : entry.start + entry.width]
        if key.family == SERIES:
            targets[entry.number] = Subject(Series(Labels(*key.labels), rows), key.usd_per_second)
        elif key.family in FAMILIES and entry.width == key.whole:
            row = targets[entry.number] = rows.row(key.family, key.labels, key.own)
            row.values[:] = numbers[: len(row.values)]
            natives = numbers[key.width :]
            # Zeros were published and never committed: no state of a histogram.
            if isinstance(row, HistogramRow) and row.native is not None and natives.any():
                row.native.state[:] = natives
        elif not entry.live:
            kept[entry.key] = numbers
    for key in keys:
        if key.family == EXEMPLARS:
            found = exemplars.unpacked(kept[key.packed()])
            histogram = rows.histogram_row("inference_duration", key.labels)
            histogram.exemplars = exemplars.placed(rows.edges_of("inference_duration").float64, found)

    def drop(reason: str, _error: BaseException | None, count: int) -> None:
        rows.row("infermeter_observations_dropped_total", (), (reason,)).add(count)

    for tagged, records in grouped(dump.records).items():
        tally(tagged, records, rows, targets, drop)
    for row in rows.every():
        key = rows.key(row.family.name, row.labels, row.own)
        if not key.live:
            kept[key.packed()] = np.concatenate((row.whole(), np.zeros(max(key.exact - key.whole, 0))))
        if isinstance(row, HistogramRow) and row.exemplars:
            kept[Key(EXEMPLARS, row.labels).packed()] = exemplars.packed(row.exemplars.values())
    return kept


def _rows_like(keys: list[Key]) -> Rows:
    """Rows with the buckets that the process had."""
    edges = {key.family: key.edges for key in keys if key.edges}
    natives = {key.family: "both" for key in keys if key.buckets}
    modes = {key.family: key.mode for key in keys if key.mode}
    return Rows(edges, natives, max((key.buckets for key in keys), default=1), gauges=modes)
