"""Embeddings that moved are found, those that did not are left in peace, from sums that can be added."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.embeddings import Space, learnt_space, read_space, shift
from infermeter_exporters.drift.evaluation import Comparison, Key, evaluated
from infermeter_exporters.drift.report import as_json, chart, verdict_in_words
from infermeter_exporters.drift.samples import Column, Samples, SamplesError, Times, from_json
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import Store, opened
from infermeter_exporters.drift.tables import from_table
from infermeter_exporters.drift.verdicts import NEW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infermeter_exporters.drift.counts import Floats

CHANCE = np.random.default_rng(8)
DIMENSIONS = 24
MIXING = CHANCE.normal(size=(6, DIMENSIONS))


def vectors(number: int, chance: np.random.Generator = CHANCE) -> Floats:
    """Of few hidden causes and some noise, as embeddings are."""
    found: Floats = chance.normal(size=(number, 6)) @ MIXING + 0.3 * chance.normal(size=(number, DIMENSIONS)) + 5
    return found


REFERENCE = vectors(3000)
SPACE = learnt_space(REFERENCE)
SUMS = SPACE.counted(REFERENCE)


def exact(before: Floats, now: Floats) -> float:
    """The squared discrepancy by the kernel itself, without the pairs of a vector with itself."""
    standard = [(one - SPACE.centre) / SPACE.scale for one in (before, now)]

    def kernel(first: Floats, second: Floats) -> Floats:
        squares = np.square(first[:, None] - second[None]).sum(axis=2)
        found: Floats = np.exp(-squares / (2 * SPACE.width**2))
        return found

    within = []
    for one in standard:
        values = kernel(one, one)
        within.append((values.sum() - len(one)) / len(one) / (len(one) - 1))
    return float(sum(within) - 2 * kernel(*standard).mean())


@pytest.mark.parametrize("moved", [0.0, 0.5, 1.0])
def test_discrepancy(moved: float) -> None:
    """It is that of the kernel, as far as so many random features say."""
    now = vectors(600) + moved * SPACE.scale
    found = shift(SPACE, SPACE.counted(REFERENCE[:600]), SPACE.counted(now), 0.001)
    assert found.mmd**2 == pytest.approx(max(exact(REFERENCE[:600], now), 0.0), rel=0.15, abs=0.004)


def test_false_alarms() -> None:
    """Of a thousand windows without drift about ten are below 0.01, and few below 0.001."""
    chance = np.random.default_rng(9)
    found = np.array([shift(SPACE, SUMS, SPACE.counted(vectors(300, chance)), 0.001).pvalue for _ in range(1000)])
    assert 0.002 <= (found < 0.01).mean() <= 0.022
    assert (found < 0.001).mean() <= 0.005
    assert (found < 0.5).mean() == pytest.approx(0.5, abs=0.06)


def test_what_moved() -> None:
    """A shift of one hidden cause, a rotation that no mean shows, and more noise are all found."""
    chance = np.random.default_rng(10)
    usual = vectors(1000, chance)
    shifted = usual + 0.5 * MIXING[0]
    noisy = usual + chance.normal(size=usual.shape)
    mixed = usual.copy()
    for column in range(DIMENSIONS):
        chance.shuffle(mixed[:, column])  # each dimension by itself is as it was
    for now, means in ((shifted, True), (noisy, False), (mixed, False)):
        found = shift(SPACE, SUMS, SPACE.counted(now), 0.001)
        assert found.pvalue < 1e-6
        assert found.mmd > 0.05
        assert (found.moved > 0.5) is means
    assert shift(SPACE, SUMS, SPACE.counted(usual), 0.001).moved == 0


def test_sums_can_be_added() -> None:
    """Of parts they are those of the whole."""
    now = vectors(500)
    assert SPACE.counted(now[:200]) + SPACE.counted(now[200:]) == pytest.approx(SPACE.counted(now))


def test_what_is_kept() -> None:
    """Is the same space to the last bit."""
    again = read_space(json.loads(SPACE.written()))
    assert (again, hash(again)) == (SPACE, hash(SPACE))
    assert again.counted(REFERENCE).tolist() == SUMS.tolist()


def test_odd_references() -> None:
    """A dimension that never moves, one value for ever, too few vectors, and some that are none."""
    still = REFERENCE.copy()
    still[:, 0] = 0.7
    space = learnt_space(still)
    now = vectors(500)
    now[:, 0] = 0.7
    same = shift(space, space.counted(still), space.counted(now), 0.001)
    assert same.moved == 0
    now[:, 0] = 0.9
    assert shift(space, space.counted(still), space.counted(now), 0.001).moved == pytest.approx(1 / DIMENSIONS)
    ones = np.ones((500, 3))
    one = learnt_space(ones)
    assert shift(one, one.counted(ones), one.counted(ones), 0.001) == (0.0, 1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="fewer than two"):
        learnt_space(np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match="no vector"):
        shift(SPACE, SUMS, np.zeros(SPACE.size), 0.001)
    broken = vectors(100)
    broken[:7, 3] = np.nan
    assert SPACE.counted(broken)[:2].tolist() == [93, 7]
    assert isinstance(learnt_space(broken), Space)


# --- from the sender to the verdict -----------------------------------------------------------------------------------

KEY = Key("service", "model", "embedding")
RULES = Rules(slot=10, learn=1000, embeddings=True)
TIMES = Times(1000.0, 0.0, 2000.0)


def sent(now: Floats, moment: float) -> Samples:
    """As JSON."""
    objects = [
        {"service": "service", "model": "model", "time": moment, "features": {"embedding": one}} for one in now.tolist()
    ]
    return from_json(json.dumps(objects).encode(), TIMES, lines=False, most=10_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one."""
    with closing(opened(str(tmp_path / "store"))) as found:
        yield found


