"""What it costs to find drift: binning, statistics, and both, beside bare numpy and Evidently's report.

Binning: 10 columns of normal values, each contiguous, are counted into the deciles of their references. Beside it, in
the same rounds and in random order, numpy does the least that gives these counts: one comparison and one
`count_nonzero` for each edge and column. Ours also tells what is not finite or outside of what the reference had. With
100 bins both search instead, in one column.

Statistics: five (PSI, KL, Jensen-Shannon, Hellinger, Kolmogorov-Smirnov) of 10,000 series of 10 bins, as many calls as
statistics. Beside them is one pass of numpy over the same counts: PSI as it is usually written, without checks or
anything added to empty bins, which is two sums, two divisions by them, a ratio, its logarithm, a product, and a sum.

The report: PSI of 10 features, from the values of a reference and of a window, of a million rows each; ours learns its
bins meanwhile. Evidently's is `DataDriftPreset` with its PSI on a DataFrame that shares the memory of the same columns.
Each has a process of its own, which imports what it needs, does all once with 1,000 rows, fills the columns, and reads
the peak of its memory (`ru_maxrss`); then it works, and by how much the peak grew is what that took. Time is from the
same process: Evidently works once, ours as often as there are rounds, of which the median counts.

    python -m benchmarks.drift [--rows N] [--rounds N] [--json FILE] [--check]
"""

import multiprocessing
import random
import resource
import statistics
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from operator import truediv
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_calibration import MISSING, Floats
from benchmarks.promises import Promise, conclude, parser
from infermeter_exporters.drift.bins import DECILES, FINE, quantile_bins
from infermeter_exporters.drift.distances import hellinger, js_divergence
from infermeter_exporters.drift.kl import kl
from infermeter_exporters.drift.ks import ks
from infermeter_exporters.drift.psi import psi

FEATURES, SERIES = 10, 10_000
FEW_ROWS = 1000
STATISTICS: list[Callable[[Floats, Floats], Floats]] = [psi, kl, js_divergence, hellinger, ks]
WARM_UP = 2  # rounds
MEBIBYTE = 1 << 10  # KiB, as ru_maxrss is
PROMISED_RATE, PROMISED_PASSES = 0.5, 5.0
PROMISED_SPEED, PROMISED_MEMORY = 100.0, 0.25

Columns = NDArray[np.floating]
Case = Callable[[], object]


def columns(seed: int, rows: int, mean: float = 0.0, deviation: float = 1.0) -> Floats:
    """Features of normal values, of shape (features, rows); made where they stay, so that all that is taken is kept."""
    made = np.empty((FEATURES, rows))
    chance = np.random.default_rng(seed)
    for column in made:
        chance.standard_normal(out=column)
        np.multiply(column, deviation, out=column)
        np.add(column, mean, out=column)
    return made


def ours(reference: Columns, current: Columns) -> list[float]:
    """The index of each feature."""
    found = []
    for before, now in zip(reference, current, strict=True):
        bins = quantile_bins(before)
        found.append(float(psi(bins.counted(before)[0], bins.counted(now)[0])))
    return found


def theirs(reference: Columns, current: Columns) -> list[float]:
    """The same by Evidently."""
    import pandas as pd  # noqa: PLC0415
    from evidently import Report  # noqa: PLC0415
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    names = [f"feature {number}" for number in range(FEATURES)]
    before, now = (pd.DataFrame(made.T, columns=names, copy=False) for made in (reference, current))
    report = Report([DataDriftPreset(method="psi")]).run(now, before).dict()
    return [float(one["value"]) for one in report["metrics"][1:]]  # the first is how many columns drift


def reported(make: Callable[[Columns, Columns], list[float]], rows: int, rounds: int) -> dict[str, Any]:
    """Of this process, the seconds of a report and the MiB by which its peak grows."""
    warnings.simplefilter("ignore")  # of pandas, about what Evidently does
    make(columns(1, FEW_ROWS), columns(2, FEW_ROWS))
    reference, current = columns(3, rows), columns(4, rows, 0.3, 1.1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    found: list[float] = []
    for _ in range(rounds):
        began = perf_counter()
        found = make(reference, current)
        seconds.append(perf_counter() - began)
    assert len(found) == FEATURES
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": statistics.median(seconds),
        "memory": grown / MEBIBYTE,
        "loaded": before / MEBIBYTE,
        "psi": statistics.mean(found),
    }


def alone(make: Callable[[Columns, Columns], list[float]], rows: int, rounds: int) -> dict[str, Any]:
    """The same of a new process, which ends with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(reported, make, rows, rounds).result()


def bare(values: Columns, edges: Columns) -> list[int]:
    """How many values are at most each edge."""
    return [int(np.count_nonzero(values <= edge)) for edge in edges]


def searched(values: Columns, edges: Columns) -> NDArray[np.int64]:
    """How many values are in each bin."""
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)


def one_pass(reference: Floats, current: Floats) -> Floats:
    """What five statistics are measured by."""
    p = reference / reference.sum(axis=-1, keepdims=True)
    q = current / current.sum(axis=-1, keepdims=True)
    found: Floats = ((q - p) * np.log(q / p)).sum(axis=-1)
    return found


def binning(rows: int, kind: type[np.floating]) -> tuple[Case, Case]:
    """Ours and numpy's way to count all columns into deciles; raises unless both count the same."""
    values = columns(6, rows, 0.3, 1.1).astype(kind)
    bins = [quantile_bins(column) for column in columns(5, rows)]
    # Edges are of the kind of the values, so that both mean the same by them.
    edges = [one.edges.astype(kind) for one in bins]
    bins = [one._replace(edges=few.astype(np.float64)) for one, few in zip(bins, edges, strict=True)]
    for column, one, few in zip(values, bins, edges, strict=True):
        assert np.cumsum(one.counted(column)[0])[:-1].tolist() == bare(column, few)
    return (
        lambda: [one.counted(column) for column, one in zip(values, bins, strict=True)],
        lambda: [bare(column, few) for column, few in zip(values, edges, strict=True)],
    )


