"""However values are cut into batches and slots, what is read is what was sent; in each kind of store."""

from __future__ import annotations

import threading
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.baselines import FROZEN
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.intake import Intake
from infermeter_exporters.drift.layout import Histogram, Layout, learnt
from infermeter_exporters.drift.samples import Column, Samples, SamplesError, Values
from infermeter_exporters.drift.slots import Rules, Slots, read_values, write_values
from infermeter_exporters.drift.store import Store, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BEGAN = 1_700_000_100.0
SLOT = 300.0
LEARN = 100
A, B = Key("service", "model", "a"), Key("service", "model", "b")
_sources = (f"source {number}" for number in count())


def made(learn: int = LEARN, most: int = 100, slot: float = SLOT, source: str = "") -> Slots:
    """Slots of a source that nobody has used yet, unless it is given."""
    return Slots(source or next(_sources), Rules(slot, learn=learn, most=most))


def column(values: Any, key: Key = A, times: Any = BEGAN) -> Column:
    """Values of a feature, all of one time or each of its own."""
    words = isinstance(values, list) and all(isinstance(one, str | None) for one in values)
    given: Values = values if words else np.asarray(values, dtype=np.float64)
    return Column(key, np.broadcast_to(np.asarray(times, dtype=np.float64), len(values)), given)


def add(store: Store, slots: Slots, *columns: Column) -> None:
    """Count a batch, in a transaction of its own."""
    with store.transaction() as transaction:
        slots.add(transaction, columns, BEGAN)


def counted(store: Store, slots: Slots, begin: float = 0, end: float = 2 * BEGAN) -> dict[Key, Histogram]:
    """What was counted from a time to another one."""
    with store.transaction() as transaction:
        return slots.read(transaction, begin, end)


def everything(store: Store) -> dict[str, list[Any]]:
    """All that is in the tables that slots use."""
    with store.transaction() as transaction:
        return {
            table: sorted(map(tuple, transaction(f"SELECT * FROM {table}")), key=repr)  # noqa: S608
            for table in ("slots", "learning", "baselines", "layouts")
        }


numbers = st.lists(
    st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]), min_size=LEARN, max_size=250
).map(lambda found: np.asarray([0.5, *found]))
words = st.lists(st.sampled_from([*"abcdefg", None]), min_size=LEARN, max_size=250).map(lambda found: ["a", *found])
cuts = st.lists(st.integers(1, 400), max_size=5)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(numbers | words, cuts, st.integers(0, 2**32), st.booleans())
@example(np.asarray([0.5] * 300), [10, 50], 1, False)
@example(np.asarray([0.5, *[np.inf] * 150]), [1, 120], 1, False)
def test_however_values_are_cut(store: Store, values: Values, at: Sequence[int], seed: int, again: bool) -> None:  # noqa: FBT001
    """Into batches and slots, before and after the reference is learnt: each is counted once.

    Bins are those of the values that were there when it was; what numpy counts over them is what is read.
    """
    slots = made()
    times = BEGAN + np.random.default_rng(seed).integers(0, int(4 * SLOT), len(values))
    bounds = [0, *sorted({one for one in at if one < len(values)}), len(values)]
    learnt_of = next(end for end in bounds if end >= LEARN)
    for begin, end in pairwise(bounds):
        add(store, slots, column(values[begin:end], times=times[begin:end]))
        if again:  # as another process goes on with it
            slots = made(source=slots.source)
    layout = learnt(values[:learnt_of])
    with store.transaction() as transaction:
        (reference,) = baselines.read(transaction, slots.source, FROZEN).values()
    assert reference.histogram.layout == layout
    assert reference.histogram.counts.tolist() == layout.counted(values[:learnt_of]).tolist()
    (found,) = counted(store, slots).values()
    assert found.counts.tolist() == layout.counted(values).tolist()
    if isinstance(values, np.ndarray):
        finite = values[np.isfinite(values)]
        places = np.searchsorted(layout.edges, finite, side="left")
        assert found.counts[: layout.bins].tolist() == np.bincount(places, minlength=layout.bins).tolist()
        assert found.non_finite == len(values) - len(finite)
    else:
        assert found.counts[: layout.bins].tolist() == [*(values.count(name) for name in layout.names or ()), 0]
        assert found.non_finite == values.count(None)
    slot = int(seed) % 4
    here = (times >= BEGAN + slot * SLOT) & (times < BEGAN + (slot + 1) * SLOT)
    part = counted(store, slots, BEGAN + slot * SLOT, BEGAN + (slot + 1) * SLOT)
    inside = values[here] if isinstance(values, np.ndarray) else [values[place] for place in np.flatnonzero(here)]
    expected = [layout.counted(inside).tolist()] if here.any() else []
    assert [one.counts.tolist() for one in part.values()] == expected


