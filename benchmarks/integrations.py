"""What watching a library adds to each of its calls, beside the wrapper that people write by hand, in one run.

onnxruntime: the smallest session there is, run as it is, watched, and in a wrapper that observes its duration in a
histogram of prometheus_client; their turns alternate. What is added is the median of the differences from the turns
next to each. ultralytics, where it is installed: what the added code is of one prediction (`predictions.py`).
"""

import gc
import importlib.util
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Histogram

from benchmarks.promises import Promise, conclude, parser
from infermeter import Recorder

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_TURN = 200
_TURNS_OF_A_FOLD = 10
_WARM = 3
_MOST_OF_A_WRAPPER = 0.5
_MOST_OF_A_PREDICTION = 0.1  # percent

Run = Callable[..., Any]


def smallest() -> bytes:
    """A model that gives its one number back."""
    from onnx import TensorProto, helper  # noqa: PLC0415  (a second to import)

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "smallest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def wrapped(original: Run, *, labels: bool) -> Run:
    """`run` as it is wrapped by hand, with the labelled child looked up each time, or once."""
    histogram = Histogram("run_seconds", "Duration.", ["service", "model"], registry=CollectorRegistry())
    child = histogram.labels("bench", "smallest")

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = perf_counter()
        try:
            return original(self, *args, **kwargs)
        finally:
            child.observe(perf_counter() - started)

    def run_labelled(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = perf_counter()
        try:
            return original(self, *args, **kwargs)
        finally:
            histogram.labels("bench", "smallest").observe(perf_counter() - started)

    return run_labelled if labels else run


def watched(session_class: Any, recorder: Recorder) -> Run:
    """`run` as `recorder` has it watched; the class is as it was afterwards, and who holds this one is watched on."""
    recorder.instrument("onnxruntime")
    run: Run = session_class.run
    return run


def turn(run: Run, session: Any, feed: dict[str, Any]) -> float:
    """Seconds per call."""
    started = perf_counter()
    for _ in range(_TURN):
        run(session, None, feed)
    return (perf_counter() - started) / _TURN


def measured(rounds: int, folder: str) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Medians of the bare call and of the folds, and what each side adds in each round, in seconds."""
    import onnxruntime  # noqa: PLC0415  (after its telemetry is off)

    session = onnxruntime.InferenceSession(smallest(), providers=["CPUExecutionProvider"])
    session_class: Any = next(cls for cls in type(session).__mro__ if "run" in vars(cls))
    feed = {"x": np.zeros((1, 1), np.float32)}
    original = session_class.run
    recorders = {
        "infermeter": Recorder(service="bench", registry=CollectorRegistry()),
        "infermeter, multi-process": Recorder(service="bench", registry=CollectorRegistry(), multiprocess_dir=folder),
    }
    sides = {"bare": original}
    for name, recorder in recorders.items():
        sides[name] = watched(session_class, recorder)
        session_class.run = original  # the next one is not to be watched by this one too
    sides["wrapper, cached child"] = wrapped(original, labels=False)
    sides["wrapper, labels each time"] = wrapped(original, labels=True)
    times: dict[str, list[float]] = {name: [] for name in sides}
    folds: list[float] = []
    order = list(sides)
    for number in range(rounds + _WARM):
        random.shuffle(order)
        gc.collect()
        gc.disable()
        for name in order:
            seconds = turn(sides[name], session, feed)
            if number >= _WARM:
                times[name].append(seconds)
            if name in recorders:
                recorders[name].fold()
        for _ in range(_TURNS_OF_A_FOLD):
            turn(sides["infermeter"], session, feed)
        started = perf_counter()
        recorders["infermeter"].fold()
        folds.append((perf_counter() - started) / (_TURN * _TURNS_OF_A_FOLD))
        gc.enable()
    for recorder in recorders.values():
        recorder.uninstrument()
        (series,) = recorder.series.values()
        if recorder is recorders["infermeter"]:
            assert series.totals.value("inferences_total") == (rounds + _WARM) * _TURN * (1 + _TURNS_OF_A_FOLD)
    added = {
        name: [one - bare for one, bare in zip(seconds, times["bare"], strict=True)] for name, seconds in times.items()
    }
    return {"bare": statistics.median(times["bare"]), "fold": statistics.median(folds)}, added


def main() -> int:
    options = parser(__doc__, rounds=101).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        medians, rounds = measured(options.rounds, folder)
    added = {name: statistics.median(seconds) for name, seconds in rounds.items() if name != "bare"}
    strictest = added["wrapper, cached child"]
    print(f"onnxruntime, the smallest session: {medians['bare'] * 1e6:.2f} us a run\n")
    print("| added to each run | us | of the wrapper with a cached child |")
    print("|---|---:|---:|")
    for name, seconds in added.items():
        print(f"| {name} | {seconds * 1e6:.2f} | {seconds / strictest:.2f} |")
    print(f"\nand once a second, in another thread, for each of 2,000 runs since then: {medians['fold'] * 1e6:.2f} us")
    ratio = added["infermeter"] / strictest
    labelled = added["infermeter"] / added["wrapper, labels each time"]
    promises: list[Promise] = [("added to onnxruntime, of a wrapper", ratio, "<=", _MOST_OF_A_WRAPPER)]
    figures: dict[str, Any] = {"us": {name: one * 1e6 for name, one in (medians | added).items()}}
    figures["ratios"] = {"cached child": ratio, "labels": labelled}
    if importlib.util.find_spec("ultralytics") is None:
        print("\nultralytics is not installed: what watching adds to a prediction is not measured")
    else:
        from benchmarks.predictions import predictions  # noqa: PLC0415  (imports a framework)

        print("\n| a prediction of yolov8n | alone | watched | added code | of the prediction |")
        print("|---|---:|---:|---:|---:|")
        for one in predictions(60):
            print(
                f"| {one.size} px | {one.alone * 1e3:.2f} ms | {one.watched * 1e3:.2f} ms | {one.added * 1e6:.1f} us "
                f"| {one.share:.3%} |"
            )
            figures[f"{one.size} px"] = one.__dict__
        promises.append(("added to a prediction, percent", one.share * 100, "<", _MOST_OF_A_PREDICTION))
    return conclude(options, figures, promises)


if __name__ == "__main__":
    sys.exit(main())
