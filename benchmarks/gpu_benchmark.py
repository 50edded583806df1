"""Benchmarks models with every setting that you think of changing: speed, memory, energy, money and accuracy.

    python -m benchmarks.gpu_benchmark MODEL... [options]
    python -m benchmarks.gpu_benchmark demo/detector.onnx --batch-sizes 1,8 --threads 1,2 --json before.json
    python -m benchmarks.gpu_benchmark demo/detector.onnx --batch-sizes 1,8 --threads 1,2 --compare before.json

Models are ONNX files (by onnxruntime), checkpoints and YAML files of ultralytics (whose `predict` is timed, with all
that it does), and factories of torch modules. Inputs are random; they are made before, so a time is that of the call.
With a GPU and without: `docs/ai-tuning-guide.md` tells what to do with the figures.

Each case is first tried in a process of its own, which tells the memory that it takes at most: of CUDA what torch
allocated, otherwise by how much resident memory rose, shared libraries left out. Then all cases are loaded in one
process, warmed up, and called in turns, in another order in every round. An inference is an item, not a batch; its
speed is the median of the turns, and `±` half of the distance of their quartiles. Latencies are those of all calls;
p95 is told from 20 calls on, p99 from 100.

Energy is read from the page of a GPU exporter while a case calls without a pause; it is that of the whole device, what
it draws when idle included. USD per 1,000 inferences are those of a machine that does nothing else.

A precision that a kind of model does not have is left out; other cases go on, also when one fails. Exit code: 0; 1 if a
case failed, or lost more than the threshold since `--compare`; 2 for a mistake, before anything is measured.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.models import accuracy, compare, memory, report
from benchmarks.models.cases import CannotRun, Case, LeftOut, Mistake, planned, sentence
from benchmarks.models.energy import GpuPage, Unmeasured
from benchmarks.models.kinds import opened
from benchmarks.models.machine import machine
from benchmarks.models.options import NAME, parsed
from benchmarks.models.pictures import labelled
from benchmarks.models.plot import png
from benchmarks.models.progress import progress
from benchmarks.models.report import Row
from benchmarks.models.turns import Turn, in_turns, turn
from infermeter import CostModel

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from benchmarks.models.cases import Planned, Runner
    from benchmarks.models.energy import Energy
    from benchmarks.models.pictures import Labelled

SETTINGS = (
    "seconds",
    "rounds",
    "warm_up",
    "energy_seconds",
    "gpu",
    "usd_per_hour",
    "usd_per_kwh",
    "labelled",
    "confidence",
    "mean",
    "deviation",
)
"""Options that are told in the JSON beside the cases."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line says; gives the exit code."""
    options = parsed(argv, (__doc__ or "").splitlines()[0])
    try:
        with tempfile.TemporaryDirectory(prefix="infermeter-benchmark-", ignore_cleanup_errors=True) as folder:
            options.folder = folder
            return _run(options)
    except Mistake as mistake:
        print(f"{NAME}: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{NAME}: interrupted, nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the table has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace) -> int:
    """Check everything that can be checked, measure, and tell."""
    _require_places(options)
    truth = labelled(Path(options.labelled)) if options.labelled else None
    earlier = compare.read(Path(options.compare)) if options.compare else None
    models = [opened(name, options) for name in dict.fromkeys(options.models)]
    plan = list(planned(models, options))
    facts = machine(library for model in models for library in model.libraries)
    if earlier and not options.any_machine:
        compare.require_same_machine(earlier, facts)
    energy: Energy = GpuPage(options.gpu_metrics, options.gpu) if options.gpu_metrics else Unmeasured()
    if not facts["gpus"]:
        print(f"no GPU was found: everything runs on CPU ({facts['cpu']}, {facts['cores']} cores)")
    if isinstance(energy, Unmeasured):
        print("energy is not measured: --gpu-metrics names the page of a GPU exporter")

    rows = _measured(plan, options, energy, truth)
    print(f"\n{report.plain(rows)}\n")
    for line in report.remarks(rows):
        print(line)
    _write(rows, facts, options)
    worse = _compared(earlier, rows, options) if earlier else 0
    failed = sum(bool(row.failed) for row in rows)
    if failed:
        print(f"{NAME}: {failed} of {len(rows)} cases failed", file=sys.stderr)
    if worse:
        figures = "1 figure is" if worse == 1 else f"{worse} figures are"
        print(f"{NAME}: {figures} worse than in {options.compare}", file=sys.stderr)
    unmeasured = not any(row.figures for row in rows)
    if unmeasured and not failed:
        print(f"{NAME}: no case could be measured", file=sys.stderr)
    return 1 if failed or worse or unmeasured else 0


def _measured(plan: list[Planned], options: argparse.Namespace, energy: Energy, truth: Labelled | None) -> list[Row]:
    """A row for each case of the plan, in its order."""
    rows = {each.case: Row(each.case, skipped=each.skipped) for each in plan}
    run = [each for each in plan if not each.skipped]
    memory.preload(module for each in run for module in each.model.modules)

    def failed(case: Case, error: Exception) -> None:
        rows[case].failed = sentence(error)

    with progress(len(run) * (options.rounds + 2)) as advance:
        runners: dict[Case, Runner] = {}
        for model, case, _ in run:
            try:
                model.prepare(case, Path(options.folder))
                trial = memory.tried(model, case, options.warm_up)
                if trial.failure:
                    raise CannotRun(trial.failure)  # noqa: TRY301
                runners[case] = model.runner(case)
                for _ in range(options.warm_up):
                    turn(runners[case], case, 0.0)
            except LeftOut as reason:
                rows[case].skipped = sentence(reason)
            except Exception as error:  # of the library that runs the model
                failed(case, error)
                runners.pop(case, None)
            else:
                rows[case].figures = {"memory_bytes": trial.bytes_}
                rows[case].ran = runners[case].ran
                rows[case].notes += runners[case].notes
                if trial.device != "host":
                    rows[case].notes.append(f"memory is that of {trial.device}")
            advance("timing")
        taken = in_turns(runners, options.seconds, options.rounds, failed, partial(advance, ""))
        judgements: dict[tuple[object, ...], dict[str, float] | CannotRun] = {}
        for case, row in rows.items():
            if case not in taken:
                row.figures = {}
                continue
            row.figures |= taken[case].figures()
            try:
                row.figures |= _energy(energy, runners[case], case, options)
                row.figures |= _usd(row.figures, options)
                if truth:
                    row.figures |= _judged(judgements, runners[case], case, truth, options.confidence)
            except Exception as error:  # of the library that runs the model; what was measured before stays
                failed(case, error)
            advance("")
    return list(rows.values())


def _energy(energy: Energy, runner: Runner, case: Case, options: argparse.Namespace) -> dict[str, float]:
    """Watts and joules while the case calls without a pause."""
    turns: list[Turn] = []
    watts = energy.watts(lambda: turns.append(turn(runner, case, options.energy_seconds)))
    if watts is None or not turns:
        return {}
    speed = len(turns[0].latencies) * case.batch / turns[0].seconds
    figures = {"watts": watts, "joules_per_inference": watts / speed}
    if watts:
        figures["inferences_per_second_per_watt"] = speed / watts
    return figures


def _usd(figures: dict[str, float], options: argparse.Namespace) -> dict[str, float]:
    """USD for 1,000 inferences, if the prices that were given can all be applied."""
    if options.usd_per_hour is None and options.usd_per_kwh is None:
        return {}
    if options.usd_per_kwh is not None and "watts" not in figures:
        return {}
    prices = CostModel(
        usd_per_hour=options.usd_per_hour or 0.0,
        usd_per_kwh=options.usd_per_kwh or 0.0,
        watts=figures.get("watts", 0.0),
    )
    return {"usd_per_1000": 1000 * prices.usd_per_second / figures["inferences_per_second"]}


def _judged(
    known: dict[tuple[object, ...], dict[str, float] | CannotRun],
    runner: Runner,
    case: Case,
    truth: Labelled,
    confidence: float,
) -> dict[str, float]:
    """How good the case is; cases that differ in batch, threads or streams are equally good."""
    key = case.model, case.provider, case.precision, case.shape
    if key not in known:
        runner.enter()
        try:
            known[key] = accuracy.judged(runner, truth, confidence)
        except CannotRun as reason:
            known[key] = reason
    if isinstance(judgement := known[key], CannotRun):
        raise judgement
    return judgement


def _compared(earlier: dict[str, Any], rows: list[Row], options: argparse.Namespace) -> int:
    """Print what changed; gives the number of regressions."""
    print(f"\nsince {options.compare}, of which more than {100 * options.threshold:g} % worse is a regression:")
    for name, before in earlier["settings"].items():
        if before != (now := getattr(options, name, None)):
            print(f"note: {name} was {before} and is {now}")
    worse = 0
    for change in compare.changes(earlier, rows, options.threshold):
        print(change.line)
        worse += change.worse
    return worse


def _require_places(options: argparse.Namespace) -> None:
    """`Mistake` if what will be measured could not be written."""
    for name in ("json", "csv", "markdown", "plot"):
        if path := getattr(options, name):
            folder = Path(path).parent
            if not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir():
                raise Mistake(f"--{name} {path} cannot be written: {folder} is no folder in which a file can be made")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise Mistake("--plot needs matplotlib, which is not installed: pip install matplotlib")
    if options.labelled and importlib.util.find_spec("PIL") is None:
        raise Mistake("--labelled needs pillow, which is not installed: pip install pillow")


def _write(rows: list[Row], facts: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the files that were asked for; `Mistake` if one cannot be written after all."""
    settings = {name: getattr(options, name) for name in SETTINGS}
    headline = ", ".join([facts["cpu"], f"{facts['cores']} cores", *(facts["gpus"] or ["no GPU"])])
    contents: dict[str, Callable[[], str | bytes]] = {
        "json": lambda: report.as_json(rows, facts, settings),
        "csv": lambda: report.as_csv(rows),
        "markdown": lambda: report.markdown(rows, facts),
        "plot": lambda: png(rows, report.tabled(rows), headline),
    }
    for name, content in contents.items():
        path = getattr(options, name)
        if path and (name != "plot" or any(row.figures for row in rows)):
            try:
                report.write(Path(path), content())
            except OSError as error:
                raise Mistake(f"--{name} {path} cannot be written: {sentence(error)}") from None


if __name__ == "__main__":
    sys.exit(main())
