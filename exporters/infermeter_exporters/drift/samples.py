"""Observations as people send them, as JSON or tables: checked wholly before anything is counted."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.embeddings import MOST_DIMENSIONS
from infermeter_exporters.drift.evaluation import Key

CONFIDENCE, PREDICTION = "confidence", "prediction"
_KEYS = ("service", "model", "time", "id", "features", PREDICTION, CONFIDENCE)
LONGEST = 200
"""Characters of a name, a word or an identity."""
MOST_FEATURES = 1000
_EXACT = 2.0**53
"""From there on, a float is one of several whole numbers."""
_FARTHEST = 1e15
"""Seconds from 1970 to what is a time at all."""

AHEAD = 300.0
"""Seconds by which clocks may differ."""

Values = Floats | list[str | None]


class SamplesError(Exception):
    """Something that was sent cannot be counted; nothing of it was.

    Args:
        reason: a word, as it stands in metrics.
        text: a sentence.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Column(NamedTuple):
    """Values of one feature.

    Attributes:
        key: whose.
        times: of shape (values,), seconds since 1970.
        values: numbers; or words, of which None is a missing one; or vectors, of shape (values, dimensions).
    """

    key: Key
    times: Floats
    values: Values


class Prediction(NamedTuple):
    """What a model said, to be judged when somebody knows better.

    Attributes:
        service: whose.
        model: of the service.
        id: of the prediction, unique for the model.
        time: of it, in seconds since 1970.
        prediction: what it said.
        confidence: how sure it was, 0 to 1; None if it did not say.
    """

    service: str
    model: str
    id: str
    time: float
    prediction: str
    confidence: float | None


class Samples(NamedTuple):
    """What was sent at once.

    Attributes:
        columns: features.
        predictions: those that have an identity.
        number: of samples.
    """

    columns: Sequence[Column]
    predictions: Sequence[Prediction]
    number: int


class Times(NamedTuple):
    """Which times samples may have, in seconds since 1970.

    Attributes:
        now: of those that say none.
        earliest: older ones are not counted any more.
        latest: later ones come from a clock that is wrong.
    """

    now: float
    earliest: float
    latest: float


def from_json(body: bytes, times: Times, *, lines: bool, most: int) -> Samples:
    """Samples as a list of objects, one object, or one on each line.

    An object has `service`, `model`, and `features`, a mapping of names to numbers, words, null, or lists of numbers,
    which are embeddings; besides, it may have
    `time` (seconds since 1970, or as of RFC 3339), `id`, `prediction` and `confidence`. The latter two are features
    as well.

    Args:
        body: UTF-8.
        times: which are allowed.
        lines: whether each line is an object.
        most: how many samples may come at once.

    Raises:
        SamplesError: it cannot be counted.
    """
    return from_objects(read_json(body, lines=lines, most=most), times)


def from_objects(objects: Sequence[Any], times: Times) -> Samples:
    """The same of objects that were read; arguments and errors are as of `from_json`."""
    features: dict[Key, tuple[list[float], list[Any]]] = defaultdict(lambda: ([], []))
    predictions = []
    for place, one in enumerate(objects):
        where = f"samples[{place}]"
        found = checked_object(one, where, _KEYS)
        service, model = (word(found.get(name), f"{where}.{name}") for name in ("service", "model"))
        taken = moment(found.get("time"), f"{where}.time", times)
        given = found.get("features")
        values = dict(_features(given, f"{where}.features")) if given is not None else {}
        sure = confidence(found.get(CONFIDENCE), f"{where}.confidence")
        for name in (PREDICTION, CONFIDENCE):
            if found.get(name) is not None:
                values[name] = found[name]
        if not values:
            raise SamplesError("invalid", f"{where} has no feature and no prediction, expected some")
        for name, value in values.items():
            moments, column = features[Key(service, model, name)]
            moments.append(taken)
            column.append(value)
        if found.get("id") is not None:
            identity = word(found["id"], f"{where}.id")
            if not missing(found.get(PREDICTION)):
                predictions.append(Prediction(service, model, identity, taken, said(found[PREDICTION]), sure))
    columns = [
        Column(key, np.asarray(moments), column_of(values, f"feature {key.feature!r}"))
        for key, (moments, values) in features.items()
    ]
    return Samples(columns, predictions, len(objects))


def read_json(body: bytes, *, lines: bool, most: int) -> list[Any]:
    """The objects of a body.

    Raises:
        SamplesError: it is no JSON, or there are more objects than `most`.
    """
    try:
        text = body.decode()
        if lines:
            # Other characters that end a line elsewhere may be within a text of JSON.
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            content = json.loads(text)
            found = content if isinstance(content, list) else [content]
    except (ValueError, RecursionError) as error:
        raise SamplesError("malformed", f"the body is not JSON: {error}") from error
    if len(found) > most:
        raise SamplesError("too_large", f"there are {len(found)} samples, at most {most} may come at once")
    return found


def said(value: Any) -> str:
    """A prediction or a label as text, so that both can be compared: 1, 1.0 and "1" are the same.

    Raises:
        SamplesError: it is neither a number nor a word.
    """
    found: Any
    if isinstance(value, bool):
        found = "true" if value else "false"
    elif isinstance(value, float):
        found = str(int(value)) if value.is_integer() and abs(value) < _EXACT else f"{value:.12g}"
    else:
        found = str(value) if isinstance(value, int) else value
    if not isinstance(found, str) or len(found) > LONGEST or not _storable(found):
        raise SamplesError("dtype", f"a value is {_shown(value)}, expected a number, or a word of {LONGEST} characters")
    return found


