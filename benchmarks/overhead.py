"""What watching one inference costs, beside prometheus_client doing the same by hand.

All cases run in one process, those of a table in random order in every round. The table gives medians of the rounds,
and as ratios the medians of the ratios within each round, which a machine that changes its speed does not disturb.
Absolute times belong to the machine that ran it, the ratios are the promise.

    python -m benchmarks.overhead [--rounds N] [--json FILE] [--check]

A complete inference is: in-flight up, the model (a function that returns ready results at once), in-flight down, count,
duration, cost, 100 confidences, objects in the frame. Folding (turning what was recorded into buckets) happens on a
timer in another thread; `calling path` leaves it out, `with folds` adds all of it.

The same is measured, after the rest, as one of several processes that count together, where what is recorded goes to
files: those of prometheus_client's multi-process mode, and those of our `multiprocess_dir`.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import truediv
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

import infermeter
from benchmarks.promises import conclude, parser
from infermeter.catalogue import FAMILIES
from infermeter.config import Options

LABELS = ("service", "model", "version")
VALUES = ("bench", "yolov8m", "2")
USD_PER_SECOND = 2.10 / 3600
WARM_UP = 2  # rounds
IN_FILES = "multi-process "  # begins the names of cases
CALLS = 200  # per sample: below the 256 records at which a calling thread folds by itself

Model = Callable[[Any], Any]

generator = random.Random(7)
# What a detector returns that drops what is below 0.25: a bell around 0.75.
AS_LIST = [max(0.25, generator.betavariate(5, 2)) for _ in range(100)]
AS_ARRAY = np.array(AS_LIST, dtype=np.float32)


def model_list(frame: object) -> list[float]:
    return AS_LIST


def model_array(frame: object) -> Any:
    return AS_ARRAY


# --- prometheus_client ------------------------------------------------------------------------------------------------


@contextmanager
def peer_in_files(folder: str, process: Callable[[], object] = os.getpid) -> Iterator[None]:
    """The metrics of prometheus_client that are made meanwhile are those of one of several processes.

    Args:
        folder: that the processes share.
        process: gives what tells it from the others.
    """
    before = values.ValueClass
    with patch.dict(os.environ, PROMETHEUS_MULTIPROC_DIR=folder):
        values.ValueClass = values.MultiProcessValue(process)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            values.ValueClass = before


class Families(NamedTuple):
    """What an inference is counted in."""

    in_flight: Any
    total: Any
    duration: Any
    cost: Any
    confidence: Any
    objects: Any


def peer_families() -> Families:
    registry = CollectorRegistry()

    def histogram(name: str) -> Histogram:
        return Histogram(name, name, LABELS, registry=registry, buckets=FAMILIES[name].edges)

    return Families(
        Gauge("inferences_in_flight", "in flight", LABELS, registry=registry, multiprocess_mode="livesum"),
        Counter("inferences_total", "inferences", LABELS, registry=registry),
        histogram("inference_duration"),
        histogram("inference_cost"),
        histogram("detection_confidence"),
        histogram("objects_per_frame"),
    )


def peer_cached(families: Families, model: Model, read: Model) -> Model:
    in_flight, total, duration, cost, confidence, objects = (family.labels(*VALUES) for family in families)

    def infer(frame: object) -> None:
        in_flight.inc()
        started = perf_counter()
        try:
            result = model(frame)
        finally:
            seconds = perf_counter() - started
            in_flight.dec()
            total.inc()
            duration.observe(seconds)
            cost.observe(seconds * USD_PER_SECOND)
        scores = read(result)
        for score in scores:
            confidence.observe(score)
        objects.observe(len(scores))

    return infer


def peer_labels(families: Families, model: Model, read: Model) -> Model:
    in_flight, total, duration, cost, confidence, objects = families
    service, name, version = VALUES

    def infer(frame: object) -> None:
        in_flight.labels(service=service, model=name, version=version).inc()
        started = perf_counter()
        try:
            result = model(frame)
        finally:
            seconds = perf_counter() - started
            in_flight.labels(service=service, model=name, version=version).dec()
            total.labels(service=service, model=name, version=version).inc()
            duration.labels(service=service, model=name, version=version).observe(seconds)
            cost.labels(service=service, model=name, version=version).observe(seconds * USD_PER_SECOND)
        scores = read(result)
        for score in scores:
            confidence.labels(service=service, model=name, version=version).observe(score)
        objects.labels(service=service, model=name, version=version).observe(len(scores))

    return infer


def peer_cases() -> dict[str, Model]:
    families = peer_families()
    return {
        "peer array labels": peer_labels(families, model_array, lambda result: result),
        "peer array cached": peer_cached(families, model_array, lambda result: result),
        "peer array tolist": peer_cached(families, model_array, lambda result: result.tolist()),
        "peer list labels": peer_labels(families, model_list, lambda result: result),
        "peer list cached": peer_cached(families, model_list, lambda result: result),
    }


# --- infermeter -------------------------------------------------------------------------------------------------------


def recorder_of(options: Options) -> infermeter.Recorder:
    prices = infermeter.CostModel(usd_per_hour=2.10)
    common: Options = {"service": VALUES[0], "registry": CollectorRegistry(), "cost": prices}
    return infermeter.Recorder(**common | options)


def our_cases(recorder: infermeter.Recorder) -> dict[str, Model]:
    track = recorder.track

    def with_list(frame: object) -> None:
        with track(model="yolov8m", version="2") as call:
            call.detections(model_list(frame))

    def with_array(frame: object) -> None:
        with track(model="yolov8m", version="2") as call:
            call.detections(model_array(frame))

    decorated = track(model=VALUES[1], version=VALUES[2], detections=lambda result: result)
    return {
        "ours array with": with_array,
        "ours array decorator": decorated(model_array),
        "ours list with": with_list,
        "ours list decorator": decorated(model_list),
    }


def bare(frame: object) -> object:
    return frame


def watching_cases(recorder: infermeter.Recorder) -> dict[str, Any]:
    single = Histogram("single", "one observe", registry=None, buckets=FAMILIES["inference_duration"].edges)
    return {
        "bare": bare,
        "peer observe": single.observe,
        "ours noop decorator": recorder.track(model="noop")(bare),
        "ours noop with held": recorder.track(model="noop"),
        "ours noop with": recorder.track,
    }


# What is timed is one call of the case, but for these.
STATEMENTS = {
    "ours noop with": 'with function(model="noop"): pass',
    "ours noop with held": "with function: pass",
}


@dataclass(frozen=True)
class Case:
    """Seconds of one call, a figure a round: on the calling path, and with the folds of its calls."""

    path: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


def ratio(above: list[float], below: list[float]) -> float:
    """Median over the rounds of the ratio within each."""
    return float(statistics.median(map(truediv, above, below)))


def measure(functions: dict[str, Any], recorder: infermeter.Recorder, rounds: int) -> dict[str, Case]:
    """Time every case in every round."""
    timers = {
        name: timeit.Timer(
            STATEMENTS.get(name, "function(0.0373)"), "import gc; gc.enable()", globals={"function": function}
        )
        for name, function in functions.items()
    }
    cases = {name: Case() for name in functions}
    order = list(functions)
    for turn in range(WARM_UP + rounds):
        random.shuffle(order)
        for name in order:
            recorder.fold()
            calls = 20 if name.startswith("peer") and name != "peer observe" else CALLS
            seconds = timers[name].timeit(calls)
            started = perf_counter()
            recorder.fold()
            folding = perf_counter() - started if name.startswith("ours") else 0.0
            if turn >= WARM_UP:
                cases[name].path.append(seconds / calls)
                cases[name].whole.append((seconds + folding) / calls)
    return cases


def import_seconds(rounds: int) -> dict[str, list[float]]:
    """Seconds of starting an interpreter and importing: the two dependencies alone, and us."""
    statements = {"dependencies": "import prometheus_client, numpy", "infermeter": "import infermeter"}
    taken: dict[str, list[float]] = {name: [] for name in statements}
    # An installed package has its bytecode: here the first turn, which does not count, may write it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(rounds + 1):
        for name, statement in statements.items():
            started = perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
            if turn:
                taken[name].append(perf_counter() - started)
    return taken


def microseconds(seconds: list[float]) -> str:
    """The median as text."""
    return f"{statistics.median(seconds) * 1e6:.2f} us"


def print_inferences(times: dict[str, Case], prefix: str) -> dict[str, float]:
    """Print the rows of a table; gives how much cheaper each case is than prometheus_client with cached children."""
    ratios: dict[str, float] = {}
    for kind, title in (("array", "NumPy float32"), ("list", "list of float")):
        peer = times[f"{prefix}peer {kind} cached"].path
        for case, label in (
            (f"peer {kind} labels", "prometheus_client, `.labels()` each time"),
            (f"peer {kind} cached", "prometheus_client, cached children"),
            (f"peer {kind} tolist", "prometheus_client, cached children, `.tolist()` first"),
            (f"ours {kind} with", "infermeter, `with track(...)`"),
            (f"ours {kind} decorator", "infermeter, `@track(...)`"),
        ):
            row = prefix + case
            if row not in times:
                continue
            path, whole = ratio(peer, times[row].path), ratio(peer, times[row].whole)
            ratios[f"{row} path"], ratios[f"{row} whole"] = path, whole
            print(f"| {title}: {label} | {microseconds(times[row].path)} | {microseconds(times[row].whole)} ", end="")
            print(f"| {path:.1f}x | {whole:.1f}x |")
    return ratios


def main() -> int:
    arguments = parser(__doc__, rounds=61).parse_args()

    recorder = recorder_of({})
    times = measure(peer_cases() | our_cases(recorder) | watching_cases(recorder), recorder, arguments.rounds)
    imports = import_seconds(max(5, arguments.rounds // 4))

    # After the others, because no process is of both kinds: the interpreter adapts to the one that it finds.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # our timer still looks into it
        recorder = recorder_of({"multiprocess_dir": Path(folder) / "infermeter"})
        with peer_in_files(folder):
            functions = peer_cases() | our_cases(recorder)
        in_files = measure(functions, recorder, arguments.rounds)
    times |= {IN_FILES + name: case for name, case in in_files.items()}

    ratios: dict[str, float] = {}
    for title, prefix in (
        ("a complete inference, 100 confidences", ""),
        ("the same, as one of several processes", IN_FILES),
    ):
        print(f"| {title} | calling path | with folds | cheaper: path | cheaper: whole |")
        print("|---|---:|---:|---:|---:|")
        ratios |= print_inferences(times, prefix)
        print()
    observe = times["peer observe"].path
    print("| nothing but the watching | calling path | in cached `Histogram.observe` |")
    print("|---|---:|---:|")
    for row, label in (
        ("bare", "bare function call"),
        ("peer observe", "prometheus_client `Histogram.observe`, cached child"),
        ("ours noop decorator", "infermeter `@track(...)` on a no-op function"),
        ("ours noop with held", "infermeter `with held:` around nothing, `held = track(...)` made before"),
        ("ours noop with", "infermeter `with track(...)` around nothing"),
    ):
        ratios[f"{row} observes"] = ratio(times[row].path, observe)
        print(f"| {label} | {microseconds(times[row].path)} | {ratios[f'{row} observes']:.2f} |")
    print()
    ratios["import"] = ratio(imports["infermeter"], imports["dependencies"])
    print(f"import infermeter: {ratios['import']:.2f} of the time of importing prometheus_client and numpy")

    promises = [
        ("array, decorator: calling path", ratios["ours array decorator path"], ">=", 150),
        ("array, decorator: with folds", ratios["ours array decorator whole"], ">=", 60),
        ("list, decorator: calling path", ratios["ours list decorator path"], ">=", 80),
        ("list, decorator: with folds", ratios["ours list decorator whole"], ">=", 35),
        ("multi-process array, decorator: calling path", ratios[f"{IN_FILES}ours array decorator path"], ">=", 100),
        ("multi-process list, decorator: calling path", ratios[f"{IN_FILES}ours list decorator path"], ">=", 100),
        ("no-op decorated, in observes", ratios["ours noop decorator observes"], "<=", 0.8),
        ("`with` around nothing, in observes", ratios["ours noop with observes"], "<=", 1.2),
        ("import time, ratio", ratios["import"], "<=", 1.5),
    ]
    seconds = {
        name: {"path": statistics.median(case.path), "whole": statistics.median(case.whole)}
        for name, case in times.items()
    }
    figures = {"seconds": seconds, "ratios": ratios}
    return conclude(arguments, figures, promises)


if __name__ == "__main__":
    sys.exit(main())
