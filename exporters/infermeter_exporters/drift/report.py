"""What a visitor sees: for each feature both histograms, the statistics and the verdict in words; the same as JSON."""

import html
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from infermeter_exporters.drift.counts import Floats
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.embeddings import Space
from infermeter_exporters.drift.evaluation import Finding
from infermeter_exporters.drift.layout import Histogram, Layout, aligned
from infermeter_exporters.drift.verdicts import Verdict

MOST = 60
"""Features on a page; the worst come first."""
_WIDTH, _HEIGHT, _FOOT = 360.0, 110.0, 16.0
_SHOWN = (
    ("psi", "PSI"),
    ("psi_noise_floor", "noise floor"),
    ("kl_divergence", "KL"),
    ("js_divergence", "JS"),
    ("hellinger", "Hellinger"),
    ("tvd", "TVD"),
    ("ks_statistic", "KS"),
    ("wasserstein", "W1"),
    ("chi2_pvalue", "p (chi-square)"),
    ("mmd", "MMD"),
    ("dimensions_moved_ratio", "part of dimensions that moved"),
    ("largest_move", "largest move"),
)

Row = tuple[Finding, Verdict]
_EMPTY = Histogram(Layout(names=()), np.zeros(6))


def verdict_in_words(finding: Finding, verdict: Verdict, gates: Gates) -> str:
    """What is the matter with a feature, as a sentence or two."""
    bins = max(finding.bins, 1)
    least = max(gates.least, gates.least_per_bin * bins)
    held = " It drifted before, and that holds until a window says otherwise." if verdict.state.active else ""
    if finding.status == "no_baseline":
        learnt = finding.comparison.learnt
        kept = f" Its first {learnt:.0f} values are kept; with more they become its baseline." if learnt else ""
        return "There is nothing to compare it with yet." + kept + held
    if finding.status == "layout_mismatch":
        return "Its bins have nothing in common with those of the baseline: make a new one." + held
    if finding.status == "insufficient":
        fewer = "window" if finding.samples <= finding.reference else "baseline"
        number = min(finding.samples, finding.reference)
        return f"The {fewer} has {number:.0f} observations, at least {least} are needed to say anything." + held
    if finding.status == "constant":
        return "It has one value, then and now." + held
    index, chance = finding.effect, finding.adjusted
    size = f"the index is {index:.3g}, the limit {gates.effect:g}"
    if "mmd" in finding.statistics:
        size = f"the discrepancy is {finding.statistics['mmd']:.3g}, the limit {gates.mmd:g}"
    luck = (
        f"chance alone does that with a probability of {chance:.1g}" if chance > 0 else "chance alone does not do that"
    )
    if verdict.state.active:
        if index < gates.effect * gates.hysteresis or chance >= gates.alpha:
            return f"It drifted, and this window does not: {size}, and {luck}."
        return f"It drifts: {size}, and {luck}."
    if index >= gates.effect and chance < gates.alpha:
        return f"This window drifts ({size}, and {luck}); {gates.agreeing} of {gates.windows} have to."
    if index >= gates.effect:
        return f"No drift: {size}, but {luck}."
    if chance < gates.alpha:
        return f"No drift that matters: it is certain, but small; {size}."
    return f"No drift: {size}."


def as_json(rows: Iterable[Row], gates: Gates) -> list[dict[str, Any]]:
    """What the page shows, for programs."""
    found = []
    for finding, verdict in rows:
        comparison = finding.comparison
        found.append(
            {
                **comparison.key._asdict(),
                "baseline": comparison.baseline,
                "active": verdict.state.active,
                "episodes": verdict.state.episodes,
                "evidence": verdict.evidence,
                "status": finding.status,
                "verdict": verdict_in_words(finding, verdict, gates),
                "samples": finding.samples,
                "reference_samples": finding.reference,
                "pvalue": None if math.isnan(finding.adjusted) else finding.adjusted,
                "statistics": finding.statistics,
                "baseline_age_seconds": None if math.isnan(comparison.age) else comparison.age,
                "histograms": {
                    name: _plain(one)
                    for name, one in (("reference", comparison.reference), ("current", comparison.current))
                    if one is not None
                },
            }
        )
    return found


