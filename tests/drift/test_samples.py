"""What is sent is read wholly or refused wholly: whatever it is, and whichever way the same is written."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infermeter_exporters.drift.samples import (
    LONGEST,
    Prediction,
    Samples,
    SamplesError,
    Times,
    from_json,
    from_objects,
    said,
)

NOW = 1_700_000_000.0
TIMES = Times(NOW, NOW - 7200, NOW + 300)
REASONS = {"malformed", "invalid", "dtype", "too_large", "late", "clock"}
OWNER = {"service": "vision", "model": "yolo"}
KEYS = ["service", "model", "time", "id", "features", "prediction", "confidence", "a", ""]


def refusal(content: Any) -> tuple[str, str]:
    """The reason and the sentence by which samples are refused."""
    with pytest.raises(SamplesError) as caught:
        from_objects(content if isinstance(content, list) else [content], TIMES)
    return caught.value.reason, str(caught.value)


# --- whatever is sent ------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["\ud800", "\0", "x" * 201, "_other", "2023-11-14T22:13:20Z", "2023-11-14", NOW, NOW - 60])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=6),
    max_leaves=12,
)
# Nearly right, so that what comes after the first checks is reached as well.
features = st.dictionaries(st.text(max_size=3) | st.just("\udfff"), scalars, max_size=3) | scalars
sample = st.fixed_dictionaries(
    {"service": st.just("s") | scalars, "model": st.just("m") | scalars},
    optional={"time": scalars, "id": scalars, "features": features, "prediction": anything, "confidence": scalars},
)


def read(body: bytes, *, lines: bool) -> None:
    """Read a body, which gives samples or is refused with a sentence that can be answered with."""
    found: Samples | None = None
    refused: SamplesError | None = None
    try:
        found = from_json(body, TIMES, lines=lines, most=50)
    except SamplesError as error:
        refused = error
    if refused is not None:
        assert refused.reason in REASONS
        assert b"\n" not in str(refused).encode()
        assert len(str(refused)) < 1000
    if found is not None:
        for column in found.columns:
            assert len(column.times) == len(column.values) > 0
            assert np.isfinite(column.times).all()
            for text in column.key:
                assert 0 < len(text.encode().replace(b"\0", b"")) <= 4 * LONGEST
        for prediction in found.predictions:
            assert json.dumps(prediction, allow_nan=False, ensure_ascii=False).encode()


@given(anything | st.lists(sample, max_size=3), st.booleans())
@example([], False)
@example([{}], True)
@example({**OWNER, "time": 10**400, "features": {"a": 1}}, False)
@example({**OWNER, "features": {"a": 10**400}}, False)
@example({**OWNER, "id": 10**400, "prediction": 10**400}, False)
@example({**OWNER, "id": "a", "prediction": "\ud800"}, False)
@example({**OWNER, "features": {"a": "\ud800"}}, False)
@example({**OWNER, "time": math.inf, "features": {"a": 1}}, False)
@example({**OWNER, "time": "0001-01-01T00:00:00+23:59", "features": {"a": 1}}, False)
@example({**OWNER, "time": "9999-12-31T23:59:59-23:59", "features": {"a": 1}}, False)
def test_whatever_json_is_sent(content: Any, lines: bool) -> None:  # noqa: FBT001
    """It gives samples or is refused with a sentence, and nothing else happens."""
    read(json.dumps(content).encode(), lines=lines)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.booleans())
@example(b"[" * 100_000, False)
@example(b'{"a":' * 100_000, True)
@example(b'[{"service": "s", "model": "m", "features": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}]", False)
@example(b'[{"service": ' + b"[" * 960 + b"]" * 960 + b"}]", False)
@example(b'{"service": "s", "model": "m", "features": {"a": ' + b"9" * 5000 + b"}}", False)
@example(b"\xef\xbb\xbf[]", False)
@example(b"\xff\xfe", True)
@example(b"NaN", False)
@example(b'{"service": "s", "service": "t", "model": "m", "features": {"a": 1, "a": NaN}}', False)
@example(b'{"service": "s", "model": "m", "features": {"a": -Infinity}, "confidence": NaN}', False)
def test_whatever_bytes_are_sent(body: bytes, lines: bool) -> None:  # noqa: FBT001
    """The same of what is no JSON, or is more of it than any sender means."""
    read(body, lines=lines)


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [NOW - 60, int(NOW - 60), "2023-11-14T22:12:20Z", "2023-11-14T23:12:20+01:00", "20231114T221220Z"],
)
def test_a_time(written: float | str) -> None:
    """Seconds since 1970, or RFC 3339 with any time zone."""
    found = from_objects([{**OWNER, "time": written, "features": {"a": 1}}], TIMES)
    assert found.columns[0].times.tolist() == [NOW - 60]


def test_no_time_is_now() -> None:
    """For who sends samples as they come."""
    found = from_objects([{**OWNER, "features": {"a": 1}}, {**OWNER, "time": None, "features": {"a": 2}}], TIMES)
    assert found.columns[0].times.tolist() == [NOW, NOW]


@pytest.mark.parametrize(
    ("written", "reason", "sentence"),
    [
        ("2023-11-14T22:12", "invalid", 'samples[0].time is "2023-11-14T22:12", expected one that has a time zone'),
        ("2023-11-14", "invalid", 'samples[0].time is "2023-11-14", expected one that has a time zone'),
        ("yesterday", "invalid", 'samples[0].time is "yesterday", expected a time as of RFC 3339'),
        (True, "invalid", "samples[0].time is true, expected seconds since 1970 or a time as of RFC 3339"),
        ([1], "invalid", "samples[0].time is a list, expected seconds since 1970 or a time as of RFC 3339"),
        (math.nan, "invalid", "samples[0].time is NaN, expected seconds since 1970 or a time as of RFC 3339"),
        (NOW * 1000, "clock", "samples[0].time is 1698300000000 s ahead of the clock here, at most 300 s are allowed"),
        (NOW + 301, "clock", "samples[0].time is 301 s ahead of the clock here, at most 300 s are allowed"),
        (NOW - 7201, "late", "samples[0].time is 7201 s ago, at most 7200 s are allowed"),
        (0, "late", "samples[0].time is 1700000000 s ago, at most 7200 s are allowed"),
    ],
)  # fmt: skip
def test_wrong_times(written: Any, reason: str, sentence: str) -> None:
    """Are refused: a clock that is wrong, milliseconds, what is too old, and what may mean any time zone."""
    assert refusal({**OWNER, "time": written, "features": {"a": 1}}) == (reason, sentence)


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "reason", "sentence"),
    [
        (3, "invalid", "samples[0] is 3, expected an object with service, model, time, id, features, prediction, "),
        ({"service": "s"}, "invalid", "samples[0].model is null, expected a text of 1 to 200 characters"),
        ({**OWNER}, "invalid", "samples[0] has no feature and no prediction, expected some"),
        ({**OWNER, "features": {}}, "invalid", "samples[0] has no feature and no prediction, expected some"),
        ({**OWNER, "value": 1}, "invalid", 'samples[0] has the key "value", expected service, model, '),
        ({**OWNER, "service": "_a"}, "invalid", 'service is "_a", names that begin with _ are none of a service'),
        ({**OWNER, "service": "x" * 201}, "invalid", f'samples[0].service is "{"x" * 36}..., expected a text'),
        ({**OWNER, "model": "a\0b"}, "invalid", 'samples[0].model is "a\\u0000b", expected a text'),
        ({**OWNER, "features": [1]}, "invalid", "samples[0].features is a list, expected a mapping of names to values"),
        ({**OWNER, "features": {"": 1}}, "invalid", 'a name in samples[0].features is "", expected a text'),
        ({**OWNER, "features": {"a": [1]}}, "dtype", "feature 'a' is a list of 1 numbers, expected 2 to 4096"),
        ({**OWNER, "features": {"a": 10**400}}, "dtype", "feature 'a' has a number that is too large for a float"),
        ({**OWNER, "features": {"a": "x" * 201}}, "dtype", "expected a number, or a word of 200 characters"),
        ({**OWNER, "features": dict.fromkeys(map(str, range(1001)), 1)}, "too_large", "has 1001 features, at most 100"),
        ({**OWNER, "confidence": 1.5}, "invalid", "samples[0].confidence is 1.5, expected a number from 0 to 1"),
        ({**OWNER, "confidence": "high"}, "invalid", 'samples[0].confidence is "high", expected a number from 0 to 1'),
        ({**OWNER, "id": True, "prediction": 1}, "invalid", "samples[0].id is true, expected a text of 1 to 200"),
        ({**OWNER, "id": "1", "prediction": {}}, "dtype", "a value is an object, expected a number, or a word"),
    ],
)  # fmt: skip
def test_mistakes(sample: Any, reason: str, sentence: str) -> None:
    """Are one sentence with the place, what is there, and what was expected."""
    found = refusal(sample)
    assert found[0] == reason
    assert sentence in found[1]


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (1, "x", "feature 'a' is \"x\" where it was a number before"),
        (1, True, "feature 'a' is true where it was a number before"),
        ("x", 1, "feature 'a' is 1 where it was a word before"),
        (True, "x", "feature 'a' is \"x\" where it was a word before"),
        (None, {}, "feature 'a' is an object, expected a number, a word or null"),
    ],
)
def test_mixtures(first: Any, second: Any, sentence: str) -> None:
    """A feature is of numbers, of words or of truth values."""
    given = [{**OWNER, "features": {"a": None}}, *({**OWNER, "features": {"a": one}} for one in (first, second))]
    assert refusal(given) == ("dtype", sentence)


def test_too_many() -> None:
    """At once."""
    body = json.dumps([{**OWNER, "features": {"a": 1}}] * 3).encode()
    with pytest.raises(SamplesError, match="there are 3 samples, at most 2 may come at once") as caught:
        from_json(body, TIMES, lines=False, most=2)
    assert caught.value.reason == "too_large"


def test_lines_end_where_json_says() -> None:
    """And not at what ends a line elsewhere, which may be within a text."""
    names = ["a\u2028b", "a\u0085b", "a\x1cb"]
    lines = "\n".join(json.dumps({**OWNER, "features": {name: 1}}, ensure_ascii=False) for name in names[:2])
    found = from_json(lines.encode(), TIMES, lines=True, most=10)
    assert [one.key.feature for one in found.columns] == names[:2]


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        [1, 1.0, "1"],
        [-0.0, 0, "0"],
        [True, "true"],
        [1_234_567_890_123, 1_234_567_890_123.0, "1234567890123"],
        [0.1 + 0.2, 0.3, "0.3"],
        [2**70, str(2**70)],
        ["cat"],
    ],
)
def test_what_is_the_same_prediction(same: list[Any]) -> None:
    """However the model and who labels write it."""
    assert {said(one) for one in same} == {same[-1]}


def test_what_is_another_prediction() -> None:
    """Numbers of objects differ in their last digit."""
    assert len({said(one) for one in (1_234_567_890_123, 1_234_567_890_124, 1_234_567_890_123.5, "1.0", True)}) == 4 + 1


def test_predictions() -> None:
    """Those that have an identity wait for a label; what a model says is a feature as well."""
    given = [
        {**OWNER, "time": NOW, "id": 7, "prediction": "cat", "confidence": 0.9},
        {**OWNER, "time": NOW, "id": "8", "prediction": "dog"},
        {**OWNER, "time": NOW, "prediction": "cat", "confidence": 1},
        {**OWNER, "time": NOW, "id": "9", "features": {"a": 1}},
    ]
    found = from_objects(given, TIMES)
    assert found.predictions == [
        Prediction("vision", "yolo", "7", NOW, "cat", 0.9),
        Prediction("vision", "yolo", "8", NOW, "dog", None),
    ]
    assert {one.key.feature: list(one.values) for one in found.columns} == {
        "prediction": ["cat", "dog", "cat"],
        "confidence": [0.9, 1.0],
        "a": [1.0],
    }
    assert found.number == 4