def test_slots_of_any_length(store: Store) -> None:
    """Also those whose beginnings are no numbers that a computer has exactly."""
    slots = made(slot=0.1)
    times = np.floor(BEGAN) + np.arange(1000) / 100 + 0.005
    add(store, slots, column(np.arange(1000.0), times=times))
    ends = [np.floor((BEGAN + number / 10) / 0.1) * 0.1 for number in range(5, 97)]
    found = [sum(one.samples for one in counted(store, slots, end - 0.3, end).values()) for end in ends]
    assert found == [30.0] * len(ends)


@pytest.mark.parametrize(
    "wrong",
    [
        column(["x"], A),
        column([1.0], B),
        column(["x"], Key("s", "m", "learning")),
        column([1.0], Key("s", "m", "one more")),
    ],
    ids=["words of numbers", "numbers of words", "words of numbers that are learnt", "one feature too many"],
)
def test_what_is_refused_changes_nothing(store: Store, wrong: Column) -> None:
    """Neither counts nor what is being learnt, in the store and in memory; not even where all is one transaction."""
    slots = made(most=3)
    add(store, slots, column(np.arange(200.0), A), column(list("xy") * 100, B))
    learning = Key("s", "m", "learning")
    add(store, slots, column(np.arange(60.0), learning))
    before = everything(store)
    good = column([1.0, 2.0], A)
    others = [one for one in (good, column(np.arange(60.0), learning)) if one.key != wrong.key]
    with store.transaction() as transaction, pytest.raises(SamplesError) as caught:
        slots.add(transaction, [*others, wrong], BEGAN)
    assert caught.value.reason == ("too_many_series" if wrong.key.feature == "one more" else "dtype")
    assert everything(store) == before
    # The sixty of the batch that was refused are not there: thirty more are not enough, and ten more are.
    for number, known in ((30, False), (10, True)):
        add(store, slots, good, column(np.arange(float(number)), learning))
        assert (learning in counted(store, slots)) is known
    assert counted(store, slots)[learning].samples == 100
    assert counted(store, slots)[A].samples == 204


def test_batches_of_one_transaction(store: Store) -> None:
    """The intake keeps many together; one that is refused takes none of the others with it, nor what they learnt."""
    slots = made()
    intake = Intake(store, slots, SLOT)
    batches = [
        Samples([column(np.arange(60.0), A)], (), 60),
        Samples([column(np.arange(100.0), B), column(["x"], A)], (), 100),
        Samples([column(np.arange(60.0), A)], (), 60),
        Samples([column(["x"] * 100, B)], (), 100),
    ]
    waiting = [intake.samples(batch) for batch in batches]
    intake.start()
    answers = [one.exception(10) or one.result() for one in waiting]
    intake.stop()
    assert [answer if isinstance(answer, dict) else type(answer) for answer in answers] == [
        {"accepted": 60},
        SamplesError,
        {"accepted": 60},
        {"accepted": 100},
    ]
    found = counted(store, slots)
    assert {key: (one.layout.numeric, one.samples) for key, one in found.items()} == {A: (True, 120), B: (False, 100)}


def test_a_batch_that_nothing_can_be_done_with(store: Store) -> None:
    """It is a mistake of ours; those that came with it are kept all the same, each once."""
    slots = made(learn=10)
    intake = Intake(store, slots, SLOT)
    good = Samples([column(np.arange(10.0))], (), 10)
    impossible = Samples([Column(A, np.asarray([BEGAN]), np.asarray(["x"], dtype=object))], (), 1)
    waiting = [intake.samples(batch, f"batch {place}") for place, batch in enumerate((good, impossible, good))]
    intake.start()
    failed = [one.exception(10) is not None for one in waiting]
    intake.stop()
    assert failed == [False, True, False]
    assert counted(store, slots)[A].samples == 20


def test_a_transaction_that_does_not_happen(store: Store) -> None:
    """What was learnt in it is unknown again once it is forgotten."""
    slots = made()

    def die() -> None:
        with store.transaction() as transaction:
            slots.add(transaction, [column(np.arange(150.0))], BEGAN)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    slots.forget()
    assert counted(store, slots) == {}
    add(store, slots, column(list("abcde") * 30))
    assert counted(store, slots)[A].layout.names == tuple("abcde")


