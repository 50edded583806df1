"""Each source is asked again and again, and what it says becomes statistics, verdicts and what is shown."""

import logging
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from infermeter_exporters.drift import baselines, verdicts
from infermeter_exporters.drift.decision import STATUSES
from infermeter_exporters.drift.evaluation import Comparison, Finding, Key, evaluated
from infermeter_exporters.drift.layout import Histogram, added
from infermeter_exporters.drift.source import REASONS, Source, SourceError, parts
from infermeter_exporters.drift.store import Store, StoreError
from infermeter_exporters.drift.verdicts import NEW, Policy, Verdicts
from infermeter_exporters.families import Samples, Series

log = logging.getLogger("infermeter.drift")

SEASONAL, PREVIOUS = "seasonal", "previous"
BUILT_IN = (SEASONAL, PREVIOUS)
"""Baselines that need not be made; any other name is one of a reference in the store."""
_MOST_BEHIND = 200
"""Windows that are decided after the fact; older ones are skipped."""
_FRESH = 3
"""Evaluations that may be missed before statistics are not shown any more."""
_GONE = 7 * 86_400.0
"""Seconds after which a feature of which nothing is observed any more is not shown."""
_PARTS = ("waiting", "reading", "statistics", "store")


class Timing(NamedTuple):
    """When what is evaluated, in seconds.

    Attributes:
        interval: between two evaluations.
        window: what is compared; a whole number of intervals.
        delay: for which the end of a window is waited for data of it.
        season: after which the same is expected again.
        seasons: of the past that are the seasonal reference.
    """

    interval: float = 300.0
    window: float = 3600.0
    delay: float = 30.0
    season: float = 7 * 86_400.0
    seasons: int = 4

    def newest(self, now: float) -> float:
        """The end of the newest period whose data have come by now."""
        return math.floor((now - self.delay) / self.interval) * self.interval

    def longest(self, baselines: Sequence[str]) -> float:
        """How far back of the end of a window counts are needed for baselines."""
        seasons = self.season * self.seasons if SEASONAL in baselines else 0.0
        return max(seasons, self.window if PREVIOUS in baselines else 0.0) + self.window

    def boundary(self, moment: float) -> float:
        """The end of the newest window that verdicts are about: windows of those follow each other."""
        return math.floor(moment / self.window) * self.window


class Shown(NamedTuple):
    """What is known of a source.

    Attributes:
        ended: of the newest period that was evaluated, in seconds since 1970; 0 for none.
        findings: in it.
        verdicts: by feature and baseline.
        samples: the same as metrics.
    """

    ended: float
    findings: Sequence[Finding]
    verdicts: Verdicts
    samples: Samples


