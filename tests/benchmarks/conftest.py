"""What the tests of the model benchmark need; without it they skip, and say so, but in CI they fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("onnx", "onnxruntime", "PIL") if importlib.util.find_spec(name) is None]
SECONDS = 240
"""Nothing here takes a tenth of that; a benchmark that hangs fails the test."""

Ran = subprocess.CompletedProcess[str]

# A torchvision from PyPI beside a torch without CUDA has none of its operators, and cannot even be imported; none of
# them is needed to time a network that finds nothing.
TORCHVISION = """
import importlib.util
if importlib.util.find_spec("torchvision"):
    import torch
    try:
        import torchvision
    except RuntimeError:
        import sys
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.operators_of_torchvision = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            sys.operators_of_torchvision.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.extension
        torchvision.extension._has_ops = lambda: True
"""


class NotInstalled(pytest.Module):
    """A file of tests that cannot be imported."""

    def collect(self) -> Iterator[pytest.Item]:
        """Skip, or in CI fail, naming what is missing."""
        reason = f"what benchmarks.gpu_benchmark needs is not installed: {', '.join(MISSING)}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Replace every file of this folder when packages are missing."""
    return NotInstalled.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Ran]:
    """Runs `python -m benchmarks.gpu_benchmark` to its end; `tmp_path` is where its temporary files are."""

    def run(*arguments: str, path: Path | None = None) -> Ran:
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_benchmark", *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder for modules of a test's own, in which torchvision can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TORCHVISION)
    return folder


@pytest.fixture
def channels(tmp_path: Path) -> str:
    """An ONNX file of a classifier: the class of a picture is the channel that is brightest on average."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [helper.make_node("GlobalAveragePool", ["picture"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, "height", "width"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "channels.onnx"))
    return str(tmp_path / "channels.onnx")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Eight pictures in folders of their class: blue, green, red; two of the red ones are of other colours."""
    from PIL import Image

    folder = tmp_path / "colours"
    for name, shown in (("0-red", "RRGB"), ("1-green", "GG"), ("2-blue", "BB")):
        (folder / name).mkdir(parents=True)
        for number, colour in enumerate(shown):
            pixels = np.full((6, 10, 3), 20, dtype=np.uint8)
            pixels[..., "RGB".index(colour)] = 200
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