def test_embeddings_that_are_sent(store: Store) -> None:
    """The first ones are the reference; later ones are compared with it, whoever counted them."""
    chance = np.random.default_rng(11)
    first, usual, moved = vectors(200, chance), vectors(800, chance), vectors(800, chance) + SPACE.scale
    for now, moment in ((first[:100], 5), (first[100:], 15), (usual, 25), (moved, 35)):
        with store.transaction() as transaction:
            slots = Slots("push", RULES)  # each time by another process
            slots.add(transaction, sent(now, moment).columns, moment)
            if moment == 5:
                assert slots.learning(transaction) == {KEY: 100}
    with store.transaction() as transaction:
        reference = baselines.read(transaction, "push", "frozen")[KEY]
        found = [Slots("push", RULES).read(transaction, begin, begin + 10)[KEY] for begin in (20, 30)]
    assert (reference.histogram.samples, reference.began, reference.ended) == (200, 0, 20)
    comparisons = [Comparison(KEY, "frozen", reference.histogram, one) for one in found]
    calm, drifts = (evaluated([one], Gates())[0] for one in comparisons)
    assert (calm.status, calm.samples, calm.pvalue > 0.001) == ("ok", 800, True)
    assert (drifts.effect > 0.1, drifts.adjusted < 1e-9) == (True, True)
    assert drifts.statistics["dimensions_moved_ratio"] == 1
    words = verdict_in_words(drifts, NEW, Gates())
    assert words.startswith("This window drifts (the discrepancy is ")
    assert chart(reference.histogram, found[1]) == ""
    (shown,) = as_json([(drifts, NEW)], Gates())
    assert shown["histograms"]["current"]["counts"] == [800]


@pytest.mark.parametrize(
    ("rules", "values", "words"),
    [
        (
            RULES._replace(embeddings=False),
            np.ones((3, 4)),
            "they are not counted unless `embeddings` of the source is true",
        ),
        (RULES, np.ones((3, 5)), "has vectors of 5, expected vectors of 4, as it had before"),
        (RULES, np.ones(3), "has numbers, expected vectors of 4, as it had before"),
        (RULES, ["a", "b"], "has words, expected numbers, as it had before"),
    ],
)
@pytest.mark.parametrize("before", [20, 500])
def test_what_does_not_fit(store: Store, rules: Rules, values: Any, words: str, before: int) -> None:
    """Is refused, while the reference is learnt and afterwards; missing ones are counted as such."""
    with store.transaction() as transaction:
        Slots("push", RULES).add(transaction, [Column(KEY, np.full(before, 5.0), vectors(before)[:, :4])], 5)
        column = Column(KEY, np.full(len(values), 15.0), values)
        with pytest.raises(SamplesError) as raised:
            Slots("push", rules).add(transaction, [column], 15)
        assert words in str(raised.value)
        missing = Column(KEY, np.full(2, 25.0), np.full(2, np.nan))
        Slots("push", RULES).add(transaction, [missing], 25)
        if before == 500:
            assert Slots("push", RULES).read(transaction, 20, 30)[KEY].non_finite == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0], "is a list of 1 numbers, expected 2 to 4096"),
        ([1.0] * 5000, "is a list of 5000 numbers, expected 2 to 4096"),
        ([1.0, "a"], 'has "a" in a list of numbers'),
        ([1.0, True], "has true in a list of numbers"),
        ([1.0, 10**400], "has a number that is too large for a float"),
    ],
)
def test_lists_that_are_no_embeddings(value: Any, words: str) -> None:
    """Are said to be what they are."""
    body = {"service": "s", "model": "m", "features": {"e": value}}
    with pytest.raises(SamplesError) as raised:
        from_json(json.dumps(body).encode(), TIMES, lines=False, most=10)
    assert (raised.value.reason, words in str(raised.value)) == ("dtype", True)


def test_tables_have_them_too() -> None:
    """As lists, of a fixed size or not; a row without one is a missing one."""
    rows = [[1.0, 2.0], None, [3.0, 4.0]]
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float64())):
        found = from_table(pa.table({"e": pa.array(rows, kind)}), TIMES, "s", "m")
        values = found.columns[0].values
        assert isinstance(values, np.ndarray)
        assert values.tolist()[::2] == [[1.0, 2.0], [3.0, 4.0]]
        assert np.isnan(values[1]).all()
