"""Windows are compared with what they should be, decided once, and shown as long as that is true."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infermeter_exporters.drift import baselines, triggers, verdicts
from infermeter_exporters.drift.decision import USUAL as USUAL_GATES
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.intake import Kept
from infermeter_exporters.drift.layout import Histogram, Layout
from infermeter_exporters.drift.report import verdict_in_words
from infermeter_exporters.drift.samples import Column
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.source import SourceError
from infermeter_exporters.drift.store import Store, opened
from infermeter_exporters.drift.verdicts import Policy
from infermeter_exporters.drift.watch import Timing, Watch

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LAYOUT = Layout((1.0, 2.0, 3.0))
KEY = Key("service", "model", "feature")
USUAL, OTHER = (400, 300, 200, 100), (100, 200, 300, 400)
TIMING = Timing(interval=10, window=60, delay=5, season=600, seasons=2)
POLICY = Policy(Gates(), cooldown=0, told=True)


class Told:
    """A source that has what it was told of each period, and otherwise the usual; it can fail."""

    name = "told"
    learn = 0
    waited = 0.0

    def __init__(self, *given: str) -> None:
        self.baselines: Sequence[str] = given or ("seasonal",)
        self.periods: dict[tuple[float, float], tuple[int, ...] | None] = {}
        self.asked: list[tuple[float, float]] = []
        self.reason = ""
        self.usual: tuple[int, ...] | None = USUAL
        self.kept: dict[Key, float] = {}

    def counted(self, begin: float, end: float) -> dict[Key, Histogram]:
        """What it was told."""
        if self.reason:
            raise SourceError(self.reason, "it was told to fail")
        self.asked.append((begin, end))
        counts = self.periods.get((begin, end), self.usual)
        if counts is None:
            return {}
        array = np.zeros(LAYOUT.size)
        array[:4] = counts
        return {KEY: Histogram(LAYOUT, array)}

    def learning(self) -> dict[Key, float]:
        """What it was told."""
        return self.kept

    def require_fresh(self, end: float) -> None:
        """It is."""

    def feed(self, end: threading.Event) -> None:
        """There is nothing to be fetched."""

    def close(self) -> None:
        """There is nothing to be closed."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one."""
    with closing(opened(str(tmp_path / "store"))) as found:
        yield found


def state(store: Store, baseline: str = "seasonal") -> tuple[bool, tuple[bool, ...], int]:
    """Of the one feature."""
    with store.transaction() as transaction:
        found = verdicts.read(transaction, "told")[KEY, baseline].state
    return found.active, tuple(found.votes), found.episodes


def test_periods(store: Store) -> None:
    """The newest one ends at an interval, when its data have come; the same time of two seasons is its reference."""
    source = Told()
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1234.9)
    assert watch.shown.ended == 1220
    assert source.asked == [
        *[(1140, 1200), (540, 600), (-60, 0)],  # the window that ended last, for the verdict
        *[(1160, 1220), (560, 620), (-40, 20)],  # what is shown
    ]
    (finding,) = watch.shown.findings
    assert (finding.samples, finding.reference) == (1000, 2000)


def test_a_season_that_is_missing(store: Store) -> None:
    """Is left out; the other one is the reference. Without any there is none."""
    source = Told()
    source.periods = {(540, 600): None}
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1205)
    assert [one.reference for one in watch.shown.findings] == [1000]
    source.periods[-60, 0] = None
    watch.evaluate(1205)
    assert [one.status for one in watch.shown.findings] == ["no_baseline"]


def test_two_of_three_windows(store: Store) -> None:
    """Make an episode, which is one trigger; what is shown between windows moves nothing."""
    source = Told("previous")
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1205)
    for end in (1260, 1320):
        source.periods |= {(end - 60, end): OTHER, (end - 120, end - 60): USUAL}
        watch.evaluate(end + 5)
        watch.evaluate(end + 5)
    assert state(store, "previous") == (True, (True,), 1)
    for moment in range(1330, 1380, 10):
        source.periods[moment - 60, moment] = OTHER
        watch.evaluate(moment + 5)
    assert state(store, "previous") == (True, (True,), 1)
    with store.transaction() as transaction:
        assert triggers.counted(transaction) == {("service", "model", "automatic"): 1}
    assert watch.shown.samples["drift_active"] == {("service", "model", "feature", "previous"): 1.0}