def test_what_says_nothing(store: Store) -> None:
    """Of values that are all missing nobody knows what they would be; they are counted from the first one on."""
    slots = made(learn=10, most=1)
    nothing = [np.nan, np.nan]
    for values in (nothing, [np.inf], [None]):
        add(store, slots, column(values), column(values, B))
    assert everything(store)["learning"] == []
    add(store, slots, column(["x", None]))
    add(store, slots, column(nothing))  # as JSON has it, where all of them are null
    add(store, slots, column(["y"] * 6))
    found = counted(store, slots)[A]
    assert (found.layout.names, found.samples, found.non_finite) == (("x", "y"), 7, 3)
    add(store, slots, column(nothing))
    add(store, slots, column([None]))
    found = counted(store, slots)[A]
    assert (found.samples, found.non_finite) == (7, 6)


def test_nothing_where_there_were_numbers(store: Store) -> None:
    """The same, as tables have it, where a column of words may be all missing."""
    slots = made(learn=4)
    add(store, slots, column([1.0]))
    add(store, slots, column([None, None]))
    add(store, slots, column([2.0, 3.0]))
    add(store, slots, column([None]))
    found = counted(store, slots)[A]
    assert (found.layout.numeric, found.samples, found.non_finite) == (True, 3, 3)


def test_words_that_the_reference_does_not_have(store: Store) -> None:
    """Are counted together."""
    slots = made(learn=4)
    add(store, slots, column(["a", "b", "a", None]))
    add(store, slots, column(["c", "d", "a", None]))
    found = counted(store, slots)[A]
    assert found.counts[:3].tolist() == [3, 1, 2]
    assert (found.new_words, found.non_finite) == (2, 2)


def test_a_reference_with_other_bins(store: Store) -> None:
    """From then on is counted over its bins; a window of both is over what they have in common."""
    slots = made(learn=4)
    before = Layout([1.0, 2.0, 3.0], None, 0.0, 4.0)
    after = Layout([2.0, 3.0, 5.0], None, 0.0, 6.0)
    values = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    for place, layout in enumerate((before, after)):
        with store.transaction() as transaction:
            reference = {A: Histogram(layout, layout.counted(values))}
            baselines.write(transaction, slots.source, FROZEN, reference, (0, 1), BEGAN + place)
        add(store, slots, column(values))
    for found in (counted(store, slots)[A], counted(store, made(source=slots.source))[A]):
        assert found.layout == Layout([2.0, 3.0], None, 0.0, 6.0)
        assert found.counts[:3].tolist() == [4, 2, 6]


def test_a_reference_that_has_nothing_in_common(store: Store) -> None:
    """What was counted over its bins counts; nothing is made up of the rest."""
    slots = made(learn=4)
    for place, layout in enumerate((Layout([1.0]), Layout([2.0]))):
        with store.transaction() as transaction:
            reference = {A: Histogram(layout, layout.counted([0.5]))}
            baselines.write(transaction, slots.source, FROZEN, reference, (0, 1), BEGAN + place)
        add(store, slots, column([0.5, 3.0]))
    found = counted(store, slots)[A]
    assert (found.layout.edges, found.samples) == ((2.0,), 2)


def test_sources_have_nothing_to_do_with_each_other(store: Store) -> None:
    """Of the same feature, each has its own reference and counts."""
    first, second = made(learn=2), made(learn=2)
    add(store, first, column([1.0, 2.0]))
    add(store, second, column(["a", "b"]))
    assert [one.layout.numeric for slots in (first, second) for one in counted(store, slots).values()] == [True, False]


def test_old_slots_are_forgotten(store: Store) -> None:
    """And only those."""
    slots = made(learn=2)
    add(store, slots, column([1.0, 2.0, 3.0], times=[BEGAN, BEGAN + SLOT, BEGAN + 2 * SLOT]))
    with store.transaction() as transaction:
        slots.prune(transaction, BEGAN + SLOT)
    assert counted(store, slots)[A].samples == 2


@given(numbers | words)
def test_values_that_wait(values: Values) -> None:
    """Are kept exactly."""
    found = read_values(write_values(values))
    if isinstance(values, np.ndarray):
        assert np.array_equal(np.asarray(found), values, equal_nan=True)
    else:
        assert found == values


@pytest.fixture
def two(store_url: str) -> Iterator[tuple[Store, Store]]:
    """Two processes that have one store."""
    first, second = opened(store_url), opened(store_url)
    yield first, second
    first.close()
    second.close()


def test_processes_that_share_a_store(two: tuple[Store, Store]) -> None:
    """Each value is counted, whichever of them is sent it, and whenever the other one writes."""
    source = next(_sources)
    add(two[0], made(learn=10, source=source), column(np.arange(10.0)))

    def send(store: Store) -> None:
        slots = made(learn=10, source=source)
        for _ in range(50):
            add(store, slots, column([1.0, 2.0]))

    threads = [threading.Thread(target=send, args=(store,)) for store in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(two[0], made(source=source))[A].samples == 10 + 2 * 50 * 2
