"""Which kind of model a name on the command line means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.models.cases import Mistake
from benchmarks.models.onnx_models import OnnxModel
from benchmarks.models.torch_models import TorchModel
from benchmarks.models.ultralytics_models import UltralyticsModel

if TYPE_CHECKING:
    import argparse

    from benchmarks.models.cases import Model

KINDS: tuple[tuple[str, type[OnnxModel | TorchModel | UltralyticsModel]], ...] = (
    (r".+\.onnx", OnnxModel),
    (r".+\.(pt|yaml|yml)", UltralyticsModel),
    (r"[\w.]+:\w+", TorchModel),
)


def opened(name: str, options: argparse.Namespace) -> Model:
    """The model that is called so.

    Raises:
        Mistake: it is of no kind, cannot be loaded, or what runs it is not installed.
    """
    for pattern, kind in KINDS:
        if re.fullmatch(pattern, name):
            try:
                return kind(name, options)
            except ModuleNotFoundError as error:
                raise Mistake(f"{name} needs {error.name}, which is not installed") from None
    raise Mistake(f"{name} is no model: expected file.onnx, file.pt, name.yaml, or package.module:factory")
