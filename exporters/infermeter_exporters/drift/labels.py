"""What turned out to be true: labels that come late are joined to predictions, and counted when those were made."""

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from infermeter.buckets import CONFIDENCE
from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.estimated_accuracy import estimated_accuracy
from infermeter_exporters.drift.samples import Prediction
from infermeter_exporters.drift.store import Transaction
from infermeter_exporters.drift.wilson import wilson

_BINS = len(CONFIDENCE) + 1
_AT_ONCE = 200
_KEEP = "INSERT INTO predictions VALUES {places} ON CONFLICT DO NOTHING RETURNING service, model, id"
_LABEL = (
    "UPDATE predictions SET labelled = 1 WHERE service = ? AND model = ? AND id = ? AND labelled = 0"
    " RETURNING seen, prediction, confidence"
)
_KNOWN = "SELECT 1 FROM predictions WHERE service = ? AND model = ? AND id = ?"


class Label(NamedTuple):
    """The truth about a prediction.

    Attributes:
        service: whose.
        model: of the service.
        id: of the prediction.
        label: what it should have been, as `samples.said` writes it.
        time: when that was known, in seconds since 1970.
    """

    service: str
    model: str
    id: str
    label: str
    time: float


class Joined(NamedTuple):
    """What became of labels.

    Attributes:
        joined: to a prediction.
        unknown: of no prediction that is known.
        duplicate: of one that had a label already.
    """

    joined: int
    unknown: int
    duplicate: int


class Outcomes(NamedTuple):
    """What is known of predictions that were made in some time; arrays are by bucket of confidence.

    Attributes:
        predictions: how many.
        labelled: how many of them have a label.
        right: how many of those were right.
        lag: the sum of seconds from predictions to their labels.
        sure: predictions that said how sure they are.
        sure_labelled: those that have a label.
        sure_right: how many of those were right.
    """

    predictions: float
    labelled: float
    right: float
    lag: float
    sure: Floats
    sure_labelled: Floats
    sure_right: Floats


class Accuracy(NamedTuple):
    """Of a model, over a window; NaN where nothing is known.

    Attributes:
        ratio: right ones among those that have a label, 0 to 1.
        lower: bound of 95 %.
        upper: bound of 95 %.
        labels: how many.
        coverage: part of predictions that have a label.
        lag: mean seconds from a prediction to its label.
        estimated: by confidences alone, with what was right at which confidence before the window.
    """

    ratio: float
    lower: float
    upper: float
    labels: float
    coverage: float
    lag: float
    estimated: float