def page(title: str, lines: Iterable[tuple[str, str]], rows: Sequence[Row], gates: Gates) -> str:
    """The page, as HTML.

    Args:
        title: of it.
        lines: headings and sentences about the exporter.
        rows: all features.
        gates: by which is decided.
    """
    worst = sorted(rows, key=_badness)[:MOST]
    parts = [f"<tr><th>{html.escape(head)}</th><td>{html.escape(text)}</td></tr>\n" for head, text in lines]
    shown = []
    order = sorted(worst, key=lambda row: (row[0].comparison.key[:2], _badness(row)))
    for (service, model), group in groupby(order, key=lambda row: row[0].comparison.key[:2]):
        shown.append(f"<h2>{html.escape(model or 'no model')} in {html.escape(service)}</h2>\n")
        shown.extend(_section(finding, verdict, gates) for finding, verdict in group)
    if len(rows) > len(worst):
        shown.append(
            f"<p>{len(rows) - len(worst)} more are not shown; <a href='/v1/drift'>all of them as JSON</a>.</p>"
        )
    return _PAGE.format(title=html.escape(title), rows="".join(parts), features="".join(shown))


def _badness(row: Row) -> tuple[bool, float]:
    finding, verdict = row
    return not verdict.state.active, -finding.effect if finding.effect >= 0 else 1.0


def _section(finding: Finding, verdict: Verdict, gates: Gates) -> str:
    comparison = finding.comparison
    words = [f"{label} {finding.statistics[name]:.3g}" for name, label in _SHOWN if name in finding.statistics]
    words.append(f"{finding.samples:.0f} now, {finding.reference:.0f} before")
    if not math.isnan(finding.adjusted):
        words.insert(0, f"p {finding.adjusted:.2g}")
    return (
        f'<section class="{"drifts" if verdict.state.active else "calm"}">'
        f"<h3>{html.escape(comparison.key.feature)} <small>against {html.escape(comparison.baseline)}</small></h3>"
        f"<p>{html.escape(verdict_in_words(finding, verdict, gates))}</p>"
        f"{chart(comparison.reference, comparison.current)}"
        f"<p class='figures'>{html.escape(' · '.join(words))}</p></section>\n"
    )


def chart(reference: Histogram | None, current: Histogram | None) -> str:
    """Both histograms over each other, as SVG; where one of them is missing, the other one alone."""
    if reference is not None and current is not None:
        both = aligned(reference, current)
        if both is None:
            return ""
        reference, current = both
    if isinstance((current or reference or _EMPTY).layout, Space):
        return ""
    layout = (current or reference or _EMPTY).layout
    places, names = _places(layout)
    heights = [
        _heights(one.counts[: layout.bins], places) if one is not None and one.samples else None
        for one in (reference, current)
    ]
    highest = max((float(one.max()) for one in heights if one is not None), default=0.0)
    if not highest:
        return ""
    outlines = [
        f'<path class="{kind}" d="{_outline(one / highest, places)}"/>'
        for kind, one in zip(("reference", "current"), heights, strict=True)
        if one is not None
    ]
    marks = "".join(
        f'<text x="{place * _WIDTH:.1f}" y="{_HEIGHT + _FOOT - 3:.0f}" text-anchor="{anchor}">'
        f"{html.escape(name)}</text>"
        for place, name, anchor in names
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT + _FOOT:.0f}" role="img" aria-label="then and now">'
        f"{''.join(outlines)}{marks}</svg>"
    )


