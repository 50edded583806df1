"""Tables are samples as well: the same ones as in JSON, of any type that means numbers, words or times."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.samples import (
    LONGEST,
    MOST_FEATURES,
    Prediction,
    Samples,
    SamplesError,
    from_json,
    from_objects,
)
from infermeter_exporters.drift.tables import from_table
from tests.drift.test_samples import NOW, OWNER, TIMES


def plain(found: Samples) -> Any:
    """Samples as lists that can be compared; what is no number is None, as a missing word is."""
    columns = {
        one.key: (
            one.times.tolist(),
            [
                None if isinstance(value, float) and math.isnan(value) else value
                for value in (one.values.tolist() if isinstance(one.values, np.ndarray) else one.values)
            ],
        )
        for one in found.columns
    }
    return columns, list(found.predictions), found.number


def of_table(columns: dict[str, Any], **more: Any) -> Samples:
    """Samples of a table."""
    return from_table(pa.table(columns), TIMES, **more)


values = st.none() | st.floats(width=64) | st.integers(-(2**53), 2**53)
words = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "owner": st.sampled_from([("a", "m"), ("a", "n"), ("b", "m")]),
            "time": st.floats(NOW - 3600, NOW),
            "id": st.none() | st.integers(0, 9).map(str),
            "number": values,
            "word": words,
            "truth": st.none() | st.booleans(),
            "prediction": st.integers(0, 3),
            "confidence": st.floats(0, 1),
        }
    ),
    min_size=1,
    max_size=6,
)


@given(rows)
def test_json_lines_and_tables_are_the_same(rows: list[dict[str, Any]]) -> None:
    """A list of objects, an object on each line, a table of Arrow, and one of dictionaries."""
    objects = [
        {
            **dict(zip(("service", "model"), row["owner"], strict=True)),
            **{name: row[name] for name in ("time", "id", "prediction", "confidence")},
            "features": {name: row[name] for name in ("number", "word", "truth")},
        }
        for row in rows
    ]
    # Of words that are all missing, JSON does not say that they would be words: both are None in `plain`.
    expected = plain(from_json(json.dumps(objects).encode(), TIMES, lines=False, most=10))
    lines = "\r\n".join(json.dumps(one, ensure_ascii=False) for one in objects) + "\n\n"
    assert plain(from_json(lines.encode(), TIMES, lines=True, most=10)) == expected
    columns: dict[str, Any] = {
        "service": [row["owner"][0] for row in rows],
        "model": [row["owner"][1] for row in rows],
        "number": pa.array([None if row["number"] is None else float(row["number"]) for row in rows], pa.float64()),
        "word": pa.array([row["word"] for row in rows], pa.string()),
        "truth": pa.array([row["truth"] for row in rows], pa.bool_()),
        **{name: [row[name] for row in rows] for name in ("time", "prediction", "confidence")},
        "id": pa.array([row["id"] for row in rows], pa.string()),
    }
    assert plain(of_table(columns)) == expected
    for name in ("service", "model", "word", "id"):
        columns[name] = pa.array(columns[name]).dictionary_encode()
    columns["word"] = pa.chunked_array([columns["word"][:2], columns["word"][2:]])
    assert plain(of_table(columns)) == expected


@pytest.mark.parametrize(
    "kind",
    [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64(), pa.decimal128(30, 2), None],
)
def test_numbers_of_any_type(kind: pa.DataType | None) -> None:
    """Are floats, and what is missing is no number; also those of dictionaries."""
    array = pa.array([1, None, 3], pa.int64())
    array = array.dictionary_encode() if kind is None else array.cast(kind)
    (column,) = of_table({"a": array}, service="s", model="m").columns
    assert plain(Samples([column], (), 3))[0] == {Key("s", "m", "a"): ([NOW] * 3, [1.0, None, 3.0])}


def test_numbers_that_are_not_exact() -> None:
    """Whole numbers that no float has are counted as the nearest one."""
    (column,) = of_table({"a": pa.array([2**53 + 1, 2**63 - 1])}, service="s", model="m").columns
    assert isinstance(column.values, np.ndarray)
    assert column.values.tolist() == [2.0**53, 2.0**63]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_words_of_any_type(kind: pa.DataType) -> None:
    """Are words."""
    (column,) = of_table({"a": pa.array(["x", None, ""], kind)}, service="s", model="m").columns
    assert column.values == ["x", None, ""]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1.0]]),
        pa.array([{"x": 1}]),
        pa.array([b"x"]),
        pa.array([datetime(2023, 11, 14, tzinfo=UTC)]),
        pa.array([timedelta(1)]),
        pa.array([b"x"]).dictionary_encode(),
        pa.array(["x" * (LONGEST + 1)]),
        pa.array(["a\0b"]).dictionary_encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a", "service", "id", "prediction", "confidence"])
def test_columns_that_are_none(array: pa.Array, name: str) -> None:
    """Lists, objects, bytes, times, and words that are too long are refused, whatever the column would mean."""
    columns = {"service": ["s"], "model": ["m"], "id": ["1"], "prediction": [1], "confidence": [0.5], name: array}
    with pytest.raises(SamplesError) as caught:
        of_table(columns)
    assert caught.value.reason in {"dtype", "invalid"}


def test_a_small_message_of_a_large_table() -> None:
    """One long word that is meant by every row is looked at once; many models of many features are too many."""
    indices = pa.array(np.zeros(100_000, dtype=np.int8))
    long = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 1_000_000]))
    with pytest.raises(SamplesError, match="a word of 200 characters"):
        of_table({"a": long}, service="s", model="m")
    columns: dict[str, Any] = {f"f{number}": pa.nulls(1000) for number in range(200)}
    with pytest.raises(SamplesError, match="there are 1000 models of 200 features, at most 100000"):
        of_table({"service": [f"s{number}" for number in range(1000)], **columns}, model="m")


def test_tables_of_the_wrong_shape() -> None:
    """Each is one sentence."""
    table = pa.table([[1], [2]], names=["a", "a"])
    with pytest.raises(SamplesError, match="two columns have the same name, expected different ones"):
        from_table(table, TIMES, "s", "m")
    with pytest.raises(SamplesError, match="there are 3 samples, at most 2 may come at once"):
        of_table({"a": [1, 2, 3]}, service="s", model="m", most=2)
    with pytest.raises(SamplesError, match=f"there are {MOST_FEATURES + 1} columns"):
        of_table({str(number): [1] for number in range(MOST_FEATURES + 1)}, service="s", model="m")
    with pytest.raises(SamplesError, match="there is no column model, expected one"):
        of_table({"service": ["s"], "a": [1]})
    with pytest.raises(SamplesError, match="there is no column of a feature or a prediction, expected some"):
        of_table({"service": ["s"], "model": ["m"]})
    with pytest.raises(SamplesError, match="the column model is null, expected a text of 1 to 200 characters"):
        of_table({"service": ["s", "s"], "model": ["m", None], "a": [1, 2]})
    with pytest.raises(SamplesError, match="names that begin with _ are none of a service"):
        of_table({"service": ["_idle"], "model": ["m"], "a": [1]})
    with pytest.raises(SamplesError, match="the column confidence has a number that is not from 0 to 1"):
        of_table({"confidence": [0.5, 1.5]}, service="s", model="m")
    assert of_table({"a": pa.array([], pa.float64())}) == Samples((), (), 0)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_timestamps_of_tables(unit: str, zone: str | None) -> None:
    """Of any unit and time zone; data frames and databases write those of UTC without one."""
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    array = pa.array([int(NOW - 60) * scale + (scale > 10**8)], pa.int64()).cast(pa.timestamp(unit, zone))
    (column,) = of_table({"time": array, "a": [1]}, service="s", model="m").columns
    assert column.times.tolist() == pytest.approx([NOW - 60])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pa.array([NOW, None]), "invalid"),
        (pa.array([NOW, math.nan]), "invalid"),
        (pa.nulls(2), "invalid"),
        (pa.array(["2023-11-14T22:12:20Z"] * 2), "dtype"),
        (pa.array([NOW, NOW + 400]), "clock"),
        (pa.array([int(NOW) * 10**9] * 2), "clock"),
        (pa.array([NOW, NOW - 7300]), "late"),
        (pa.array([datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2)))] * 2), "clock"),
    ],
)
def test_wrong_times_of_tables(array: pa.Array, reason: str) -> None:
    """The same; one that is wrong keeps back the others, since a message is kept wholly or not at all."""
    with pytest.raises(SamplesError) as caught:
        of_table({"time": array, "a": [1, 2]}, service="s", model="m")
    assert caught.value.reason == reason


def test_predictions_that_are_missing() -> None:
    """As JSON, and as data frames write it."""
    none = math.nan
    given = [
        {**OWNER, "id": "1", "prediction": none, "features": {"a": 1}},
        {**OWNER, "id": "2", "prediction": 1.0, "confidence": none},
    ]
    assert from_objects(given, TIMES).predictions == [Prediction("vision", "yolo", "2", NOW, "1", None)]
    columns = {"id": ["1", "2"], "prediction": [none, 1.0], "confidence": [0.5, none]}
    assert of_table(columns, **OWNER).predictions == [Prediction("vision", "yolo", "2", NOW, "1", None)]