def keep(transaction: Transaction, predictions: Sequence[Prediction], slot: float) -> None:
    """Keep predictions until their labels come; the second of an identity is none."""
    fresh: set[tuple[str, str, str]] = set()
    for place in range(0, len(predictions), _AT_ONCE):
        part = predictions[place : place + _AT_ONCE]
        rows = [(one.service, one.model, one.id, one.time, one.prediction, one.confidence, 0) for one in part]
        statement = _KEEP.format(places=", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(rows)))
        fresh |= {
            (service, model, identity)
            for service, model, identity in transaction(statement, *(value for row in rows for value in row))
        }
    changes: dict[tuple[str, str, float], _Change] = defaultdict(_Change)
    for one in predictions:
        who = one.service, one.model, one.id
        if who in fresh:
            fresh.discard(who)
            changes[one.service, one.model, math.floor(one.time / slot) * slot].made(one.confidence)
    _add(transaction, changes)


def join(transaction: Transaction, labels: Sequence[Label], slot: float) -> Joined:
    """Join labels to predictions."""
    changes: dict[tuple[str, str, float], _Change] = defaultdict(_Change)
    joined = unknown = duplicate = 0
    for label in labels:
        who = label.service, label.model, label.id
        moved = transaction(_LABEL, *who)
        if not moved:
            known = transaction(_KNOWN, *who)
            duplicate, unknown = duplicate + bool(known), unknown + (not known)
            continue
        joined += 1
        seen, prediction, confidence = moved[0]
        change = changes[label.service, label.model, math.floor(seen / slot) * slot]
        change.labelled(confidence, max(label.time - seen, 0.0), right=prediction == label.label)
    _add(transaction, changes)
    return Joined(joined, unknown, duplicate)


def prune(transaction: Transaction, before: float, most: int) -> None:
    """Forget predictions of before a time, and the oldest ones beyond a number; what was counted of them stays."""
    transaction("DELETE FROM predictions WHERE seen < ?", before)
    excess = transaction("SELECT COUNT(*) FROM predictions")[0][0] - most
    if excess > 0:
        transaction(
            "DELETE FROM predictions WHERE (service, model, id) IN"
            " (SELECT service, model, id FROM predictions ORDER BY seen LIMIT ?)",
            excess,
        )


def prune_outcomes(transaction: Transaction, before: float) -> None:
    """Forget what was counted of predictions of before a time."""
    transaction("DELETE FROM outcomes WHERE began < ?", before)


def accuracies(transaction: Transaction, begin: float, end: float) -> dict[tuple[str, str], Accuracy]:
    """Of each model of which there are predictions in a window, by service and model."""
    now: dict[tuple[str, str], Outcomes] = defaultdict(_none)
    before: dict[tuple[str, str], Outcomes] = defaultdict(_none)
    for service, model, began, content in transaction("SELECT * FROM outcomes WHERE began < ?", end):
        into = now if began >= begin else before
        into[service, model] = _plus(into[service, model], _read(content))
    return {who: _accuracy(outcomes, before[who]) for who, outcomes in now.items() if outcomes.predictions}


def _accuracy(now: Outcomes, before: Outcomes) -> Accuracy:
    low, high = wilson(now.right, now.labelled)
    nothing = not now.labelled
    with np.errstate(invalid="ignore", divide="ignore"):
        of_bucket = before.sure_right / before.sure_labelled
    return Accuracy(
        math.nan if nothing else now.right / now.labelled,
        float(low),
        float(high),
        now.labelled,
        now.labelled / now.predictions,
        math.nan if nothing else now.lag / now.labelled,
        float(estimated_accuracy(now.sure, of_bucket)),
    )


def _none() -> Outcomes:
    return Outcomes(0.0, 0.0, 0.0, 0.0, np.zeros(_BINS), np.zeros(_BINS), np.zeros(_BINS))


class _Change:
    """What is added to outcomes; in place, since there is one of it for many thousands of predictions."""

    def __init__(self) -> None:
        self.predictions = self.labels = self.right = 0
        self.lag = 0.0
        self.sure, self.sure_labelled, self.sure_right = ([0.0] * _BINS for _ in range(3))

    def made(self, confidence: float | None) -> None:
        self.predictions += 1
        if confidence is not None:
            self.sure[bisect_left(CONFIDENCE, confidence)] += 1

    def labelled(self, confidence: float | None, lag: float, *, right: bool) -> None:
        self.labels += 1
        self.right += right
        self.lag += lag
        if confidence is not None:
            bucket = bisect_left(CONFIDENCE, confidence)
            self.sure_labelled[bucket] += 1
            self.sure_right[bucket] += right

    def outcomes(self) -> Outcomes:
        buckets = map(np.asarray, (self.sure, self.sure_labelled, self.sure_right))
        return Outcomes(float(self.predictions), float(self.labels), float(self.right), self.lag, *buckets)


def _plus(first: Outcomes, second: Outcomes) -> Outcomes:
    pairs: Any = zip(first, second, strict=True)
    return Outcomes(*(one + other for one, other in pairs))


def _add(transaction: Transaction, changes: Mapping[tuple[str, str, float], _Change]) -> None:
    for where, changed in changes.items():
        change = changed.outcomes()
        before = transaction("SELECT content FROM outcomes WHERE service = ? AND model = ? AND began = ?", *where)
        total = _plus(_read(before[0][0]), change) if before else change
        transaction(
            "INSERT INTO outcomes VALUES (?, ?, ?, ?)"
            " ON CONFLICT (service, model, began) DO UPDATE SET content = excluded.content",
            *(*where, json.dumps([_plain(value) for value in total])),
        )


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _read(content: str) -> Outcomes:
    found: list[Any] = [np.asarray(value) if isinstance(value, list) else value for value in json.loads(content)]
    return Outcomes(*found)
