"""How often a drift alert is false, and how soon it is right, beside Evidently and a bare limit on the index.

A healthy window comes from the distribution of its reference: 10,000 of them are tried with each size of reference (n)
and of window (m), over 10 and over 30 quantile bins of normal values, and over our buckets of confidences, which are
beta(8, 2). There are 500 references with 20 windows each, one after another, since a reference that chance made odd is
odd for all its windows. A drifted window comes from N(0.3, 1.1) where the reference is N(0, 1). Their index (PSI) is
0.100 if bins are infinitely fine, and 0.090 between deciles.

A vote is what the exporter makes of one window: enough observations, an index of at least 0.1, and a p-value below
0.001, the last of three: the others are those of one resolution. The vote of any window has the same chance as that of
the first. An alert is what two votes of three make, its rate the part of windows after which it is active. In the last
column are the windows until then, of half of all references and of 95 % of them.

`PSI >` is the same index without regard to how many observations there are. Evidently judges with its own index, bins,
and default limit; its rate is of fewer windows: the first of each of 200 references, of which it sees the very values
that ours counts. Where a window is too small for a vote, these columns say what comes of a tool without that gate.

    python -m benchmarks.drift_calibration [--rounds REFERENCES] [--json FILE] [--check]
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from math import erf, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.promises import Promise, conclude, parser
from infermeter.buckets import CONFIDENCE
from infermeter_exporters.drift.bins import Bins, quantile_bins
from infermeter_exporters.drift.chi_square import drift_pvalue, pooled_chi_square, psi_test
from infermeter_exporters.drift.decision import Gates, State, decided
from infermeter_exporters.drift.layout import QUANTILES
from infermeter_exporters.drift.psi import psi

Floats = NDArray[np.float64]

EFFECTS = (Gates().effect,)
SIZES = [(size, size) for size in (50, 100, 200, 500, 1000, 10_000)]
SIZES += [(100_000, window) for window in (50, 100, 200, 500, 1000, 10_000)]
WINDOWS = 20
"""Against one reference."""
PEERS = 200
"""References whose first window Evidently sees too."""
PROMISED_ALERTS = 0.001
# Of a drift that is as large as the limit about every other window is below it; more bins find more of it, and take
# from small windows what they could have shown.
PROMISED_VOTES = {(QUANTILES, Gates().effect): 0.8}
DRIFT_BINS = (10, 20, QUANTILES)
DRIFT_SIZES = [(reference, 1000) for reference in (1000, 10_000, 100_000)]
MISSING = "Evidently is not installed, what it would show is left out: python -m pip install --group peers"
# It would tell its makers that it runs.
os.environ.setdefault("DO_NOT_TRACK", "1")


class Source(NamedTuple):
    """Where values come from."""

    draw: Callable[[np.random.Generator, int], Floats]
    below: Callable[[float], float]
    """How probable a value of at most that is."""


def normal(mean: float, deviation: float) -> Source:
    """A normal distribution."""
    return Source(
        lambda chance, size: chance.normal(mean, deviation, size),
        lambda edge: (1 + erf((edge - mean) / deviation / sqrt(2))) / 2,
    )


HEALTHY, DRIFTED = normal(0, 1), normal(0.3, 1.1)
CONFIDENCES = Source(lambda chance, size: chance.beta(8, 2, size), lambda edge: 9 * edge**8 - 8 * edge**9)


class Layout(NamedTuple):
    """Bins, and what falls into them."""

    name: str
    source: Source
    bins: Callable[[Floats], Bins]


def quantiles(number: int) -> Layout:
    """So many bins of each reference."""
    return Layout(f"{number} quantiles", HEALTHY, lambda reference: quantile_bins(reference, number))


LAYOUTS = [quantiles(10), quantiles(30), Layout("`le`", CONFIDENCES, lambda _: Bins(np.array(CONFIDENCE), 0.0, 1.0))]


@cache
def evidently() -> Callable[[Floats, Floats], bool] | None:
    """Whether Evidently finds drift; None where it is not installed."""
    try:
        import pandas as pd  # noqa: PLC0415
        from evidently.legacy.calculations.stattests.psi import psi_stat_test  # noqa: PLC0415
        from evidently.legacy.core import ColumnType  # noqa: PLC0415
    except ImportError:
        return None

    def drifted(reference: Floats, current: Floats) -> bool:
        found = psi_stat_test(pd.Series(reference), pd.Series(current), ColumnType.Numerical, threshold=None)
        return bool(found.drifted)

    return drifted


def values(before: Source, now: Source, sizes: tuple[int, int], place: int) -> tuple[Floats, Floats]:
    """A reference and its first window, the same whenever they are asked for."""
    chance = np.random.default_rng([place, *sizes])
    return before.draw(chance, sizes[0]), now.draw(chance, sizes[1])


@cache
def peer(before: Source, now: Source, sizes: tuple[int, int], references: int) -> float | None:
    """In what part of first windows Evidently finds drift."""
    drifted = evidently()
    if not drifted:
        return None
    return float(np.mean([drifted(*values(before, now, sizes, place)) for place in range(min(references, PEERS))]))


def drawn(layout: Layout, now: Source, sizes: tuple[int, int], references: int) -> tuple[Floats, Floats]:
    """Counts of references, each over bins of its own, and of their windows, both (references, windows, bins).

    Only counts matter: but for first windows they are drawn as such.
    """
    before, after = [], []
    for place in range(references):
        reference, first = values(layout.source, now, sizes, place)
        bins = layout.bins(reference)
        below = np.array([0.0, *map(now.below, bins.edges.tolist()), 1.0])
        chance = np.random.default_rng([place, *sizes, 1])
        windows = chance.multinomial(sizes[1], np.diff(below), WINDOWS).astype(np.float64)
        windows[0] = bins.counted(first)[0]
        before.append(np.broadcast_to(bins.counted(reference)[0], windows.shape))
        after.append(windows)
    return np.array(before), np.array(after)


def judged(before: Floats, after: Floats, sizes: tuple[int, int]) -> dict[str, Any]:
    """In what part of all windows each way finds drift."""
    effect = psi(before, after)
    pvalue = drift_pvalue(before, after)
    found: dict[str, Any] = {
        "psi": float(effect.mean()),
        "psi > 0.1": float((effect > 0.1).mean()),  # noqa: PLR2004 - what people use
        "psi > 0.2": float((effect > 0.2).mean()),  # noqa: PLR2004
        "p": float((pvalue < Gates().alpha).mean()),
        "p psi": float((psi_test(before, after).pvalue < Gates().alpha).mean()),
        "p chi-square": float((pooled_chi_square(before, after).pvalue < Gates().alpha).mean()),
    }
    for least in EFFECTS:
        gates = Gates(effect=least)
        found["enough"] = gates.enough(min(sizes), before.shape[-1])
        votes = (effect >= least) & (pvalue < gates.alpha) & found["enough"]
        active = alerts(gates, effect, pvalue) if found["enough"] else np.zeros(effect.shape, dtype=bool)
        verdicts = np.where(active.any(axis=1), active.argmax(axis=1) + 1, np.inf)
        found[f"effect {least}"] = {
            "votes": float(votes.mean()),
            "alerts": float(active.mean()),
            # The next of those that were measured, since there is nothing between a number and infinity.
            "verdict": [float(np.quantile(verdicts, part, method="higher")) for part in (0.5, 0.95)],
        }
    return found


def alerts(gates: Gates, effect: Floats, pvalue: Floats) -> NDArray[np.bool_]:
    """After which windows it is active."""
    active = np.zeros(effect.shape, dtype=bool)
    for place in range(len(effect)):
        state = State()
        for window in range(WINDOWS):
            state = decided(state, gates, float(effect[place, window]), float(pvalue[place, window]))
            active[place, window] = state.active
    return active


def row(kind: str, layout: Layout, now: Source, sizes: tuple[int, int], references: int) -> dict[str, Any]:
    """Measure and print one."""
    found = judged(*drawn(layout, now, sizes, references), sizes)
    found |= {"kind": kind, "bins": layout.name, "n": sizes[0], "m": sizes[1]}
    found["evidently"] = peer(layout.source, now, sizes, references)
    ours = [found[f"effect {least}"] for least in EFFECTS]
    verdict = ", ".join("/".join(f"{windows:.0f}" for windows in one["verdict"]) for one in ours)
    if kind == "healthy":
        verdict = "" if found["enough"] else "too small"
    cells = [
        kind, layout.name, f"{sizes[0]:,}", f"{sizes[1]:,}", percent(found["psi > 0.1"]), percent(found["psi > 0.2"]),
        percent(found["evidently"]), percent(found["p psi"]), percent(found["p chi-square"]), percent(found["p"]),
        *(percent(one["votes"]) for one in ours), *(percent(one["alerts"]) for one in ours),
        verdict.replace("inf", f"> {WINDOWS}"),
    ]  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)
    return found


def percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.2f} %"


def main() -> int:
    options = parser(__doc__, rounds=500).parse_args()
    titles = [
        "", "bins", "n", "m", "PSI > 0.1", "PSI > 0.2", "Evidently", "p, PSI", "p, chi-square", "p",
        *("vote" for _ in EFFECTS), *("alert" for _ in EFFECTS), "verdict after",
    ]  # fmt: skip
    print("| " + " | ".join(titles) + " |")
    print("|---|---|" + "---:|" * (len(titles) - 2))
    rows: list[dict[str, Any]] = []
    promises: list[Promise] = []
    for layout in LAYOUTS:
        for sizes in SIZES:
            found = row("healthy", layout, layout.source, sizes, options.rounds)
            rows.append(found)
            name = f"alerts of healthy windows, {layout.name}, {sizes}"
            promises += [
                (f"{name}, {least}", found[f"effect {least}"]["alerts"], "<=", PROMISED_ALERTS) for least in EFFECTS
            ]
    for number in DRIFT_BINS:
        for sizes in DRIFT_SIZES:
            found = row("drifted", quantiles(number), DRIFTED, sizes, options.rounds)
            rows.append(found)
            promises += [
                (
                    f"votes of drifted windows, {number} bins, {sizes}, {least}",
                    found[f"effect {least}"]["votes"],
                    ">=",
                    least_votes,
                )
                for (bins, least), least_votes in PROMISED_VOTES.items()
                if bins == number
            ]
    short = [] if evidently() else [MISSING]
    return conclude(options, {"references": options.rounds, "windows": WINDOWS, "rows": rows}, promises, short)


if __name__ == "__main__":
    sys.exit(main())
