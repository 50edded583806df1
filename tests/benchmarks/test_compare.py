"""What changed since an earlier run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.gpu_benchmark import main
from benchmarks.models.cases import Case, Mistake
from benchmarks.models.compare import changes, read, require_same_machine
from benchmarks.models.report import Row, as_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DETECTOR = "demo/detector.onnx"
QUICK = ("--providers", "cpu", "--seconds", "0.1", "--rounds", "2", "--warm-up", "1", "--threads", "1")
CASE = Case("model", "cpu", "fp32", 1, (3, 8, 8), 0, 1)
NAME = "model (provider cpu, precision fp32, batch 1, shape 3x8x8, threads library's, streams 1)"
MACHINE = {"cpu": "Z80", "cores": 1, "gpus": ["A10"], "python": "3.11", "libraries": {}}


def earlier(*rows: Row) -> Any:
    """What was written of these rows."""
    return json.loads(as_json(rows, MACHINE, {}))


@pytest.mark.parametrize(
    ("figure", "before", "now", "mark", "worse"),
    [
        ("inferences_per_second", 100.0, 89.0, "WORSE", True),
        ("inferences_per_second", 100.0, 91.0, "same", False),
        ("inferences_per_second", 100.0, 150.0, "better", False),
        ("p95_seconds", 0.1, 0.12, "WORSE", True),
        ("p95_seconds", 0.1, 0.05, "better", False),
        ("joules_per_inference", 1.0, 1.2, "WORSE", True),
        ("accuracy", 0.9, 0.7, "WORSE", True),
        ("accuracy", 0.0, 0.0, "same", False),
        ("map_50", 0.9, 0.7, "WORSE", True),
        ("memory_bytes", 100.0, 200.0, "changed", False),
    ],
)
def test_a_figure_that_is_worse_beyond_the_threshold_is_a_regression(
    figure: str, before: float, now: float, mark: str, *, worse: bool
) -> None:
    """In its own direction; memory is told and judged by nobody."""
    (change,) = changes(earlier(Row(CASE, figures={figure: before})), [Row(CASE, figures={figure: now})], 0.1)
    assert (change.line.split(":")[0], change.worse) == (mark, worse)
    assert f"{NAME}: {figure} {before:g} -> {now:g}" in change.line


def test_what_is_gone_or_lost_is_named() -> None:
    """A case that was not measured, one that fails now, and a figure that is not known any more are regressions."""
    other = Case("model", "cpu", "fp32", 8, (3, 8, 8), 0, 1)
    before = earlier(Row(CASE, figures={"p95_seconds": 1.0}), Row(other, figures={"p95_seconds": 1.0}))

    found = list(changes(before, [Row(CASE, failed="no memory")], 0.1))

    assert [change.worse for change in found] == [True, True]
    assert found[0].line == f"lost: {NAME}: no memory"
    assert found[1].line.startswith("gone: model (provider cpu, precision fp32, batch 8")
    (lost,) = changes(earlier(Row(CASE, figures={"accuracy": 1.0})), [Row(CASE, figures={"calls": 1})], 0.1)
    assert (lost.line, lost.worse) == (f"lost: {NAME}: accuracy is not known this time", True)
    (new,) = changes(earlier(), [Row(CASE, figures={"calls": 1})], 0.1)
    assert (new.line, new.worse) == (f"new: {NAME}", False)


def test_another_machine_is_refused() -> None:
    """Processor, cores and GPUs have to be the same; versions may differ, that is what is compared."""
    require_same_machine(earlier(), {**MACHINE, "python": "3.14"})
    with pytest.raises(Mistake, match=r"another machine \(Z80, 1 cores, A10; this is Z80, 2 cores, A10\)"):
        require_same_machine(earlier(), {**MACHINE, "cores": 2})


def test_another_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not guessed at."""
    (tmp_path / "figures.json").write_text('{"format": 2}')
    with pytest.raises(Mistake, match="is of format 2, expected 1"):
        read(tmp_path / "figures.json")


def _slower(row: Any) -> None:
    row["figures"]["inferences_per_second"] /= 1000
    row["figures"]["p95_seconds"] *= 1000


def _faster(row: Any) -> None:
    row["figures"]["inferences_per_second"] *= 1000
    row["figures"]["p95_seconds"] *= 1000


@pytest.mark.parametrize(("change", "code", "mark"), [(_slower, 0, "better: "), (_faster, 1, "WORSE: ")])
def test_a_regression_is_exit_code_1(
    change: Callable[[Any], None], code: int, mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence that says how many; a run that became better is a success."""
    written = tmp_path / "figures.json"
    assert main([DETECTOR, *QUICK, "--json", str(written)]) == 0
    before = json.loads(written.read_text())
    for row in before["rows"]:
        change(row)
    written.write_text(json.dumps(before))
    capsys.readouterr()

    # Only a change of a thousand times counts here.
    assert main([DETECTOR, *QUICK, "--warm-up", "2", "--compare", str(written), "--threshold", "90%"]) == code

    said = capsys.readouterr()
    assert f"{mark}{DETECTOR} (provider CPUExecutionProvider" in said.out
    assert "note: warm_up was 1 and is 2" in said.out
    assert said.err == (f"gpu_benchmark: 1 figure is worse than in {written}\n" if code else "")


def test_a_machine_of_another_kind_is_compared_when_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused with code 2 otherwise, before anything is measured."""
    written = tmp_path / "figures.json"
    case = Case(DETECTOR, "CPUExecutionProvider", "fp32", 1, (3, 128, 128), 1, 1)
    written.write_text(as_json([Row(case, figures={"calls": 1})], MACHINE, {}))

    assert main([DETECTOR, *QUICK, "--compare", str(written)]) == 2
    assert capsys.readouterr().err.startswith("gpu_benchmark: --compare: that was another machine (Z80, 1 cores, A10;")
    assert main([DETECTOR, *QUICK, "--compare", str(written), "--any-machine"]) == 0