def fine_binning(rows: int) -> tuple[Case, Case]:
    """The same of one column and many bins."""
    values, bins = columns(6, rows)[0], quantile_bins(columns(5, rows)[0], FINE)
    assert bins.counted(values)[0].tolist() == searched(values, bins.edges).tolist()
    return lambda: bins.counted(values), lambda: searched(values, bins.edges)


def five() -> tuple[Case, Case]:
    """Five statistics, and one pass; raises unless their index is the same."""
    chance = np.random.default_rng(7)
    before, now = (chance.multinomial(1000, np.full(DECILES, 1 / DECILES), SERIES).astype(np.float64) for _ in "ab")
    assert np.allclose(psi(before, now, 0.0), one_pass(before, now))
    return lambda: [statistic(before, now) for statistic in STATISTICS], lambda: one_pass(before, now)


def measured(cases: dict[str, tuple[Case, Case]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of every case, ours and the other, in every round."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in cases}
    order = [(name, side) for name in cases for side in (0, 1)]
    for turn in range(WARM_UP + rounds):
        random.shuffle(order)
        for name, side in order:
            began = perf_counter()
            cases[name][side]()
            seconds = perf_counter() - began
            if turn >= WARM_UP:
                taken[name][side].append(seconds)
    return taken


def main() -> int:
    options = parser(__doc__, rounds=15)
    options.add_argument("--rows", type=int, default=1_000_000)
    given = options.parse_args()
    rows, rounds = given.rows, given.rounds

    # First, while this process is small: a new one begins with the peak of the one that starts it.
    reports = {"ours": alone(ours, rows, rounds)}
    try:
        reports["evidently"] = alone(theirs, rows, 1)
    except ImportError:
        pass  # said at the end
    kinds: list[type[np.floating]] = [np.float64, np.float32]
    cases = {f"10 bins, {kind.__name__}": binning(rows, kind) for kind in kinds}
    cases["100 bins"] = fine_binning(rows)
    cases["five statistics"] = five()
    times = measured(cases, rounds)
    ratios = {name: statistics.median(map(truediv, mine, other)) for name, (mine, other) in times.items()}
    medians = {name: [statistics.median(side) for side in sides] for name, sides in times.items()}

    print(f"| {rows:,} rows | infermeter | beside it | ratio |")
    print("|---|---:|---:|---:|")
    promises: list[Promise] = []
    for name in cases:
        mine, other = medians[name]
        if name == "five statistics":
            print(
                f"| five statistics, {SERIES:,} series of {DECILES} bins | {mine * 1e3:.2f} ms "
                f"| one pass of numpy: {other * 1e3:.2f} ms | {ratios[name]:.1f} x the time |"
            )
            promises.append(("five statistics, in passes of numpy", ratios[name], "<=", PROMISED_PASSES))
            continue
        values = rows * (1 if name == "100 bins" else FEATURES) / 1e6
        way = "searchsorted, bincount" if name == "100 bins" else "compare, count"
        print(
            f"| {name} | {values / mine:.0f} M values/s | {way}: {values / other:.0f} M values/s "
            f"| {1 / ratios[name]:.2f} of the rate |"
        )
        if name != "100 bins":
            promises.append((f"{name}, of the rate of comparing", 1 / ratios[name], ">=", PROMISED_RATE))
    promises += shown(reports)
    figures = {"rows": rows, "seconds": medians, "ratios": ratios, "reports": reports}
    return conclude(given, figures, promises, [] if "evidently" in reports else [MISSING])


def shown(reports: dict[str, dict[str, Any]]) -> list[Promise]:
    """Print what a report takes; what is promised of it."""
    mine, other = reports["ours"], reports.get("evidently")
    label = f"PSI of {FEATURES} features"
    if not other:
        print(f"| {label}, time | {mine['seconds'] * 1e3:.0f} ms | | |")
        print(f"| {label}, memory | {mine['memory']:.0f} MiB | | |")
        return []
    speed, memory = other["seconds"] / mine["seconds"], mine["memory"] / other["memory"]
    print(
        f"| {label}, time | {mine['seconds'] * 1e3:.0f} ms | Evidently: {other['seconds']:.2f} s "
        f"| {speed:.0f} x as fast |"
    )
    print(f"| {label}, memory | {mine['memory']:.0f} MiB | Evidently: {other['memory']:.0f} MiB | {memory:.2f} of it |")
    return [
        (f"{label}, times as fast as Evidently", speed, ">=", PROMISED_SPEED),
        (f"{label}, of Evidently's memory", memory, "<=", PROMISED_MEMORY),
    ]


if __name__ == "__main__":
    sys.exit(main())
