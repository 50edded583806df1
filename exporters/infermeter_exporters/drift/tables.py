"""Observations as tables of Arrow: a row is a sample, a column a feature."""

import math
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    column_of,
    in_time,
    missing,
    said,
    word,
)

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"ARROW1\0\0"
_DICTIONARY, _RECORDS = 2, 3
"""Kinds of messages that have buffers."""
_NO_FEATURES = {"service", "model", "time", "id"}
_MOST_COLUMNS = 100_000
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def read_ipc(body: bytes, *, file: bool, most: int) -> "pa.Table":
    """The table of a body in the format of Arrow IPC.

    Args:
        body: a stream; or a file, which is a stream between two pieces of eight bytes and more.
        file: whether it is a file.
        most: bytes that it may have where its buffers are compressed, once they are not.

    Raises:
        SamplesError: it is none, or has more.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError as error:
        raise SamplesError("malformed", "Arrow cannot be read here: pyarrow is not installed") from error
    if file and not body.startswith(_MAGIC):
        raise SamplesError("malformed", "the body is not Arrow IPC: it does not begin as a file does")
    # What follows the stream in a file says where the parts of it are, which nobody needs who reads all of it.
    stream = pa.py_buffer(body).slice(len(_MAGIC) if file else 0)
    try:
        if sum(map(_decompressed, pa.ipc.MessageReader.open_stream(stream))) > most:
            raise SamplesError("too_large", f"the body has more than {most} bytes, which is the most")
        with pa.ipc.open_stream(stream) as reader:
            table = reader.read_all()
        # What was written to be read wrongly may end the process otherwise.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise SamplesError("malformed", f"the body is not Arrow IPC: {' '.join(str(error).split())[:200]}") from error
    return table


def _decompressed(message: Any) -> int:
    """Bytes that the compressed buffers of a message have once they are not, as each of them says.

    Arrow allocates as much before anybody can see what is in it, and 16 MiB of zeros are easily 500 GB. Where that
    stands is in Message.fbs of Arrow's format, and what a table of FlatBuffers is in its "internals".
    """
    metadata, body = message.metadata.to_pybytes(), message.body
    (root,) = struct.unpack_from("<I", metadata)
    kind, header = _field(metadata, root, 1), _field(metadata, root, 2)
    if not kind or not header or metadata[kind] not in {_DICTIONARY, _RECORDS}:
        return 0
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    if metadata[kind] == _DICTIONARY:
        data = _field(metadata, batch, 1)
        batch = data + struct.unpack_from("<I", metadata, data)[0]
    buffers = _field(metadata, batch, 2)
    if not buffers or not _field(metadata, batch, 3):  # which says by what they are compressed
        return 0
    vector = buffers + struct.unpack_from("<I", metadata, buffers)[0]
    (number,) = struct.unpack_from("<I", metadata, vector)
    places = struct.iter_unpack("<qq", metadata[vector + 4 : vector + 4 + 16 * number])
    sizes = (struct.unpack_from("<q", body, place)[0] for place, length in places if length)
    return sum(size for size in sizes if size > 0)


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it has none."""
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", metadata, fields)[0]:
        return 0
    offset: int = struct.unpack_from("<H", metadata, fields + place)[0]
    return table + offset if offset else 0


def from_table(table: "pa.Table", times: Times, service: str = "", model: str = "", most: int = 0) -> Samples:
    """Samples as rows of a table; each column that has no meaning of its own is a feature.

    Args:
        table: with the columns `service` and `model`, unless those are given, and features: numbers, words or truth
            values. `time` (a timestamp, of UTC where it names no time zone, or seconds since 1970), `id`, `prediction`
            and `confidence` may be there.
        times: which are allowed.
        service: of all rows.
        model: of all rows.
        most: how many rows may come at once; 0 for any number.

    Raises:
        SamplesError: it cannot be counted.
    """
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
        [given] * rows if given else _identities(table, name)
        for name, given in (("service", service), ("model", model))
    ]
    features = {name: _feature(table[name], name) for name in names if name not in _NO_FEATURES}
    if not features:
        raise SamplesError("invalid", "there is no column of a feature or a prediction, expected some")
    columns = []
    groups: dict[tuple[str, str], Sequence[int]] = {(service, model): range(rows)}
    if not (service and model):
        by_owner = defaultdict(list)
        for row, owner in enumerate(zip(*owners, strict=True)):
            by_owner[owner[0], owner[1]].append(row)
        groups = {**by_owner}
    if len(groups) * len(features) > _MOST_COLUMNS:
        text = f"there are {len(groups)} models of {len(features)} features"
        raise SamplesError("too_large", f"{text}, at most {_MOST_COLUMNS} features may come at once")
    for (of_service, of_model), places in groups.items():
        every = len(places) == rows
        for name, values in features.items():
            if isinstance(values, np.ndarray):
                part: Values = values if every else values[places]
            else:
                part = values if every else [values[place] for place in places]
            columns.append(Column(Key(of_service, of_model, name), moments if every else moments[places], part))
    return Samples(columns, _predictions(table, owners, moments, features), rows)


