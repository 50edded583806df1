"""Modules of torch and models of ultralytics; skipped where these are not installed."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = ("--providers", "cpu", "--seconds", "0.1", "--rounds", "2", "--warm-up", "1")

MODULES = """
import os, signal, torch

def channels():
    return torch.nn.AdaptiveAvgPool2d(1)

def small():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))

class Killed(torch.nn.Module):
    def forward(self, batch):
        os.kill(os.getpid(), signal.SIGKILL)

class Large(torch.nn.Module):
    def forward(self, batch):
        return torch.ones(64 * 2**20)  # 256 MiB

def raises():
    raise ValueError("no weights here")

def nothing():
    return None
"""


@pytest.fixture(autouse=True)
def need_torch() -> None:
    """Everything here needs it."""
    need("torch")


@pytest.fixture
def nets(modules: Path) -> Path:
    """The folder of a module `nets`."""
    (modules / "nets.py").write_text(MODULES)
    return modules


def need(name: str) -> None:
    """Skip without a library."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def rows(path: Path) -> Any:
    return json.loads(path.read_text())["rows"]


def test_a_module_is_measured_in_its_precisions(bench: Callable[..., Any], nets: Path, tmp_path: Path) -> None:
    """Three of floating point, on one stream and two; int8 is left out."""
    written = tmp_path / "figures.json"
    knobs = ("--precisions", "fp32,fp16,bf16,int8", "--input-shape", "3,2,2", "--streams", "1,2", "--threads", "1")
    ran = bench("nets:small", *QUICK, *knobs, "--json", str(written), path=nets)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "left out: nets:small: int8 is not among fp32, fp16, bf16 (2 cases)" in ran.stdout
    found = rows(written)
    assert [row["case"]["precision"] for row in found if "figures" in row] == ["fp32"] * 2 + ["fp16"] * 2 + ["bf16"] * 2
    assert {row["ran"] for row in found if "figures" in row} == {"cpu"}


def test_a_module_is_judged(bench: Callable[..., Any], nets: Path, colours: Path, tmp_path: Path) -> None:
    """The brightest channel is the colour of six of eight pictures, whatever the precision."""
    written = tmp_path / "figures.json"
    knobs = ("--precisions", "fp32,bf16", "--input-shape", "3,4,4", "--labelled", str(colours))
    ran = bench("nets:channels", *QUICK, *knobs, "--json", str(written), path=nets)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert [row["figures"]["accuracy"] for row in rows(written)] == [0.75, 0.75]


def test_memory_is_that_of_the_case(bench: Callable[..., Any], nets: Path, tmp_path: Path) -> None:
    """256 MiB that a call needs for a moment are seen, and nothing of it by the case that comes after."""
    written = tmp_path / "figures.json"
    ran = bench("nets:Large", "nets:small", *QUICK, "--input-shape", "3,2,2", "--json", str(written), path=nets)

    assert (ran.returncode, ran.stderr) == (0, "")
    large, small = (row["figures"]["memory_bytes"] / 2**20 for row in rows(written))
    assert 256 <= large < 300
    assert small < 32


def test_a_model_that_kills_its_process_leaves_the_others(bench: Callable[..., Any], nets: Path) -> None:
    """As the kernel does when memory runs out: the row says so, and the other model is measured."""
    ran = bench("nets:Killed", "nets:small", *QUICK, "--input-shape", "3,2,2", path=nets)

    assert (ran.returncode, ran.stderr) == (1, "gpu_benchmark: 1 of 2 cases failed\n")
    assert "FAILED: nets:Killed (" in ran.stdout
    assert "the process that tried it was ended by SIGKILL" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nets:raises", "--input-shape", "3"], "nets:raises makes no module: ValueError: no weights here"),
        (["nets:nothing", "--input-shape", "3"], "nets:nothing gives NoneType, expected a torch.nn.Module"),
        (["nets:absent", "--input-shape", "3"], "nets:absent makes no module: AttributeError: module 'nets' has no "),
        (["nowhere:net", "--input-shape", "3"], "nowhere:net makes no module: ModuleNotFoundError: No module named "),
        (["nets:small"], "nets:small is a torch module: say with --input-shape what one item looks like"),
        (["nets:small", "--input-shape", "3", "--providers", "abacus"], "--providers: abacus is no device of torch, "),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str, bench: Callable[..., Any], nets: Path) -> None:
    """Exit code 2, no traceback."""
    ran = bench(*arguments, path=nets)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"gpu_benchmark: {sentence}")
    assert ran.stderr.count("\n") == 1


def test_a_model_of_ultralytics_is_measured(bench: Callable[..., Any], modules: Path, tmp_path: Path) -> None:
    """`predict` of random weights, in batches and on two streams; half precision, not there on CPU, is left out."""
    need("ultralytics")
    written = tmp_path / "figures.json"
    knobs = ("--input-sizes", "64", "--batch-sizes", "1,2", "--streams", "1,2", "--precisions", "fp32,fp16")
    ran = bench("yolov8n.yaml", *QUICK, *knobs, "--json", str(written), path=modules)

    assert ran.returncode == 0, ran.stderr
    reason = "on CPU ultralytics runs fp32, whatever it is asked for"
    assert f"left out: yolov8n.yaml: {reason} (4 cases)" in ran.stdout
    found = [row for row in rows(written) if "figures" in row]
    assert [(row["case"]["batch"], row["case"]["streams"]) for row in found] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {(tuple(row["case"]["shape"]), row["ran"]) for row in found} == {((3, 64, 64), "cpu")}


def test_a_classifier_of_ultralytics_is_judged(
    bench: Callable[..., Any], modules: Path, colours: Path, tmp_path: Path
) -> None:
    """By folders whose names are indices of its classes; a detector is told that classes are not its labels."""
    need("ultralytics")
    written = tmp_path / "figures.json"
    for number, folder in enumerate(sorted(colours.iterdir())):
        folder.rename(colours / str(number))
    models = ("yolov8n-cls.yaml", "yolov8n.yaml")
    ran = bench(
        *models, *QUICK, "--input-sizes", "64", "--labelled", str(colours), "--json", str(written), path=modules
    )

    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, "gpu_benchmark: 1 of 2 cases failed")
    classifier, detector = rows(written)
    assert 0 <= classifier["figures"]["accuracy"] <= 1
    assert "failed" not in classifier
    assert detector["failed"] == "the labels are classes, and the task of the model is detect"


def test_no_checkpoint_is_downloaded(bench: Callable[..., Any], modules: Path) -> None:
    """A file that is missing is a mistake, not a reason to ask the network."""
    need("ultralytics")
    ran = bench("yolov8n.pt", *QUICK, path=modules)

    assert (ran.returncode, ran.stderr) == (2, "gpu_benchmark: yolov8n.pt is no file\n")
