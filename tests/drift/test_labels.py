"""Labels that come late are joined to predictions by their identity, and count for when those were made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter_exporters.drift import labels
from infermeter_exporters.drift.labels import Accuracy, Joined, Label
from infermeter_exporters.drift.samples import Prediction, said
from infermeter_exporters.drift.store import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from infermeter_exporters.drift.store import Store

HOUR = 3600.0
BEGAN = 472_222 * HOUR
OWNER = ("vision", "yolo")


def prediction(identity: str, time: float = BEGAN, what: str = "cat", sure: float | None = None) -> Prediction:
    """What the model said."""
    return Prediction(*OWNER, identity, time, what, sure)


def label(identity: str, what: str = "cat", time: float = BEGAN + 60, model: str = "yolo") -> Label:
    """What was true."""
    return Label("vision", model, identity, what, time)


def keep(store: Store, *predictions: Prediction) -> None:
    """Keep predictions."""
    with store.transaction() as transaction:
        labels.keep(transaction, predictions, HOUR)


def join(store: Store, *given: Label) -> Joined:
    """Join labels."""
    with store.transaction() as transaction:
        return labels.join(transaction, given, HOUR)


def accuracy(store: Store, begin: float = BEGAN, end: float = BEGAN + HOUR) -> Accuracy:
    """Of the model, in a window."""
    with store.transaction() as transaction:
        return labels.accuracies(transaction, begin, end)[OWNER]


def test_labels(store: Store) -> None:
    """Three of four are labelled, two of those right; bounds are those of Wilson (1927), worked by hand."""
    keep(store, *(prediction(name) for name in "abcd"))
    assert join(store, label("a"), label("b", time=BEGAN + 120), label("c", "dog", BEGAN + 180)) == Joined(3, 0, 0)
    found = accuracy(store)
    assert found.ratio == pytest.approx(2 / 3)
    # (p + z^2/2n -+ z sqrt(p (1-p) / n + z^2/4n^2)) / (1 + z^2/n) of p = 2/3, n = 3 and z = 1.959964
    assert (found.lower, found.upper) == pytest.approx((0.2076596, 0.9385081), abs=1e-6)
    assert (found.labels, found.coverage, found.lag) == (3, 0.75, 120)
    assert math.isnan(found.estimated)


def test_nothing_is_known_without_labels(store: Store) -> None:
    """Which is not an accuracy of 0."""
    keep(store, prediction("a"))
    found = accuracy(store)
    assert (found.labels, found.coverage) == (0, 0)
    assert all(map(math.isnan, (found.ratio, found.lower, found.upper, found.lag)))


def test_unknown_and_duplicate_labels(store: Store) -> None:
    """Are counted as such; the first label counts, whatever later ones say."""
    keep(store, prediction("a"), prediction("b"))
    assert join(store, label("a"), label("a", "dog"), label("x"), label("a", model="other")) == Joined(1, 2, 1)
    assert join(store, label("a", "dog")) == Joined(0, 0, 1)
    assert (accuracy(store).ratio, accuracy(store).labels) == (1, 1)


def test_a_prediction_that_is_sent_twice(store: Store) -> None:
    """Is one, in one batch and in two; what the first one said counts."""
    keep(store, prediction("a"), prediction("a", what="dog"), prediction("b"))
    keep(store, prediction("a", what="dog"))
    assert join(store, label("a"), label("b")) == Joined(2, 0, 0)
    keep(store, prediction("a"))
    assert (accuracy(store).ratio, accuracy(store).coverage) == (1, 1)


def test_labels_count_when_the_prediction_was_made(store: Store) -> None:
    """However late they come, in whichever order; a label of before its prediction has no lag."""
    keep(store, prediction("early", BEGAN), prediction("late", BEGAN + HOUR, "dog"))
    join(store, label("late", time=BEGAN + 5 * HOUR))
    join(store, label("early", time=BEGAN - 10))
    first, second = accuracy(store), accuracy(store, BEGAN + HOUR, BEGAN + 2 * HOUR)
    assert (first.ratio, first.lag, second.ratio, second.lag) == (1, 0, 0, 4 * HOUR)
    both = accuracy(store, BEGAN, BEGAN + 2 * HOUR)
    assert (both.ratio, both.lag, both.labels) == (0.5, 2 * HOUR, 2)


@pytest.mark.parametrize(
    ("predicted", "labelled", "right"),
    [(1, 1.0, True), (1.0, "1", True), ("1", 1, True), (True, "true", True), (True, 1, False), (0.5, 0.25, False)],
)
def test_the_same_in_other_words(store: Store, predicted: float | str, labelled: float | str, right: bool) -> None:  # noqa: FBT001
    """1, 1.0 and "1" are the same prediction."""
    keep(store, prediction("a", what=said(predicted)))
    join(store, label("a", said(labelled)))
    assert accuracy(store).ratio == right


def test_accuracy_that_is_estimated(store: Store) -> None:
    """By how often the model was right, at the same confidence, before the window; 0.1 and 0.9 are in two buckets.

    Before: 8 of 10 were right at 0.9, and 1 of 5 at 0.1. Now 30 of 40 are at 0.9: 0.75 * 0.8 + 0.25 * 0.2 = 0.65.
    """
    past = BEGAN - 2 * HOUR
    keep(store, *(prediction(f"high {place}", past, sure=0.9) for place in range(10)))
    keep(store, *(prediction(f"low {place}", past, sure=0.1) for place in range(5)))
    join(store, *(label(f"high {place}", "cat" if place < 8 else "dog") for place in range(10)))
    join(store, *(label(f"low {place}", "cat" if place < 1 else "dog") for place in range(5)))
    keep(store, *(prediction(f"now {place}", sure=0.9 if place < 30 else 0.1) for place in range(40)))
    assert accuracy(store).estimated == pytest.approx(0.65)
    keep(store, prediction("unsure"))  # says nothing of it
    assert accuracy(store).estimated == pytest.approx(0.65)
    keep(store, prediction("other", sure=0.5))  # nobody knows how often that was right
    assert math.isnan(accuracy(store).estimated)


def test_models_have_nothing_to_do_with_each_other(store: Store) -> None:
    """Nor have services; an identity is unique for a model."""
    mine = prediction("a")
    keep(store, mine, mine._replace(model="other", prediction="dog"), mine._replace(service="sound"))
    assert join(store, label("a"), label("a", model="other")) == Joined(2, 0, 0)
    with store.transaction() as transaction:
        found = labels.accuracies(transaction, BEGAN, BEGAN + HOUR)
    assert {who: (one.labels, one.coverage) for who, one in found.items()} == {
        ("vision", "yolo"): (1, 1),
        ("vision", "other"): (1, 1),
        ("sound", "yolo"): (0, 0),
    }
    assert (found["vision", "yolo"].ratio, found["vision", "other"].ratio) == (1, 0)


@pytest.mark.parametrize("times", [[*range(10)], [0] * 10], ids=["one after the other", "all at once"])
def test_prune_keeps_the_newest(store: Store, times: Sequence[float]) -> None:
    """As many as there may be, also of those that were sent at once; what was counted stays."""
    keep(store, *(prediction(f"{place}", BEGAN + time) for place, time in enumerate(times)))
    join(store, label("0"))
    with store.transaction() as transaction:
        labels.prune(transaction, BEGAN, 4)
        left = sorted(row[0] for row in transaction("SELECT id FROM predictions"))
    assert len(left) == 4
    if times[1]:
        assert left == ["6", "7", "8", "9"]
    assert accuracy(store).coverage == 0.1
    assert join(store, *(label(f"{place}") for place in range(1, 10))) == Joined(4, 5, 0)


def test_prune_of_old_ones(store: Store) -> None:
    """Those of before a time wait for no label any more."""
    keep(store, prediction("old", BEGAN - 1), prediction("new", BEGAN))
    with store.transaction() as transaction:
        labels.prune(transaction, BEGAN, 100)
    assert join(store, label("old"), label("new")) == Joined(1, 1, 0)
    with store.transaction() as transaction:
        labels.prune_outcomes(transaction, BEGAN)
        found = labels.accuracies(transaction, BEGAN - HOUR, BEGAN + HOUR)[OWNER]
    assert (found.labels, found.coverage) == (1, 1)


def test_many(tmp_path: Path) -> None:
    """Two hundred thousand predictions and as many labels, half of them in another order, lose nothing."""
    number = 200_000
    chance = np.random.default_rng(1)
    right = chance.uniform(size=number) < 0.9
    sure = chance.uniform(size=number).tolist()
    store = opened(str(tmp_path / "store"))
    for begin in range(0, number, 50_000):
        keep(store, *(prediction(str(one), BEGAN + one % 3600, sure=sure[one]) for one in range(begin, begin + 50_000)))
    order = [*range(number // 2), *(number // 2 + chance.permutation(number // 2)).tolist()]
    made = [label(str(one), "cat" if right[one] else "dog", BEGAN + 3700) for one in order]
    assert join(store, *made) == Joined(number, 0, 0)
    found = accuracy(store)
    assert (found.labels, found.coverage, found.ratio) == (number, 1, right.mean())
    with store.transaction() as transaction:
        labels.prune(transaction, 0, 1000)
        assert transaction("SELECT COUNT(*), MIN(seen) FROM predictions")[0][0] == 1000
    store.close()