def test_a_verdict_holds_through_silence(store: Store) -> None:
    """Of nothing, nothing follows."""
    source = Told("previous")
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1205)
    for end in (1260, 1320):
        source.periods |= {(end - 60, end): OTHER, (end - 120, end - 60): USUAL}
        watch.evaluate(end + 5)
    source.periods |= {(1320, 1380): None, (1260, 1320): USUAL}
    watch.evaluate(1385)
    assert state(store, "previous") == (True, (True,), 1)
    (finding,) = watch.shown.findings
    assert (finding.status, finding.statistics) == ("insufficient", {})
    samples = watch.shown.samples
    assert "drift_psi" not in samples
    assert samples["drift_active"] == {("service", "model", "feature", "previous"): 1.0}
    assert samples["drift_samples"]["service", "model", "feature", "previous", "current"] == 0


def test_named_references(store: Store) -> None:
    """The newest version counts; one that the window is a part of is none; its age is shown."""
    source = Told("golden")
    watch = Watch(source, store, TIMING, POLICY)
    (old, new) = source.counted(0, 60), source.counted(0, 60)
    new[KEY].counts[:4] = OTHER
    with store.transaction() as transaction:
        assert baselines.write(transaction, "told", "golden", old, (500, 600), 600) == 1
        assert baselines.write(transaction, "told", "golden", new, (600, 900), 900) == 2
        assert baselines.write(transaction, "other", "golden", new, (600, 900), 900) == 1
    watch.evaluate(1205)
    (finding,) = watch.shown.findings
    assert finding.statistics["psi"] > 0.5
    assert watch.shown.samples["drift_baseline_age_seconds"] == {("service", "model", "feature", "golden"): 300}
    with store.transaction() as transaction:
        assert baselines.write(transaction, "told", "golden", new, (1150, 1160), 1160) == 3
    watch.evaluate(1205)
    assert [one.status for one in watch.shown.findings] == ["no_baseline"]


def test_the_first_window_may_be_the_reference(store: Store) -> None:
    """If that is asked for, and it is large enough; later ones change nothing of it."""
    source = Told("frozen")
    source.learn = 1000
    source.periods = {(1140, 1200): (1, 2, 3, 4), (1200, 1260): USUAL, (1260, 1320): OTHER, (1320, 1380): OTHER}
    watch = Watch(source, store, TIMING, POLICY)
    found = []
    for moment in (1205, 1265, 1325, 1385):
        watch.evaluate(moment)
        found.append(watch.shown.findings[0].status)
    assert found == ["no_baseline", "no_baseline", "ok", "ok"]
    assert state(store, "frozen") == (True, (True,), 1)
    with store.transaction() as transaction:
        assert [row[:5] for row in baselines.listed(transaction)] == [("told", "frozen", 1, 1200, 1260)]


def test_windows_wait_for_a_source(store: Store) -> None:
    """None is lost while it fails; when it answers again they are decided in their order."""
    source = Told("previous")
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1205)
    source.reason = "unreachable"
    for moment in (1265, 1325):
        with pytest.raises(SourceError):
            watch.evaluate(moment)
    assert watch.shown.ended == 1200
    source.reason = ""
    source.asked.clear()
    source.periods = {(1200, 1260): OTHER}
    watch.evaluate(1385)
    assert source.asked[::2] == [(1200, 1260), (1260, 1320), (1320, 1380)]
    # To drift and back again are two windows that differ from those before them.
    assert state(store, "previous") == (True, (True, False), 1)


def test_two_exporters_of_one_store(store: Store) -> None:
    """Decide each window once, whichever of them comes first."""
    watches = [Watch(Told("previous"), store, TIMING, POLICY) for _ in range(2)]
    for end in range(1200, 1200 + 60 * 8, 60):
        for watch in watches:
            watch.evaluate(end + 5)
    with store.transaction() as transaction:
        alone = verdicts.read(transaction, "told")[KEY, "previous"]
    decided = [watch.status()["drift_windows_total"]["told", "decided"] for watch in watches]
    assert (sum(decided), alone.state.votes) == (8, (False,) * 3)