def _times(column: Any, times: Times) -> Floats:
    import pyarrow as pa  # noqa: PLC0415  (only who has tables pays for it)

    kind = column.type
    if column.null_count:
        raise SamplesError("invalid", "the column time has empty fields, expected a time in each")
    if pa.types.is_timestamp(kind):
        found = column.cast(pa.int64()).to_numpy() / _PER_SECOND[kind.unit]
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        found = column.cast(pa.float64(), safe=False).to_numpy()
    else:
        raise SamplesError("dtype", f"the column time is of type {kind}, expected a timestamp or seconds since 1970")
    if not np.isfinite(found).all():
        raise SamplesError("invalid", "the column time has something that is no time")
    in_time(float(found.min()), float(found.max()), "a time", times)
    return np.asarray(found, dtype=np.float64)


def _identities(table: "pa.Table", name: str) -> list[str]:
    """The words of a column that has to be there, in each row; whole numbers are taken as well."""
    import pyarrow as pa  # noqa: PLC0415

    if name not in table.column_names:
        raise SamplesError("invalid", f"there is no column {name}, expected one")
    column = table[name]
    if pa.types.is_integer(column.type):
        return [word(value, f"the column {name}") for value in column.to_pylist()]
    return [word(value, f"the column {name}") for value in _words(column, name)]


def _feature(column: Any, name: str) -> Values:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return column_of(column.to_pylist(), f"the column {name}")
    numeric = pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null
    if not any(is_number(kind) for is_number in numeric):
        if name == CONFIDENCE:
            raise SamplesError("dtype", f"the column {name} is of type {kind}, expected numbers")
        return _words(column, name)
    # Not safe, which means that whole numbers may be too large to be exact.
    found = pc.fill_null(column.cast(kind).cast(pa.float64(), safe=False), math.nan).to_numpy()
    values = np.asarray(found, dtype=np.float64)
    if name == CONFIDENCE and ((values < 0) | (values > 1)).any():
        raise SamplesError("invalid", f"the column {name} has a number that is not from 0 to 1")
    return values


def _words(column: Any, name: str) -> list[str | None]:
    """Words; each of a dictionary is looked at once, however often it is there."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(column.type):
        found: list[str | None] = []
        for chunk in column.chunks:
            known = _words(pa.chunked_array([chunk.dictionary]), name)
            found += [None if place is None else known[place] for place in chunk.indices.to_pylist()]
        return found
    kind = column.type
    words = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_boolean, pa.types.is_null
    if not any(is_word(kind) for is_word in words):
        raise SamplesError("dtype", f"the column {name} is of type {kind}, expected numbers, words or truth values")
    return [None if value is None else said(value) for value in column.to_pylist()]


def _predictions(
    table: "pa.Table", owners: Sequence[Sequence[str]], moments: Floats, features: Mapping[str, Values]
) -> list[Prediction]:
    names = table.column_names
    if "id" not in names or PREDICTION not in names:
        return []
    import pyarrow as pa  # noqa: PLC0415

    identities = table["id"]
    given = identities.to_pylist() if pa.types.is_integer(identities.type) else _words(identities, "id")
    predicted, sure = (_listed(features.get(name), table.num_rows) for name in (PREDICTION, CONFIDENCE))
    return [
        Prediction(service, model, word(identity, "an id"), taken, said(value), None if missing(one) else one)
        for service, model, identity, taken, value, one in zip(
            *owners, given, moments.tolist(), predicted, sure, strict=True
        )
        if identity is not None and not missing(value)
    ]


def _listed(values: Values | None, rows: int) -> list[Any]:
    if values is None:
        return [None] * rows
    return values.tolist() if isinstance(values, np.ndarray) else values
