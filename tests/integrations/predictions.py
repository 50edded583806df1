"""What the tests of ultralytics share: models of random weights, and whether all is exposed that their results say."""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.integrations import torchvision_shim

if TYPE_CHECKING:
    import infermeter

pytest.importorskip("torch", reason="make test-frameworks installs torch and ultralytics")
if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("make test-frameworks installs torch and ultralytics", allow_module_level=True)
torchvision_shim.offline()
torchvision_shim.mend()

import ultralytics as ultralytics  # noqa: E402, PLC0414  (offline; given on)

NOT_SHOWN = {"service", "version"}
STAGES = ("preprocess", "inference", "postprocess")


def images(number: int, size: int = 96) -> list[Any]:
    """Pictures of noise, the same ones each time."""
    noise = np.random.default_rng(0)
    return [noise.integers(0, 255, (size, size, 3), dtype=np.uint8) for _ in range(number)]


def yolo(description: str = "yolov8n.yaml", kind: type[Any] = ultralytics.YOLO) -> Any:
    """A model that asks for nothing, says nothing, and keeps every box."""
    model = kind(description)
    model.overrides |= {"imgsz": 64, "verbose": False, "device": "cpu", "max_det": 20}
    model.predict = functools.partial(model.predict, conf=0.00001)
    return model


def samples(recorder: infermeter.Recorder, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Samples of one name, by their model and then the values of what other labels they have, in alphabetical order."""
    return {
        tuple(
            sample.labels[label]
            for label in sorted({*sample.labels} - NOT_SHOWN, key=lambda one: (one != "model", one))
        ): sample.value
        for family in recorder.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def value(recorder: infermeter.Recorder, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have `labels`; 0 if there are none."""
    return sum(samples(recorder, name, **labels).values())


def dropped(recorder: infermeter.Recorder) -> dict[tuple[str, ...], float]:
    """What was dropped, by reason."""
    return {key: number for key, number in samples(recorder, "infermeter_observations_dropped_total").items() if number}


def boxes_of(result: Any) -> Any:
    """Boxes or oriented boxes; None of a classification."""
    return result.boxes if result.boxes is not None else result.obb


def check(recorder: infermeter.Recorder, model: str, results: list[Any]) -> None:
    """Everything that is exposed of a model is what its results say."""
    seconds = [sum(result.speed.values()) / 1000 for result in results]
    assert value(recorder, "inferences_total", model=model) == len(results)
    assert value(recorder, "inferences_in_flight", model=model) == 0
    assert value(recorder, "inference_duration_sum", model=model) == pytest.approx(sum(seconds), rel=1e-12)
    edges = {label: sum(s <= float(label) for s in seconds) for label in ("0.005", "0.01", "0.1", "+Inf")}
    found = samples(recorder, "inference_duration_bucket", model=model)
    assert {label: found[model, label] for label in edges if (model, label) in found}.items() <= edges.items()
    for stage in STAGES:
        told = value(recorder, "inference_stage_duration_seconds_sum", model=model, stage=stage)
        assert told == pytest.approx(sum(result.speed[stage] for result in results) / 1000, rel=1e-12)
    framed = [boxes_of(result) for result in results if boxes_of(result) is not None]
    assert value(recorder, "objects_per_frame_count", model=model) == len(framed)
    assert value(recorder, "objects_per_frame_sum", model=model) == sum(map(len, framed))
    confidences = [float(one) for boxes in framed for one in boxes.conf]
    assert value(recorder, "detection_confidence_count", model=model) == len(confidences)
    assert value(recorder, "detection_confidence_sum", model=model) == pytest.approx(sum(confidences), rel=1e-9)
    classes: Counter[tuple[str, ...]] = Counter()
    for result in results:
        boxes = boxes_of(result)
        classes.update((model, result.names[int(index)]) for index in (boxes.cls if boxes is not None else ()))
    told_classes = samples(recorder, "detections_total", model=model)
    assert {key: number for key, number in told_classes.items() if number} == classes
    assert dropped(recorder) == {}