def test_what_is_too_long_ago_is_skipped(store: Store) -> None:
    """A week of windows is not asked for at once; how many were left out is counted."""
    source = Told("previous")
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1205)
    watch.evaluate(1205 + 60 * 500)
    assert watch.status()["drift_windows_total"] == {("told", "decided"): 201.0, ("told", "skipped"): 300.0}


def test_old_statistics_are_not_fresh(store: Store) -> None:
    """Three evaluations may be missed."""
    watch = Watch(Told(), store, TIMING, POLICY)
    assert not watch.fresh(1205)
    watch.evaluate(1205)
    assert [watch.fresh(moment) for moment in (1205, 1235, 1236)] == [True, True, False]


def test_a_reference_of_other_bins(store: Store) -> None:
    """Is compared over what both have; with nothing in common that is said."""
    source = Told("golden")
    watch = Watch(source, store, TIMING, POLICY)
    for edges, status in (((2.0, 7.0), "ok"), ((7.0,), "layout_mismatch")):
        layout = Layout(edges)
        counts = np.zeros(layout.size)
        counts[: layout.bins] = 500
        with store.transaction() as transaction:
            baselines.write(transaction, "told", "golden", {KEY: Histogram(layout, counts)}, (500, 600), 600)
        watch.evaluate(1205)
        assert [one.status for one in watch.shown.findings] == [status]


def test_features_that_are_gone(store: Store) -> None:
    """Are shown for a week after something was observed of them, with the verdict that they had; then no more."""
    source = Told("golden")
    watch = Watch(source, store, TIMING, POLICY)
    with store.transaction() as transaction:
        baselines.write(transaction, "told", "golden", source.counted(0, 60), (500, 600), 600)
    watch.evaluate(1205)
    source.usual = None
    for later, shown in ((7 * 86_400 - 60, 1), (7 * 86_400 + 60, 0)):
        watch.evaluate(1205 + later)
        assert len(watch.shown.findings) == shown
    source.usual = USUAL
    watch.evaluate(1205 + 8 * 86_400)
    assert [one.status for one in watch.shown.findings] == ["ok"]


def test_features_that_are_learnt(store: Store) -> None:
    """Are shown as what they are: without anything to be compared with, yet not without observations."""
    source = Told("golden", "previous")
    source.usual = None
    source.kept = {KEY: 120.0}
    watch = Watch(source, store, TIMING, POLICY)
    watch.evaluate(1205)
    (finding,) = watch.shown.findings
    assert (finding.status, finding.comparison.baseline) == ("no_baseline", "golden")
    assert "drift_samples" not in watch.shown.samples
    words = verdict_in_words(finding, verdicts.NEW, USUAL_GATES)
    assert words.endswith("Its first 120 values are kept; with more they become its baseline.")


class Late:
    """A feeder whose rows come only when they are asked for; it can fail."""

    def __init__(self, store: Store, slots: Slots) -> None:
        self._store, self._slots = store, slots
        self.reason = ""
        self.moment = 0.0

    def __call__(self, end: threading.Event) -> None:
        """Nothing comes by itself."""

    def refresh(self) -> None:
        """A thousand rows, of the window that just ended."""
        if self.reason:
            raise SourceError(self.reason, "it was told to fail")
        values = np.random.default_rng(1).normal(size=1000)
        with self._store.transaction() as transaction:
            self._slots.add(transaction, [Column(KEY, np.full(1000, self.moment), values)], self.moment)


def test_what_has_to_be_fetched_is_fetched_before_a_window_ends(store: Store) -> None:
    """No window is decided without it; while that fails, windows wait."""
    slots = Slots("told", Rules(slot=10, learn=1000))
    late = Late(store, slots)
    watch = Watch(Kept(store, slots, ("previous",), late), store, TIMING, POLICY)
    late.moment = 1199.0
    watch.evaluate(1205)
    late.moment, late.reason = 1259.0, "unreachable"
    with pytest.raises(SourceError):
        watch.evaluate(1265)
    late.reason = ""
    watch.evaluate(1265)
    (finding,) = watch.shown.findings
    assert (finding.samples, finding.reference, watch.shown.ended) == (1000, 1000, 1260)
    assert watch.status()["drift_windows_total"]["told", "decided"] == 2
