"""The real ultralytics: names, threads, what it runs on, scores, failures of ours, and an ordinary script."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

import infermeter
from tests.integrations.predictions import check, dropped, images, samples, ultralytics, value, yolo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

import torch
from ultralytics.engine.predictor import BasePredictor
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.yolo.detect import DetectionPredictor

pytestmark = pytest.mark.filterwarnings("default")  # theirs


@pytest.fixture
def recorder() -> Iterator[infermeter.Recorder]:
    """A recorder of the test's own, which watches ultralytics."""
    recorder = infermeter.Recorder(service="test", registry=CollectorRegistry())
    recorder.instrument("ultralytics")
    yield recorder
    recorder.uninstrument()


def test_subclasses(recorder: infermeter.Recorder) -> None:
    """A model and a predictor of the user's are watched, also if a method is theirs and calls the original."""

    class Detector(ultralytics.YOLO):  # type: ignore[misc]
        def predict(self, *args: Any, **kwargs: Any) -> Any:
            return super().predict(*args, **kwargs)

    class Predictor(DetectionPredictor):  # type: ignore[misc]
        def stream_inference(self, *args: Any, **kwargs: Any) -> Any:
            yield from super().stream_inference(*args, **kwargs)

    model = yolo(kind=Detector)
    results = [*model.predict(images(2)), *model.predict(images(1), predictor=Predictor)]
    assert type(model.predictor) is Predictor
    check(recorder, "yolov8n", results)