def _places(layout: Layout) -> tuple[Floats, list[tuple[float, str, str]]]:
    """Where bins begin and end, from 0 to 1, and what is written below them."""
    if layout.numeric and layout.edges and layout.lowest < layout.edges[0] <= layout.edges[-1] < layout.highest:
        ends = np.asarray((layout.lowest, *layout.edges, layout.highest))
        if math.isfinite(layout.highest - layout.lowest):
            places = (ends - ends[0]) / (ends[-1] - ends[0])
            return places, [(0.0, f"{ends[0]:.3g}", "start"), (1.0, f"{ends[-1]:.3g}", "end")]
    # Buckets get wider by and by; of equal width, each can be seen.
    places = np.linspace(0.0, 1.0, layout.bins + 1)
    if layout.names is not None:
        words = [*layout.names, "others"]
        step = max(1, len(words) // 6)
        return places, [
            ((place + 0.5) / len(words), words[place][:12], "middle") for place in range(0, len(words), step)
        ]
    step = max(1, len(layout.edges) // 8)
    return places, [
        (float(places[place + 1]), f"{layout.edges[place]:.4g}", "middle")
        for place in range(0, len(layout.edges), step)
    ]


def _heights(counts: Floats, places: Floats) -> Floats:
    widths = np.diff(places)
    found: Floats = counts / counts.sum() / np.maximum(widths, 1e-9)
    # A narrow bin that holds one value repeated would hide all others.
    return np.minimum(found, 8.0 * max(float(np.median(found)), float(found.mean()), 1e-12))


def _outline(heights: Floats, places: Floats) -> str:
    parts = [f"M0 {_HEIGHT:.0f}"]
    for left, right, height in zip(places[:-1] * _WIDTH, places[1:] * _WIDTH, heights, strict=True):
        y = _HEIGHT * (1 - min(float(height), 1.0) * 0.95)
        parts.append(f"L{left:.1f} {y:.1f}L{right:.1f} {y:.1f}")
    return "".join([*parts, f"L{_WIDTH:.0f} {_HEIGHT:.0f}Z"])


def _plain(one: Histogram) -> dict[str, Any]:
    bins: dict[str, Any] = (
        {"edges": list(one.layout.edges)} if one.layout.names is None else {"names": list(one.layout.names)}
    )
    outside = ("nan", "positive_infinite", "negative_infinite", "below", "above")
    counts = one.counts.tolist()
    more = dict(zip(outside, counts[one.layout.bins :], strict=False))
    return {**bins, "counts": counts[: one.layout.bins], "outside": more}


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --then: #8a8f98; --now: #0b7fab; --bad: #c4401f; --line: #8884 }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem }}
th {{ text-align: left; vertical-align: top; padding-right: 1.5rem; white-space: nowrap }}
section {{ display: inline-block; vertical-align: top; width: min(24rem, 100%); margin: 0 1rem 1rem 0;
  border: 1px solid var(--line); border-top: 4px solid var(--line); padding: .5rem 1rem; box-sizing: border-box }}
section.drifts {{ border-top-color: var(--bad) }}
h3 {{ margin: 0; overflow-wrap: anywhere }}
h3 small {{ font-weight: normal }}
svg {{ width: 100% }}
path.reference {{ fill: var(--then); fill-opacity: .45 }}
path.current {{ fill: none; stroke: var(--now); stroke-width: 2 }}
section.drifts path.current {{ stroke: var(--bad) }}
text {{ font-size: 10px; fill: currentColor }}
.figures {{ font-size: .8rem; margin: .25rem 0 }}
.key b {{ display: inline-block; width: 1.5em; height: .8em; margin: 0 .3em 0 1em }}
</style>
<h1>{title}</h1>
<p><a href="/metrics">Metrics</a> · <a href="/v1/drift">JSON</a> · <a href="/-/healthy">healthy</a> ·
<a href="/-/ready">ready</a></p>
<table>
{rows}</table>
<p class="key"><b style="background: var(--then)"></b>the baseline<b style="background: var(--now)"></b>the window</p>
{features}
</html>
"""
