"""Observations as tables of Arrow: a row is a sample, a column a feature."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.samples import (
    CONFIDENCE,
    MOST_FEATURES,
    PREDICTION,
    Column,
    Prediction,
    Samples,
    SamplesError,
    Times,
    Values,
    confidence,
    in_time,
    said,
    word,
)

if TYPE_CHECKING:
    import pyarrow as pa


def from_table(table: "pa.Table", times: Times, service: str = "", model: str = "", most: int = 0) -> Samples:
    """Samples as rows of a table; each column that has no meaning of its own is a feature.

    Args:
        table: with the columns `service` and `model`, unless those are given, and features: numbers, words or truth
            values. `time` (a timestamp, or seconds since 1970), `id`, `prediction` and `confidence` may be there.
        times: which are allowed.
        service: of all rows.
        model: of all rows.
        most: how many rows may come at once; 0 for any number.

    Raises:
        SamplesError: it cannot be counted.
    """
    import pyarrow as pa  # noqa: PLC0415  (only who has tables pays for it)
    import pyarrow.compute as pc  # noqa: PLC0415

    rows = table.num_rows
    if most and rows > most:
        raise SamplesError("too_large", f"there are {rows} samples, at most {most} may come at once")
    names = table.column_names
    if len(set(names)) != len(names):
        raise SamplesError("invalid", "two columns have the same name, expected different ones")
    if len(names) > MOST_FEATURES:
        raise SamplesError("too_large", f"there are {len(names)} columns, at most {MOST_FEATURES} may be there")
    if not rows:
        return Samples((), (), 0)
    for name in names:
        word(name, "the name of a column")
    moments = _times(table["time"], times) if "time" in names else np.full(rows, times.now)
    owners = [
        [given] * rows if given else _words(table, name) for name, given in (("service", service), ("model", model))
    ]
    features = {
        name: _arrow_values(table[name], name, pa, pc)
        for name in names
        if name not in {"service", "model", "time", "id"}
    }
    columns = []
    groups: dict[tuple[str, str], Sequence[int]] = {(service, model): range(rows)}
    if not (service and model):
        by_owner = defaultdict(list)
        for row, owner in enumerate(zip(*owners, strict=True)):
            by_owner[owner[0], owner[1]].append(row)
        groups = {**by_owner}
    for (of_service, of_model), places in groups.items():
        every = len(places) == rows
        for name, values in features.items():
            if isinstance(values, np.ndarray):
                part: Values = values if every else values[places]
            else:
                part = values if every else [values[place] for place in places]
            columns.append(Column(Key(of_service, of_model, name), moments if every else moments[places], part))
    return Samples(columns, _arrow_predictions(table, owners, moments), rows)


def _times(column: Any, times: Times) -> Floats:
    import pyarrow as pa  # noqa: PLC0415

    if column.null_count:
        raise SamplesError("invalid", "the column time has empty fields, expected a time in each")
    kind = column.type
    if pa.types.is_timestamp(kind):
        found = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).to_numpy() / 1e6
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        found = column.cast(pa.float64()).to_numpy()
    else:
        raise SamplesError("dtype", f"the column time is of type {kind}, expected a timestamp or seconds since 1970")
    if not np.isfinite(found).all():
        raise SamplesError("invalid", "the column time has something that is no time")
    in_time(float(found.min()), float(found.max()), "a time", times)
    return np.asarray(found, dtype=np.float64)


def _words(table: "pa.Table", name: str) -> list[str]:
    if name not in table.column_names:
        raise SamplesError("invalid", f"there is no column {name}, expected one")
    found = table[name].to_pylist()
    for one in set(found):
        word(one, f"the column {name}")
    return [str(one) for one in found]


def _arrow_values(column: Any, name: str, pa: Any, pc: Any) -> Values:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        found = pc.fill_null(column.cast(pa.float64()), math.nan).to_numpy()
        return np.asarray(found, dtype=np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return [None if value is None else said(value) for value in column.to_pylist()]
    raise SamplesError("dtype", f"the column {name} is of type {kind}, expected numbers, words or truth values")


def _arrow_predictions(table: "pa.Table", owners: Sequence[Sequence[str]], moments: Floats) -> list[Prediction]:
    if not {"id", PREDICTION} <= set(table.column_names):
        return []
    sure: Iterable[Any] = table[CONFIDENCE].to_pylist() if CONFIDENCE in table.column_names else [None] * table.num_rows
    return [
        Prediction(service, model, word(identity, "an id"), taken, said(value), confidence(given, "a confidence"))
        for service, model, identity, taken, value, given in zip(
            *owners, table["id"].to_pylist(), moments.tolist(), table[PREDICTION].to_pylist(), sure, strict=True
        )
        if identity is not None and value is not None
    ]