def test_models_of_one_name_and_threads(recorder: infermeter.Recorder) -> None:
    """Models of one name add up, whatever threads they run in."""
    results: list[Any] = []

    def work() -> None:
        model = yolo()
        for _ in range(5):
            results.extend(model.predict(images(2)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    check(recorder, "yolov8n", results)


def test_one_model_in_several_threads(recorder: infermeter.Recorder) -> None:
    """A model that threads take turns with counts each image once."""
    model = yolo()
    results: list[Any] = [*model.predict(images(1))]

    def work() -> None:
        for _ in range(10):
            results.extend(model.predictor(images(1)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(recorder, "inferences_total") == len(results) == 31


def test_name_of_the_users(recorder: infermeter.Recorder) -> None:
    """`watch` names one model, also if it has predicted already; options say how its results are read."""
    model, other = yolo(), yolo()
    first = model.predict(images(1))
    recorder.watch(model, model="gate", version="3", names={index: f"thing {index}" for index in range(80)})
    second = model.predict(images(2))
    third = other.predict(images(1))
    assert value(recorder, "inferences_total", model="gate", version="3") == 2
    assert value(recorder, "inferences_total", model="yolov8n") == 2
    named = {key for key, number in samples(recorder, "detections_total", model="gate").items() if number}
    assert named == {("gate", f"thing {int(index)}") for result in second for index in result.boxes.cls}
    assert len(first) + len(third) == 2
    recorder.watch(other, model="best only", detections=lambda result: result.boxes.conf[:1])
    other.predict(images(3))
    assert value(recorder, "objects_per_frame_sum", model="best only") == 3


def test_what_a_model_runs_on(recorder: infermeter.Recorder) -> None:
    """The device and the format are told, and how long it took to get ready; not if the user times that."""
    model = yolo()
    model.predict(images(1))
    assert samples(recorder, "model_info") == {("yolov8n", "cpu", "pt", "torch"): 1}
    assert value(recorder, "model_load_seconds_count") == 1
    with recorder.load("all of it"):
        yolo().predict(images(1))
    assert samples(recorder, "model_load_seconds_count") == {("yolov8n",): 1, ("all of it",): 1}


def test_validation_tells_the_score(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """The score of `val` is the library's own; its images are no inferences."""
    cv2 = pytest.importorskip("cv2")
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for index, image in enumerate(images(2)):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)
        (tmp_path / "labels" / f"{index}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: {{0: thing}}\n")
    model = yolo()
    metrics = model.val(data=str(data), plots=False, workers=0, project=str(tmp_path))
    assert samples(recorder, "model_accuracy_score") == {("yolov8n",): metrics.box.map}
    assert value(recorder, "inferences_total") == 0


def test_validation_of_a_classifier(recorder: infermeter.Recorder, tmp_path: Path) -> None:
    """Its score is how often the first guess is right."""
    cv2 = pytest.importorskip("cv2")
    for index, image in enumerate(images(6)):
        folder = tmp_path / "val" / f"{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    (tmp_path / "train").symlink_to(tmp_path / "val")
    torch.manual_seed(0)
    model = yolo("yolov8n-cls.yaml")
    with torch.no_grad():
        model.model.model[-1].linear.bias[0] = 100.0  # so that it guesses the first class
    metrics = model.val(data=str(tmp_path), plots=False, workers=0, project=str(tmp_path))
    assert metrics.top1 == 0.5
    assert samples(recorder, "model_accuracy_score") == {("yolov8n-cls",): 0.5}


def test_broken_recorder_is_not_seen(recorder: infermeter.Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results come as ever, whatever fails on our side."""
    model = yolo()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    for name in ("track", "load", "model_info"):
        monkeypatch.setattr(recorder, name, broken)
    assert len(model.predict(images(2))) == 2
    monkeypatch.undo()
    monkeypatch.setattr("infermeter.integrations.ultralytics._report", broken)
    assert len(model.predict(images(2))) == 2
    monkeypatch.undo()
    assert value(recorder, "inferences_in_flight") == 0
    assert dropped(recorder)["internal",] > 0
    assert len(model.predict(images(1))) == 1


def test_undo(recorder: infermeter.Recorder) -> None:
    """Every attribute is the object that it was; a stream that runs goes on and is recorded."""
    recorder.uninstrument()
    originals = [vars(BasePredictor)["stream_inference"], vars(BasePredictor)["setup_model"]]
    originals.append(vars(BaseValidator)["__call__"])
    recorder.instrument("ultralytics")
    model = yolo()
    stream = model.predict(images(2), stream=True)
    results = [next(stream)]
    recorder.uninstrument()
    results += list(stream)
    found = [vars(BasePredictor)["stream_inference"], vars(BasePredictor)["setup_model"]]
    found.append(vars(BaseValidator)["__call__"])
    assert all(one is other for one, other in zip(found, originals, strict=True))
    model.predict(images(1))
    check(recorder, "yolov8n", results)


SCRIPT = """
from ultralytics import YOLO

model = YOLO("yolov8n.yaml")
seen = []
for result in model.predict(source=pictures, conf=0.00001, imgsz=64, stream=True):
    seen.append(result)
seen += model(pictures[0], conf=0.00001, imgsz=64)
try:
    model.predict("no-such-picture.jpg")
except FileNotFoundError:
    pass
"""
AROUND = """
import json
import numpy as np
from tests.integrations import torchvision_shim

torchvision_shim.offline()
torchvision_shim.mend()
import infermeter

infermeter.configure(service="script")
infermeter.instrument()
pictures = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(4)]
{script}
from prometheus_client import REGISTRY

names = ["inference_duration_sum", "inference_duration_count", "detection_confidence_sum", "objects_per_frame_sum",
         "objects_per_frame_count", "inferences_total"]
labels = dict(service="script", model="yolov8n", version="")
found = {{name: REGISTRY.get_sample_value(name, labels) for name in names}}
found["errors"] = REGISTRY.get_sample_value("model_errors_total", {{**labels, "error_type": "FileNotFoundError"}})
found["classes"] = {{
    sample.labels["class"]: sample.value
    for family in REGISTRY.collect()
    for sample in family.samples
    if sample.name == "detections_total"
}}
truth = {{
    "speeds": [sum(result.speed.values()) / 1000 for result in seen],
    "confidences": [float(one) for result in seen for one in result.boxes.conf],
    "classes": [result.names[int(one)] for result in seen for one in result.boxes.cls],
    "objects": [len(result.boxes) for result in seen],
}}
print(json.dumps([found, truth]))
"""


def test_script_that_knows_nothing_of_us() -> None:
    """An ordinary script is watched from outside, and what it sees is what is exposed."""
    program = AROUND.format(script=SCRIPT)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=300
    )
    found, truth = json.loads(done.stdout.splitlines()[-1])
    assert len(truth["speeds"]) == 5
    assert sum(truth["objects"]) > 0
    assert found["inferences_total"] == 6  # one of them failed, and took some time too
    assert found["errors"] == 1
    assert found["inference_duration_count"] == 6
    assert sum(truth["speeds"]) < found["inference_duration_sum"] < sum(truth["speeds"]) + 1
    assert found["objects_per_frame_count"] == 5
    assert found["objects_per_frame_sum"] == sum(truth["objects"])
    assert found["detection_confidence_sum"] == pytest.approx(sum(truth["confidences"]), rel=1e-9)
    assert {name: number for name, number in found["classes"].items() if number} == Counter(truth["classes"])
