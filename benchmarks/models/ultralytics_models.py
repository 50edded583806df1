"""Checkpoints and YAML files of ultralytics: a call is `predict`, with all that it does around the network."""

from __future__ import annotations

import importlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models.boxes import LEAST
from benchmarks.models.cases import CannotRun, LeftOut, Mistake, sentence
from benchmarks.models.torch_models import cuda_memory, device, require, threads
from demo.detector import Boxes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.models.cases import Case, Size

SIDE = 640
"""Pixels of the sides, where nothing else is asked for, as in ultralytics itself."""


class UltralyticsModel:
    """A `.pt` file, or a `.yaml` of which the weights are random. `Mistake` if ultralytics cannot load it.

    Nothing is downloaded or installed.
    """

    libraries: tuple[str, ...] = ("ultralytics", "ultralytics-opencv-headless", "torch", "torchvision", "numpy")
    modules: tuple[str, ...] = ("ultralytics", "torch")
    precisions: tuple[str, ...] = ("fp32", "fp16")

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self._options = options
        os.environ.update({"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})
        os.environ.setdefault("YOLO_CONFIG_DIR", options.folder)  # or it writes to the home of whoever runs this
        if not name.endswith((".yaml", ".yml")) and not Path(name).is_file():  # a bare name may be one of its own
            raise Mistake(f"{name} is no file")
        importlib.import_module("ultralytics")
        try:
            self._yolo()
        except Exception as error:  # of the library
            raise Mistake(f"ultralytics cannot load {name}: {sentence(error)}") from None

    def provider(self, asked: str) -> str:
        """The device of torch that is called so."""
        return device(asked)

    def shape(self, size: Size | None) -> tuple[int, ...]:
        """Three channels, and the sides that were asked for, or 640."""
        return (3, *(size or (SIDE, SIDE)))

    def prepare(self, case: Case, folder: Path) -> None:  # noqa: ARG002
        """Nothing is written; `CannotRun` without the device, `LeftOut` for what it does not do there."""
        require(case.provider)
        if case.precision == "fp16" and case.provider == "cpu":
            raise LeftOut("on CPU ultralytics runs fp32, whatever it is asked for")

    def runner(self, case: Case) -> UltralyticsRunner:
        """A model for each stream: one is not safe to share between threads."""
        return UltralyticsRunner([self._yolo() for _ in range(case.streams)], case, self._options)

    def _yolo(self) -> Any:
        importlib.import_module("torch").manual_seed(0)  # the same weights, if they are random, in every case
        return importlib.import_module("ultralytics").YOLO(self.name)


class UltralyticsRunner:
    """Models that predict from noise."""

    def __init__(self, models: Sequence[Any], case: Case, options: argparse.Namespace) -> None:
        shape = (case.batch, *case.shape[1:], 3)
        images = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        fixed: dict[str, Any] = {"imgsz": list(case.shape[1:]), "device": case.provider, "verbose": False}
        if case.precision == "fp16":
            known = importlib.import_module("ultralytics.cfg").DEFAULT_CFG_DICT
            fixed |= {"quantize": 16} if "quantize" in known else {"half": True}
        self._predicts = [partial(model.predict, **fixed) for model in models]
        # A threshold stays with the model until another is given.
        self.calls: Sequence[Callable[[], object]] = [
            partial(predict, images, conf=options.confidence) for predict in self._predicts
        ]
        self.enter = threads(case)
        self.calls[0]()
        predictor = models[0].predictor
        self.ran, self._place = str(predictor.device), predictor.device
        self.notes: tuple[str, ...] = ()
        self.names: Mapping[int, str] = dict(models[0].names)
        self._task: str = models[0].task
        weights = next(predictor.model.parameters(), None)
        if case.precision == "fp16" and weights is not None and "float16" not in str(weights.dtype):
            raise CannotRun(f"ultralytics was asked for fp16 and took {weights.dtype}")

    def device_memory(self) -> int | None:
        """What torch allocated at most, on CUDA."""
        return cuda_memory(self._place)

    def classify(self, pictures: Sequence[Path]) -> list[int]:
        """The class of each picture."""
        self._require("classify", "classes")
        return [int(self._predicts[0](str(path), conf=LEAST)[0].probs.top1) for path in pictures]

    def detect(self, pictures: Sequence[Path]) -> list[Boxes]:
        """The objects in each picture, in its own pixels."""
        self._require("detect", "boxes")
        found = [self._predicts[0](str(path), conf=LEAST)[0].boxes for path in pictures]
        return [
            Boxes(
                each.xyxy.float().cpu().numpy(),
                each.conf.float().cpu().numpy(),
                each.cls.cpu().numpy().astype(np.int64),
            )
            for each in found
        ]

    def _require(self, task: str, labels: str) -> None:
        if self._task != task:
            raise CannotRun(f"the labels are {labels}, and the task of the model is {self._task}")
