"""Real `supervision.Detections`."""

import numpy as np
import pytest

import infermeter

supervision = pytest.importorskip("supervision", reason="make test-frameworks installs supervision")


def test_supervision_detections_are_known(recorder: infermeter.Recorder) -> None:
    """`auto` reads confidences, and class names where they are given."""

    @recorder.track(model="m", detections="auto")
    def detect(frame: object) -> object:
        return supervision.Detections(
            xyxy=np.zeros((2, 4)),
            confidence=np.array([0.5, 0.75]),
            class_id=np.array([0, 2]),
            data={"class_name": np.array(["person", "car"])},
        )

    detect(None)
    recorder.fold()
    totals = next(iter(recorder.series.values())).totals
    assert totals.histogram("detection_confidence").total == 1.25
    assert totals.value("detections_total", "person") == 1
    assert totals.value("detections_total", "car") == 1


def test_empty_supervision_detections_are_an_empty_frame(recorder: infermeter.Recorder) -> None:
    """A frame without detections has no confidence array at all, and still counts."""
    recorder.track(model="m", detections="auto")(lambda _: supervision.Detections.empty())(None)
    recorder.fold()
    totals = next(iter(recorder.series.values())).totals
    assert totals.histogram("objects_per_frame").cumulative.tolist()[0] == 1
