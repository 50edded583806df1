"""The real ultralytics keeps the contract."""

from __future__ import annotations

import copy
import functools
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.contract import Case, Contract
from tests.integrations.predictions import boxes_of, images, ultralytics

predictor: Any = pytest.importorskip("ultralytics.engine.predictor")
validator: Any = pytest.importorskip("ultralytics.engine.validator")
torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("default")  # theirs

CONFIDENCE = 0.00001  # of random weights
PICTURE, *PICTURES = images(3, 64)
MISSING = "no/such/folder/video.mp4"


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Three pictures in files: each is a batch, where a list of arrays is one."""
    cv2: Any = pytest.importorskip("cv2")
    made = tempfile.TemporaryDirectory()
    for index, image in enumerate((PICTURE, *PICTURES)):
        cv2.imwrite(str(Path(made.name, f"{index}.png")), image)
    return made


@functools.cache
def prototype() -> Any:
    """A small model, whose making takes longer than a prediction."""
    torch.manual_seed(0)
    model = ultralytics.YOLO("yolov8n.yaml")
    model.overrides |= {"imgsz": 64, "verbose": False, "device": "cpu", "max_det": 5, "conf": CONFIDENCE}
    return model


def predicted(model: Any, source: Any, **options: Any) -> list[Any]:
    """What a prediction gives, read to its end."""
    return list(model.predict(source, conf=CONFIDENCE, **options))


def several(model: Any) -> list[Any]:
    """Predictions that work, and one that has nothing to look at."""
    results = [*predicted(model, PICTURE), *predicted(model, PICTURES)]
    with pytest.raises(FileNotFoundError):
        model.predict(MISSING)
    return results


def failing(model: Any) -> list[Any]:
    """A stream in whose second step the model raises."""

    def raise_later(*_: Any) -> None:
        if model.predictor.seen:
            raise RuntimeError("the model is broken")

    handle = model.model.model[0].register_forward_pre_hook(raise_later)
    try:
        return predicted(model, folder().name, stream=True, batch=1)
    finally:
        handle.remove()


def raised_by_a_callback(model: Any) -> list[Any]:
    """A prediction of a model with a callback that raises."""

    def callback(_: Any) -> None:
        raise ValueError("the user's")

    model.add_callback("on_predict_batch_start", callback)
    return predicted(model, PICTURE)


class TestContract(Contract):
    """Every way to predict."""

    integration = "ultralytics"
    threaded = False  # a model has one predictor, whose results are overwritten
    cases = {
        "single": Case(lambda model: predicted(model, PICTURE)),
        "list": Case(lambda model: predicted(model, [PICTURE, *PICTURES]), inferences=3, stages=1),
        "called": Case(lambda model: model(PICTURE, conf=CONFIDENCE)),
        "folder": Case(lambda model: predicted(model, folder().name, batch=2), inferences=3, stages=1),
        "stream": Case(lambda model: predicted(model, folder().name, stream=True, batch=1), inferences=3, stages=1),
        "several": Case(several, inferences=4, failures=1, stages=3),
        "missing source": Case(lambda model: model.predict(MISSING), failures=1),
        "broken model": Case(failing, inferences=2, failures=1, stages=1),
        "broken callback": Case(raised_by_a_callback, failures=1),
    }
    if importlib.util.find_spec("lap") is not None:  # which the trackers of ultralytics need
        cases["track"] = Case(lambda model: [model.track(PICTURE, persist=True, conf=CONFIDENCE)[0]])

    def subject(self) -> Any:
        return copy.deepcopy(prototype())

    def shown(self, result: Any) -> Any:
        return [
            (type(one), boxes_of(one).data.numpy().tobytes(), one.names, one.orig_shape, one.path, sorted(one.speed))
            for one in result
        ]

    def patched(self) -> list[tuple[Any, str]]:
        return [
            (predictor.BasePredictor, "stream_inference"),
            (predictor.BasePredictor, "setup_model"),
            (validator.BaseValidator, "__call__"),
        ]
