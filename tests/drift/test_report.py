"""The page says in words and pictures what the figures say, whatever features are called."""

from __future__ import annotations

from math import inf, nan
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.drift import report
from infermeter_exporters.drift.decision import Gates, State
from infermeter_exporters.drift.evaluation import Comparison, Finding, Key, evaluated
from infermeter_exporters.drift.layout import Histogram, Layout, from_cumulative, learnt
from infermeter_exporters.drift.verdicts import NEW, Verdict

GATES = Gates()
CHANCE = np.random.default_rng(4)
REFERENCE = CHANCE.normal(0, 1, 4000)
DRIFTS = Verdict(State(active=True, votes=(True,), episodes=1), NEW.sums)


def finding(current: object, reference: object = REFERENCE, feature: str = "f") -> Finding:
    """On values."""
    layout = learnt(reference)
    before, now = (Histogram(layout, layout.counted(values)) for values in (reference, current))
    (found,) = evaluated([Comparison(Key("service", "model", feature), "frozen", before, now)], GATES)
    return found


SAME, SHIFTED = finding(CHANCE.normal(0, 1, 2000)), finding(CHANCE.normal(0.6, 1, 2000))
SLIGHT, FEW = finding(CHANCE.normal(0.15, 1, 20_000)), finding(CHANCE.normal(0, 1, 50))


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (SAME, NEW, "No drift: the index is 0.0"),
        (SHIFTED, NEW, "This window drifts (the index is 0."),
        (SHIFTED, DRIFTS, "It drifts: the index is 0."),
        (SAME, DRIFTS, "It drifted, and this window does not: "),
        (SLIGHT, NEW, "No drift that matters: it is certain, but small; "),
        (FEW, NEW, "The window has 50 observations, at least 200 are needed to say anything."),
        (FEW, DRIFTS, "The window has 50 observations, at least 200 are needed to say anything. It drifted before"),
        (finding(np.ones(500), np.ones(500)), NEW, "It has one value, then and now."),
        (SAME._replace(status="no_baseline"), NEW, "There is nothing to compare it with yet."),
        (SAME._replace(status="layout_mismatch"), NEW, "Its bins have nothing in common with those of the baseline"),
        (SHIFTED._replace(adjusted=0.2), NEW, "No drift: the index is 0."),
    ],
)
def test_verdicts_in_words(found: Finding, verdict: Verdict, words: str) -> None:
    """Each state has its sentence."""
    assert report.verdict_in_words(found, verdict, GATES).startswith(words)


def test_names_are_no_markup() -> None:
    """Whoever sends samples names features."""
    found = finding(CHANCE.normal(0, 1, 2000), feature='<script>alert("x")</script>')
    page = report.page("title", [("<b>", "</b>")], [(found, NEW)], GATES)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<td>&lt;/b&gt;" in page


def test_the_worst_come_first() -> None:
    """Of many features as many as a page can show, those that drift before all others."""
    rows: list[report.Row] = [(SAME, NEW)] * (report.MOST + 5)
    rows.append((finding(CHANCE.normal(0.6, 1, 2000), feature="drifting"), DRIFTS))
    page = report.page("title", [], rows, GATES)
    assert page.count("<section") == report.MOST
    assert page.index("drifting") < page.index("<h3>f ")
    assert "6 more are not shown" in page


def test_as_json() -> None:
    """It can be read by any reader of JSON, unknown is null."""
    (shown,) = report.as_json([(FEW, DRIFTS)], GATES)
    assert (shown["service"], shown["active"], shown["status"], shown["pvalue"]) == (
        "service",
        True,
        "insufficient",
        None,
    )
    assert sum(shown["histograms"]["current"]["counts"]) == 50
    assert len(shown["histograms"]["current"]["counts"]) == len(shown["histograms"]["current"]["edges"]) + 1
    assert shown["baseline_age_seconds"] is None


HISTOGRAMS = st.one_of(
    st.just(None),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30).map(
        lambda values: Histogram(Layout((-1.0, 0.0, 1.0)), Layout((-1.0, 0.0, 1.0)).counted(np.array(values)))
    ),
    st.lists(st.integers(0, 100), min_size=3, max_size=3).map(
        lambda counts: from_cumulative([0.5, 0.9, inf], np.cumsum(counts))
    ),
    st.lists(st.sampled_from(["<a>", "b&", "c"]), min_size=1).map(
        lambda words: Histogram(learnt(words), learnt(words).counted(words))
    ),
    st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=30).map(
        lambda values: Histogram(learnt(np.array(values)), learnt(np.array(values)).counted(np.array(values)))
    ),
)


@given(HISTOGRAMS, HISTOGRAMS)
def test_charts_are_images(reference: Histogram | None, current: Histogram | None) -> None:
    """Or nothing; never with a coordinate that is none."""
    found = report.chart(reference, current)
    if found:
        assert {one.tag for one in ET.fromstring(found)} <= {"path", "text"}  # noqa: S314  (it is ours)
        assert "nan" not in found.replace('aria-label="then and now"', "")
        assert "inf" not in found


def test_unknown_is_not_shown() -> None:
    """A p-value that is none is no figure."""
    page = report.page("title", [], [(FEW._replace(adjusted=nan), NEW)], GATES)
    assert "nan" not in page