def missing(value: Any) -> bool:
    """Whether it is nothing, as JSON or as tables of numbers have it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _storable(text: str) -> bool:
    """Whether a database can have it: half of a pair of surrogates is no character, and PostgreSQL has no NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _features(found: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise SamplesError("invalid", f"{where} is {_shown(found)}, expected a mapping of names to values")
    if len(found) > MOST_FEATURES:
        raise SamplesError("too_large", f"{where} has {len(found)} features, at most {MOST_FEATURES} may be there")
    for name in found:
        word(name, f"a name in {where}")
    return found


def column_of(values: list[Any], where: str) -> Values:
    """Numbers, words or vectors, whichever the first value that is there is.

    Raises:
        SamplesError: it is none of these, or a mixture.
    """
    first = next((value for value in values if value is not None), None)
    if isinstance(first, list):
        return _vectors(values, len(first), where)
    if first is None or (isinstance(first, int | float) and not isinstance(first, bool)):
        if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in values):
            wrong = next(one for one in values if isinstance(one, bool) or not isinstance(one, int | float | None))
            raise SamplesError("dtype", f"{where} is {_shown(wrong)} where it was a number before")
        try:
            return np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)
        except OverflowError as error:
            raise SamplesError("dtype", f"{where} has a number that is too large for a float") from error
    for value in values:
        if value is not None and type(value) is not type(first):
            raise SamplesError("dtype", f"{where} is {_shown(value)} where it was a word before")
        if not isinstance(value, str | bool | None):
            raise SamplesError("dtype", f"{where} is {_shown(value)}, expected a number, a word or null")
    return [None if value is None else said(value) for value in values]


def _vectors(values: list[Any], dimensions: int, where: str) -> Floats:
    if not 2 <= dimensions <= MOST_DIMENSIONS:  # noqa: PLR2004
        text = f"{where} is a list of {dimensions} numbers, expected 2 to {MOST_DIMENSIONS}, as an embedding has"
        raise SamplesError("dtype", text)
    found = np.full((len(values), dimensions), math.nan)
    for place, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, list) or len(value) != dimensions:
            raise SamplesError(
                "dtype", f"{where} is {_shown(value)} where it was a list of {dimensions} numbers before"
            )
        for one in value:
            if isinstance(one, bool) or not isinstance(one, int | float):
                raise SamplesError("dtype", f"{where} has {_shown(one)} in a list of numbers")
        try:
            found[place] = value
        except OverflowError as error:
            raise SamplesError("dtype", f"{where} has a number that is too large for a float") from error
    return found


def checked_object(found: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """An object that has no other keys.

    Raises:
        SamplesError: it is none, or has some.
    """
    if not isinstance(found, dict):
        raise SamplesError("invalid", f"{where} is {_shown(found)}, expected an object with {', '.join(keys)}")
    for key in found:
        if key not in keys:
            raise SamplesError("invalid", f"{where} has the key {_shown(key)}, expected {', '.join(keys)}")
    return found


def word(found: Any, where: str) -> str:
    """A name or an identity; whole numbers are taken as well.

    Raises:
        SamplesError: it is none.
    """
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not found or len(found) > LONGEST or not _storable(found):
        raise SamplesError("invalid", f"{where} is {_shown(found)}, expected a text of 1 to {LONGEST} characters")
    if where.endswith("service") and found.startswith("_"):
        raise SamplesError("invalid", f"{where} is {_shown(found)}, names that begin with _ are none of a service")
    return found


def moment(found: Any, where: str, times: Times) -> float:
    """A time in seconds since 1970; now for None.

    Raises:
        SamplesError: it is none, or not one of those that are allowed.
    """
    if found is None:
        return times.now
    if isinstance(found, str):
        try:
            parsed = datetime.fromisoformat(found)
        except ValueError as error:
            raise SamplesError("invalid", f"{where} is {_shown(found)}, expected a time as of RFC 3339") from error
        if parsed.tzinfo is None:
            raise SamplesError("invalid", f"{where} is {_shown(found)}, expected one that has a time zone")
        found = parsed.timestamp()
    if isinstance(found, bool) or not isinstance(found, int | float) or not -_FARTHEST <= found <= _FARTHEST:
        raise SamplesError(
            "invalid", f"{where} is {_shown(found)}, expected seconds since 1970 or a time as of RFC 3339"
        )
    in_time(found, found, where, times)
    return float(found)


def in_time(lowest: float, highest: float, where: str, times: Times) -> None:
    """Nothing, if times from the lowest to the highest are allowed.

    Raises:
        SamplesError: they are not.
    """
    if highest > times.latest:
        ahead = f"{where} is {highest - times.now:.0f} s ahead of the clock here"
        raise SamplesError("clock", f"{ahead}, at most {times.latest - times.now:.0f} s are allowed")
    if lowest < times.earliest:
        behind = f"{where} is {times.now - lowest:.0f} s ago"
        raise SamplesError("late", f"{behind}, at most {times.now - times.earliest:.0f} s are allowed")


def confidence(found: Any, where: str) -> float | None:
    """How sure a model was; None if it did not say.

    Raises:
        SamplesError: it is no number from 0 to 1.
    """
    if missing(found):
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise SamplesError("invalid", f"{where} is {_shown(found)}, expected a number from 0 to 1")
    return float(found)


def _shown(value: Any) -> str:
    """In a sentence; what is large or deep is not written out."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value[:100] if isinstance(value, str) else value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004
