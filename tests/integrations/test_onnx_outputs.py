"""Detections in the outputs of the real onnxruntime: of models that say what their outputs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.integrations.onnx_models import FLOAT, INT64, passed_through, session, values
from tests.page import Page

if TYPE_CHECKING:
    import infermeter


@pytest.fixture
def watching(recorder: infermeter.Recorder) -> infermeter.Recorder:
    """A recorder that watches onnxruntime."""
    recorder.instrument("onnxruntime")
    return recorder


BOXES = passed_through(
    ("x", "boxes", FLOAT, ("n", 4)),
    ("s", "scores", FLOAT, ("n",)),
    ("l", "labels", INT64, ("n",)),
    metadata={"names": "{0: 'person', 2: 'car'}"},
)
PADDED = passed_through(
    ("x", "detection_boxes", FLOAT, ("b", "n", 4)),
    ("s", "detection_scores", FLOAT, ("b", "n")),
    ("c", "num_detections", INT64, ("b",)),
)
YOLO = {"task": "detect", "names": "{0: 'person', 1: 'dog'}", "end2end": "True"}
ROWS = passed_through(("x", "output0", FLOAT, ("b", "n", 6)), metadata=YOLO)


def test_boxes_scores_and_labels_are_detections(watching: infermeter.Recorder) -> None:
    """Of models that name their outputs, with the class names that they carry."""
    scores = np.array([0.5, 0.75, 0.25], dtype=np.float32)
    feed = {"x": np.zeros((3, 4), dtype=np.float32), "s": scores, "l": np.array([0, 2, 2])}
    one = session(BOXES)
    one.run(None, feed)
    one.run(["labels", "scores", "boxes"], feed)  # in any order
    one.run(["boxes"], feed)  # nothing to read
    binding = one.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for name in ("boxes", "scores", "labels"):
        binding.bind_output(name)
    one.run_with_iobinding(binding)
    one.run_with_ort_values(["scores", "labels"], values(feed))
    page = Page.of(watching)
    assert page.by("class", "detections_total") == {"person": 4, "car": 8}
    assert page.value("detection_confidence_count") == 12
    assert page.value("detection_confidence_sum") == 1.5 * 4
    assert page.value("objects_per_frame_count") == 4
    assert page.value("objects_per_frame_sum") == 12
    assert page.dropped() == {}


def test_padding_is_no_detection(watching: infermeter.Recorder) -> None:
    """Of a batch each image is a frame, with as many objects as the model says."""
    scores = np.array([[0.5, 0.75, 0.0], [0.25, 0.125, 0.5]], dtype=np.float32)
    session(PADDED).run(None, {"x": np.zeros((2, 3, 4), dtype=np.float32), "s": scores, "c": np.array([2, 1])})
    page = Page.of(watching)
    assert page.value("objects_per_frame_count") == 2
    assert page.value("objects_per_frame_sum") == 3
    assert page.value("detection_confidence_sum") == 1.5


def test_rows_of_a_yolo_export(watching: infermeter.Recorder) -> None:
    """x1, y1, x2, y2, confidence, class: of an export that suppresses inside, above what its own library keeps."""
    rows = np.array([[[0, 0, 1, 1, 0.5, 1], [0, 0, 1, 1, 0.25, 1], [0, 0, 1, 1, 0.75, 0]]], dtype=np.float32)
    session(ROWS).run(None, {"x": rows})
    page = Page.of(watching)
    assert page.by("class", "detections_total") == {"dog": 1, "person": 1}
    assert page.value("objects_per_frame_sum") == 2


def test_outputs_that_could_mean_anything_are_not_guessed(watching: infermeter.Recorder) -> None:
    """One output of six columns is no detection unless the model says so."""
    session(passed_through(("x", "output0", FLOAT, ("b", "n", 6)))).run(
        None, {"x": np.ones((1, 2, 6), dtype=np.float32)}
    )
    page = Page.of(watching)
    assert page.value("inferences_total") == 1
    assert "objects_per_frame_count" not in page.names


@pytest.mark.parametrize("names", ["[", "7", "{'a': 1}", "(" * 500, "['x'"])
def test_names_that_are_none(watching: infermeter.Recorder, names: str) -> None:
    """Metadata is text of a stranger: what is no list of names leaves the index."""
    feed = {"x": np.array([[[0, 0, 1, 1, 0.5, 1]]], dtype=np.float32)}
    content = passed_through(("x", "output0", FLOAT, ("b", "n", 6)), metadata={"task": "detect", "names": names})
    session(content).run(None, feed)
    assert Page.of(watching).by("class", "detections_total") == {"1": 1}
