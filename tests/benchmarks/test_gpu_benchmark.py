"""`python -m benchmarks.gpu_benchmark` as somebody runs it, on the detector of the demo."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.gpu_benchmark import main
from benchmarks.models.machine import gpus

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = "demo/detector.onnx"
CPU = "CPUExecutionProvider"
QUICK = ("--providers", "cpu", "--seconds", "0.1", "--rounds", "2", "--warm-up", "1", "--threads", "1")


def report(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_combination_is_measured_and_written(bench: Callable[..., Any], tmp_path: Path) -> None:
    """A row for each in every format, with quantiles in order, speed, spread and memory; nothing else is left."""
    files = {name: tmp_path / f"figures.{name}" for name in ("json", "csv", "markdown")}
    ran = bench(
        DETECTOR, *QUICK, "--batch-sizes", "1,4", "--streams", "1,2", "--usd-per-hour", "3.6",
        *(word for name, path in files.items() for word in (f"--{name}", str(path))),
    )  # fmt: skip

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ("no GPU was found: everything runs on CPU" in ran.stdout) == (not gpus())
    assert "energy is not measured: --gpu-metrics names the page of a GPU exporter" in ran.stdout
    found = report(files["json"])
    assert set(found) == {"format", "machine", "settings", "rows"}
    knobs = [(row["case"]["batch"], row["case"]["streams"]) for row in found["rows"]]
    assert knobs == [(1, 1), (1, 2), (4, 1), (4, 2)]
    for row in found["rows"]:
        assert (row["case"]["shape"], row["ran"]) == ([3, 128, 128], CPU)
        figures = row["figures"]
        # On a machine that has much else to do there may be too few calls for the higher ones.
        quantiles = [figures[name] for name in ("p50_seconds", "p95_seconds", "p99_seconds") if name in figures]
        assert quantiles[0] == figures["p50_seconds"] > 0
        assert quantiles == sorted(quantiles)
        assert figures["spread_ratio"] >= 0
        assert 1e6 < figures["memory_bytes"] < 1e9
        assert figures["usd_per_1000"] == pytest.approx(1 / figures["inferences_per_second"])
        assert not {"watts", "joules_per_inference", "accuracy", "map_50"} & set(figures)
    with files["csv"].open() as lines:
        written = list(csv.DictReader(lines))
    assert [float(line["p50_seconds"]) for line in written] == [row["figures"]["p50_seconds"] for row in found["rows"]]
    assert {(line["watts"], line["shape"], line["threads"]) for line in written} == {("", "3x128x128", "1")}
    table = files["markdown"].read_text().splitlines()
    assert f"provider {CPU}, precision fp32, shape 3x128x128, threads 1" in table[0]
    assert table[2].startswith("| batch | streams | inferences/s | ± % | p50 ms |")
    assert len(table) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.csv", "figures.json", "figures.markdown"]


def test_the_machine_is_told_but_not_whose_it_is(tmp_path: Path) -> None:
    """Processor, cores and versions; no host name, no user, no path but what was typed."""
    written = tmp_path / "figures.json"

    assert main([DETECTOR, *QUICK, "--json", str(written)]) == 0

    facts = report(written)["machine"]
    assert set(facts) == {"cpu", "cores", "gpus", "system", "python", "libraries"}
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert "onnx" in facts["libraries"]
    text = written.read_text()
    assert [word for word in (os.uname().nodename, str(tmp_path), str(ROOT)) if word in text] == []


def test_a_precision_that_there_is_not_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told in one line, the others are measured, and that is no failure."""
    written = tmp_path / "figures.json"

    assert main([DETECTOR, *QUICK, "--precisions", "bf16,fp16,int8", "--json", str(written)]) == 0

    said = capsys.readouterr()
    reason = "bf16 is not among fp32, fp16, int8, int8-static"
    assert f"left out: {DETECTOR}: {reason} (1 case)" in said.out.splitlines()
    assert said.err == ""
    rows = report(written)["rows"]
    assert [row.get("skipped", "") for row in rows] == [reason, "", ""]
    assert ["figures" in row for row in rows] == [False, True, True]


def test_nothing_measured_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline that asks for what there is not must notice."""
    assert main([DETECTOR, *QUICK, "--precisions", "bf16"]) == 1
    assert capsys.readouterr().err == "gpu_benchmark: no case could be measured\n"


def test_a_case_that_fails_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its row says why, the others have figures, the exit code is 1: 100 pixels cannot be halved thrice."""
    written = tmp_path / "figures.json"

    assert main([DETECTOR, *QUICK, "--input-sizes", "100,64x96", "--json", str(written)]) == 1

    said = capsys.readouterr()
    assert said.err == "gpu_benchmark: 1 of 2 cases failed\n"
    assert f"FAILED: {DETECTOR} (provider {CPU}, precision fp32, batch 1, shape 3x100x100" in said.out
    assert f"note: {DETECTOR}: the file says ?x3x128x128 of its input, which was changed (1 case)" in said.out
    failed, other = report(written)["rows"]
    assert ("failed" in failed, "figures" in failed) == (True, False)
    assert ("failed" in other, other["figures"]["calls"] > 0, other["case"]["shape"]) == (False, True, [3, 64, 96])


