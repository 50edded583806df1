"""The verdict on every feature, and the evidence: moved on by each window exactly once, whatever dies in between."""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from infermeter_exporters.drift import triggers
from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.decision import Gates, State, decided
from infermeter_exporters.drift.evaluation import Finding, Key
from infermeter_exporters.drift.evidence import STRENGTHS, log_mean
from infermeter_exporters.drift.store import Store, Transaction


class Verdict(NamedTuple):
    """What is remembered of a feature and a baseline.

    Attributes:
        state: by windows.
        sums: evidence, one for each strength.
        seen: the end of the last window in which something was observed, in seconds since 1970; 0 for never.
    """

    state: State
    sums: Sequence[float]
    seen: float = 0.0

    @property
    def evidence(self) -> float:
        """The natural logarithm of what has been gathered against "no drift", 0 or more."""
        return float(log_mean(np.asarray(self.sums)))


NEW = Verdict(State(), (0.0,) * len(STRENGTHS))
Verdicts = dict[tuple[Key, str], Verdict]


class Policy(NamedTuple):
    """By what is decided.

    Attributes:
        gates: of a window.
        cooldown: seconds between two automatic triggers of a model.
        told: whether a webhook is told of triggers.
    """

    gates: Gates
    cooldown: float
    told: bool


def read(transaction: Transaction, source: str) -> Verdicts:
    """All verdicts on features of a source, by feature and baseline."""
    rows = transaction(
        "SELECT service, model, feature, baseline, active, votes, episodes, sums, seen FROM states WHERE source = ?",
        source,
    )
    return {
        (Key(service, model, feature), baseline): Verdict(
            State(bool(active), tuple(json.loads(votes)), episodes), tuple(json.loads(sums)), seen
        )
        for service, model, feature, baseline, active, votes, episodes, sums, seen in rows
    }


def progress(transaction: Transaction, source: str) -> float | None:
    """The end of the last window that was decided; None if none ever was."""
    rows = transaction("SELECT ended FROM progress WHERE source = ?", source)
    return float(rows[0][0]) if rows else None


def decide(store: Store, source: str, ended: float, findings: Iterable[Finding], policy: Policy) -> None:
    """Move verdicts on by a window; a window that was decided before, here or by another process, changes nothing.

    Args:
        store: of the verdicts.
        source: of the windows.
        ended: when they did, in seconds since 1970.
        findings: on all features in it.
        policy: by what is decided.

    Raises:
        StoreError: nothing has changed.
    """
    with store.transaction() as transaction:
        moved = transaction(
            "INSERT INTO progress VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET ended = excluded.ended"
            " WHERE progress.ended < excluded.ended RETURNING ended",
            source,
            ended,
        )
        if not moved:
            return
        before = read(transaction, source)
        rows, causes = [], []
        for finding in findings:
            key, baseline = finding.comparison.key, finding.comparison.baseline
            verdict = before.get((key, baseline), NEW)
            after = moved_on(verdict, finding, policy.gates, ended)
            if after == verdict:
                continue
            rows.append((source, *key, baseline, *_row(after)))
            if after.state.episodes > verdict.state.episodes:
                statistics = finding.statistics | {"samples": finding.samples}
                causes.append(triggers.Cause(*key, baseline, after.state.episodes, statistics))
        transaction.many(
            "INSERT INTO states VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source, service, model, feature, baseline) DO UPDATE SET active = excluded.active,"
            " votes = excluded.votes, episodes = excluded.episodes, sums = excluded.sums, seen = excluded.seen",
            rows,
        )
        triggers.begin_automatic(transaction, causes, ended, policy.cooldown, told=policy.told)


def moved_on(verdict: Verdict, finding: Finding, gates: Gates, ended: float) -> Verdict:
    """A verdict after a window that ended then; one that says too little changes nothing of it."""
    seen = ended if finding.samples else verdict.seen
    if finding.status not in {"ok", "constant"}:
        return verdict._replace(seen=seen)
    state = decided(verdict.state, gates, finding.effect, finding.adjusted)
    return Verdict(state, _gathered(verdict.sums, finding.evalues), seen)


def _gathered(sums: Sequence[float], evalues: Floats | None) -> Sequence[float]:
    if evalues is None:
        return sums
    return tuple(np.maximum(np.asarray(sums) + evalues, 0.0).tolist())


def _row(verdict: Verdict) -> tuple[int, str, int, str, float]:
    state = verdict.state
    return (
        int(state.active),
        json.dumps(list(state.votes)),
        state.episodes,
        json.dumps(list(verdict.sums)),
        verdict.seen,
    )