class Watch:
    """Watches one source, in a thread of its own.

    Args:
        source: that is asked.
        store: of baselines and verdicts.
        timing: when.
        policy: by what is decided.
    """

    def __init__(self, source: Source, store: Store, timing: Timing, policy: Policy) -> None:
        self.source = source
        self.shown = Shown(0.0, (), {}, {})
        self.error: str = ""
        self._store = store
        self._timing = timing
        self._policy = policy
        self._errors: Counter[str] = Counter()
        self._windows: Counter[str] = Counter()
        self._took = dict.fromkeys(_PARTS, 0.0)
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"{source.name} watch", daemon=True),
            threading.Thread(target=self._feed, name=f"{source.name} feed", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """End; a source that hangs is left alone."""
        self._end.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(patience)
        if not any(thread.is_alive() for thread in self._threads):
            self.source.close()

    def fresh(self, now: float) -> bool:
        """Whether statistics are new enough to be shown."""
        took = self._took["waiting"] + self._took["reading"]
        return now - self.shown.ended <= _FRESH * self._timing.interval + self._timing.delay + took

    def evaluate(self, now: float) -> None:
        """Decide windows that ended and were not decided, and evaluate the newest period.

        Raises:
            SourceError: the source could not be asked; windows wait.
            StoreError: the store does not answer; windows wait.
        """
        took = dict.fromkeys(_PARTS, 0.0)
        end = self._timing.newest(now)
        self.source.require_fresh(end)
        findings: list[Finding] | None = None
        for ended in self._due(end):
            findings = self._found(ended, took, learn=True)
            began = time.monotonic()
            verdicts.decide(self._store, self.source.name, ended, findings, self._policy)
            took["store"] += time.monotonic() - began
            self._windows["decided"] += 1
            if ended != end:
                findings = None
            if self._end.is_set():
                return
        if findings is None:
            findings = self._found(end, took)
        began = time.monotonic()
        with self._store.transaction() as transaction:
            known = verdicts.read(transaction, self.source.name)
        took["store"] += time.monotonic() - began
        self.shown = Shown(end, findings, known, samples_of(findings, known))
        self._took = took

    def status(self) -> Samples:
        """Metrics about the asking itself."""
        name = self.source.name
        return {
            # Before it was asked for the first time, nobody knows.
            "drift_source_up": {(name,): float(not self.error)} if self.error or self.shown.ended else {},
            "drift_source_errors_total": {(name, reason): float(self._errors[reason]) for reason in REASONS},
            "drift_last_success_timestamp_seconds": {(name,): self.shown.ended} if self.shown.ended else {},
            "drift_evaluation_duration_seconds": {(name, part): seconds for part, seconds in self._took.items()},
            "drift_windows_total": {
                (name, outcome): float(self._windows[outcome]) for outcome in ("decided", "skipped")
            },
        }

    def _run(self) -> None:
        while True:
            try:
                self.evaluate(time.time())
                self._said("")
            except SourceError as error:
                self._errors[error.reason] += 1
                self._said(str(error))
            except StoreError as error:
                self._errors["store"] += 1
                self._said(f"{self.source.name}: {error}")
            except Exception as error:  # whatever a source ran into, the next try may do
                self._errors["invalid"] += 1
                self._said(f"{self.source.name}: {type(error).__name__}: {error}", error)
            now = time.time()
            due = self._timing.newest(now) + self._timing.interval + self._timing.delay
            if self._end.wait(max(due - now, 0.01) if not self.error else min(self._timing.interval, 10.0)):
                return

    def _said(self, text: str, error: Exception | None = None) -> None:
        if text and text != self.error:
            log.warning("%s", text, exc_info=error)
        elif self.error and not text:
            log.info("%s can be asked again", self.source.name)
        self.error = text

    def _feed(self) -> None:
        while not self._end.is_set():
            try:
                self.source.feed(self._end)
            except Exception:
                log.exception("%s could not be read", self.source.name)
                self._errors["invalid"] += 1
                self._end.wait(10)
            else:
                return

    def _due(self, end: float) -> Iterable[float]:
        """The ends of windows that wait for a verdict, the oldest first."""
        window = self._timing.window
        newest = self._timing.boundary(end)
        with self._store.transaction() as transaction:
            decided = verdicts.progress(transaction, self.source.name)
        if decided is None:
            return [newest]
        behind = round((newest - self._timing.boundary(decided)) / window)
        if behind > _MOST_BEHIND:
            self._windows["skipped"] += behind - _MOST_BEHIND
            behind = _MOST_BEHIND
        return [newest - place * window for place in reversed(range(behind))]

    def _found(self, end: float, took: dict[str, float], *, learn: bool = False) -> list[Finding]:
        began, before = time.monotonic(), self.source.waited
        comparisons = list(self._comparisons(end, learn=learn))
        then, waited = time.monotonic(), self.source.waited - before
        found = evaluated(comparisons, self._policy.gates)
        took["waiting"] += waited
        took["reading"] += then - began - waited
        took["statistics"] += time.monotonic() - then
        return found

    def _comparisons(self, end: float, *, learn: bool) -> Iterable[Comparison]:
        begin = end - self._timing.window
        current, learning = self.source.counted(begin, end), self.source.learning()
        with self._store.transaction() as transaction:
            known = verdicts.read(transaction, self.source.name)
        varies: dict[Key, float] = {}
        # What a named reference knows of how a feature varies, the window before does not.
        for baseline in sorted(self.source.baselines, key=lambda name: name == PREVIOUS):
            if baseline in BUILT_IN:
                references = self._past(baseline, begin, end, varies)
                ages: Mapping[Key, float] = {}
            else:
                with self._store.transaction() as transaction:
                    named = baselines.read(transaction, self.source.name, baseline)
                if learn and self.source.learn:
                    self._learn(baseline, set(named), current, (begin, end))
                # What is compared with itself, or a part of it, does not drift.
                references = {
                    key: one.histogram
                    for key, one in named.items()
                    if one.ended <= begin or one.began >= end or one.began == one.ended  # that of a file has no length
                }
                ages = {key: end - named[key].ended for key in named}
                varies |= {key: max(one.dispersion, varies.get(key, 1.0)) for key, one in named.items()}
            for key in sorted({*current, *references}):
                age = ages.get(key, math.nan)
                since = known.get((key, baseline), NEW).seen or end - ages.get(key, 0.0)
                if key in current or end - since <= _GONE:
                    both = references.get(key), current.get(key)
                    yield Comparison(key, baseline, *both, age, dispersion=varies.get(key, 1.0))
            if baseline not in BUILT_IN:
                for key in sorted(learning.keys() - current.keys() - references.keys()):
                    yield Comparison(key, baseline, None, None, learnt=learning[key])

    def _learn(self, name: str, known: set[Key], current: Mapping[Key, Histogram], period: tuple[float, float]) -> None:
        """Keep windows of features that have no reference of that name as its first version, if they are large."""
        found = {key: one for key, one in current.items() if key not in known and one.samples >= self.source.learn}
        if found:
            varies = baselines.dispersions(found, parts(self.source, *period))
            with self._store.transaction() as transaction:
                baselines.write(transaction, self.source.name, name, found, period, period[1], varies)
            log.info("%s learnt %s of %d features", self.source.name, name, len(found))

    def _past(self, baseline: str, begin: float, end: float, varies: dict[Key, float]) -> dict[Key, Histogram]:
        if baseline == PREVIOUS:
            return dict(self.source.counted(2 * begin - end, begin))
        seasons = [
            self.source.counted(begin - number * self._timing.season, end - number * self._timing.season)
            for number in range(1, self._timing.seasons + 1)
        ]
        several: dict[Key, list[Histogram]] = defaultdict(list)
        for season in seasons:
            for key, one in season.items():
                several[key].append(one)
        # The newest season says which bins there are; one that has none of them is left out.
        summed = {key: added(histograms) or histograms[0] for key, histograms in several.items()}
        found = {key: one for key, one in summed.items() if one.samples}
        varies |= baselines.dispersions(found, seasons)
        return found


def samples_of(findings: Iterable[Finding], known: Verdicts) -> Samples:
    """Findings and verdicts as metrics.

    Args:
        findings: of the newest period.
        known: verdicts.
    """
    found: dict[str, Series] = defaultdict(dict)
    for finding in findings:
        comparison = finding.comparison
        labels = (*comparison.key, comparison.baseline)
        verdict = known.get((comparison.key, comparison.baseline), NEW)
        found["drift_active"][labels] = float(verdict.state.active)
        found["drift_detected_total"][labels] = float(verdict.state.episodes)
        found["drift_evidence"][labels] = verdict.evidence
        for state in STATUSES:
            found["drift_status"][*labels, state] = float(state == finding.status)
        for name, value in finding.statistics.items():
            found[f"drift_{name}"][labels] = value
        if not math.isnan(finding.adjusted):
            found["drift_pvalue"][labels] = finding.adjusted
        if not comparison.learnt:
            found["drift_samples"][*labels, "current"] = finding.samples
        if finding.reference:
            found["drift_samples"][*labels, "reference"] = finding.reference
        if finding.status in {"ok", "constant"}:
            found["drift_bins"][labels] = float(finding.bins)
        if not math.isnan(comparison.age):
            found["drift_baseline_age_seconds"][labels] = comparison.age
    return dict(found)