def test_a_provider_that_is_not_installed_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody gets figures of the CPU who asked for another provider."""
    import onnxruntime

    known = onnxruntime.get_all_providers()
    absent = next(name for name in known if name not in onnxruntime.get_available_providers())

    assert main([DETECTOR, *QUICK, "--providers", f"{absent},cpu"]) == 1

    said = capsys.readouterr()
    assert f"{absent} is not in this onnxruntime, which has " in said.out
    assert said.err == "gpu_benchmark: 1 of 2 cases failed\n"


def test_a_provider_that_fell_back_is_told(tmp_path: Path) -> None:
    """onnxruntime runs on the CPU if CUDA cannot be loaded: the row says what really ran."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or gpus():
        pytest.skip("needs onnxruntime-gpu on a machine without a GPU")
    written = tmp_path / "figures.json"

    assert main([DETECTOR, *QUICK, "--providers", "cuda", "--json", str(written)]) == 0

    (row,) = report(written)["rows"]
    assert (row["case"]["provider"], row["ran"]) == ("CUDAExecutionProvider", CPU)
    assert row["notes"] == ["asked for CUDAExecutionProvider, onnxruntime fell back to CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.onnx"], "missing.onnx is no file"),
        (["README.md"], "README.md is no model: expected file.onnx, file.pt, name.yaml, or package.module:factory"),
        (["{folder}/broken.onnx"], "{folder}/broken.onnx is no ONNX file: "),
        (["{folder}/empty.onnx"], "{folder}/empty.onnx is no ONNX file: it has no input or no operator"),
        ([DETECTOR, "--providers", "npu"], "--providers: npu is no provider of onnxruntime; it has "),
        ([DETECTOR, "--rounds", "0"], "argument --rounds: '0' is no whole number of 1 or more"),
        ([DETECTOR, "--seconds", "0"], "argument --seconds: 0 seconds are too few"),
        ([DETECTOR, "--seconds", "nan"], "argument --seconds: 'nan' is no number of 0 or more"),
        ([DETECTOR, "--precisions", "fp8"], "argument --precisions: 'fp8' is not among fp32, "),
        ([DETECTOR, "--input-sizes", "big"], "argument --input-sizes: 'big' is no whole number of 1 or more"),
        ([DETECTOR, "--input-shape", "7", "--input-sizes", "64"], "--input-sizes: the input of demo/detector.onnx is"),
        (
            [DETECTOR, "--usd-per-kwh", "0.3"],
            "--usd-per-kwh needs --gpu-metrics, without which nobody knows the energy",
        ),
        ([DETECTOR, "--gpu-metrics", "localhost:9835"], "--gpu-metrics 'localhost:9835' is no address that begins"),
        (
            [DETECTOR, "--gpu-metrics", "http://127.0.0.1:9/"],
            "http://127.0.0.1:9/, the page of the GPU exporter, cannot ",
        ),
        ([DETECTOR, "--labelled", "{folder}"], "{folder}, the labelled folder, has no picture: expected class/"),
        ([DETECTOR, "--labelled", "{folder}/no"], "{folder}/no, the labelled folder, is no folder"),
        ([DETECTOR, "--json", "{folder}/no/figures.json"], "--json {folder}/no/figures.json cannot be written: "),
        (
            [DETECTOR, "--compare", "{folder}/broken.onnx"],
            "--compare: {folder}/broken.onnx is no file that --json wrote",
        ),
        ([], "the following arguments are required: MODEL"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 before anything is measured or written."""
    (tmp_path / "broken.onnx").write_bytes(b"this is no protobuf")
    (tmp_path / "empty.onnx").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    typed = [word.replace("{folder}", str(tmp_path)) for word in arguments]
    quick = QUICK if typed else ()

    try:
        code = main([*quick, *typed])
    except SystemExit as ended:
        code = int(ended.code or 0)

    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("gpu_benchmark: " + sentence.replace("{folder}", str(tmp_path)))
    assert said.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_open_shape_has_to_be_told(channels: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that takes any size is measured at the size that was asked for, never at one that was guessed."""
    assert main([channels, *QUICK]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"gpu_benchmark: {channels} leaves the shape of its input open (3x?x?): use --input-sizes or --input-shape\n"
    )

    assert main([channels, *QUICK, "--input-sizes", "8x16"]) == 0
    assert "shape" in capsys.readouterr().out


def test_an_interrupt_writes_nothing(tmp_path: Path) -> None:
    """Ctrl-C ends it with one sentence and code 130, and leaves no file."""
    written = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.gpu_benchmark", DETECTOR, "--seconds", "60", "--json", str(written)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as ran:  # fmt: skip
        assert ran.stdout is not None
        assert any("energy is not measured" in line for line in ran.stdout)
        time.sleep(1)
        ran.send_signal(signal.SIGINT)
        _, said = ran.communicate(timeout=60)

    assert (ran.returncode, said) == (130, "gpu_benchmark: interrupted, nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_there_is_a_progress_bar(tmp_path: Path) -> None:
    """It is drawn on standard error; the table is not disturbed."""
    if importlib.util.find_spec("rich") is None:
        pytest.skip("rich is not installed")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "benchmarks.gpu_benchmark", DETECTOR, *QUICK]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True) as ran:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end of a terminal was closed
            pass
        assert ran.stdout is not None
        table = ran.stdout.read()
    os.close(ours)

    assert ran.returncode == 0
    assert "0/4" in shown.decode()
    assert "timing" in shown.decode()
    assert "\x1b" not in table


def test_a_plot_is_a_picture(tmp_path: Path) -> None:
    """A PNG of more than an empty canvas."""
    if importlib.util.find_spec("matplotlib") is None:
        reason = "matplotlib is not installed"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from PIL import Image

    assert main([DETECTOR, *QUICK, "--batch-sizes", "1,2", "--plot", str(tmp_path / "figures.png")]) == 0

    with Image.open(tmp_path / "figures.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 100
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
