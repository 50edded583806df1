"""The committed detector is as good by day as its report says, and less sure at night."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.accuracy import Confusion, confusion, mean_average_precision
from demo.detector import CLASSES, NETWORK, Boxes, Detector
from demo.scenes import DAY, NIGHT, SIDE, Camera, Frame
from demo.services import any_free_port
from demo.window import counts

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVED = ("object-detection", "scenes-s")
REPORT: dict[str, Any] = json.loads(NETWORK.with_suffix(".json").read_text(encoding="utf-8"))


def held_out(exposure: float) -> list[Frame]:
    """Return the scenes the report is about, in that light."""
    scenes = REPORT["held_out"]
    return list(islice(Camera(scenes["seed"], exposure=exposure).frames(), scenes["frames"]))


def detected(frames: list[Frame], threshold: float = 0.3) -> list[Boxes]:
    """Return what the committed network finds in each."""
    model = Detector(threshold=threshold)
    return [model.detect(frame.pixels) for frame in frames]


@pytest.fixture(scope="module")
def day() -> list[Frame]:
    """Render the held-out scenes by day once."""
    return held_out(DAY)


@pytest.fixture(scope="module")
def night() -> list[Frame]:
    """Render the same scenes at night once."""
    return held_out(NIGHT)


def test_it_is_as_good_by_day_as_reported(day: list[Frame]) -> None:
    """And good enough to be worth watching: mAP of 0.85 or more."""
    measured = mean_average_precision(detected(day, threshold=0.02), day)

    assert REPORT["held_out"]["day"]["map_50"] >= 0.85
    assert measured >= REPORT["held_out"]["day"]["map_50"] - 0.03


def test_at_night_it_is_less_sure_and_less_accurate(day: list[Frame], night: list[Frame]) -> None:
    """The same scenes, darker: confidence drops without anybody telling the truth, and accuracy with it."""
    by_day, by_night = detected(day), detected(night)

    sure = [float(np.concatenate([boxes.confidences for boxes in found]).mean()) for found in (by_day, by_night)]
    accuracy = [
        sum((confusion(*pair) for pair in zip(found, frames, strict=True)), Confusion()).accuracy
        for found, frames in ((by_day, day), (by_night, night))
    ]
    assert sum(len(boxes) for boxes in by_night) > 0
    assert sure[0] - sure[1] > 0.1
    assert accuracy[0] - accuracy[1] > 0.2


def test_what_it_returns_has_the_shapes_and_types_it_promises(day: list[Frame]) -> None:
    """Boxes inside the frame, the surest first, nothing below the threshold."""
    for found in detected(day[:40], threshold=0.4):
        n = len(found)
        assert found.boxes.shape == (n, 4)
        assert found.boxes.dtype == np.float32
        assert found.confidences.shape == (n,)
        assert found.confidences.dtype == np.float32
        assert found.classes.shape == (n,)
        assert found.classes.dtype == np.int64
        assert (found.boxes >= 0).all()
        assert (found.boxes <= SIDE).all()
        assert (found.confidences >= 0.4).all()
        assert (np.diff(found.confidences) <= 0).all()
        assert set(found.classes.tolist()) <= set(range(len(CLASSES)))


def test_a_black_frame_holds_nothing() -> None:
    """No objects give arrays of the usual shape."""
    found = Detector().detect(np.zeros((SIDE, SIDE, 3), dtype=np.uint8))

    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_the_network_is_small_and_says_nothing_of_where_it_was_made() -> None:
    """Under 2 MB, weights inside, and no paths of the machine it was trained on."""
    network = onnx.load(NETWORK, load_external_data=False)

    assert NETWORK.stat().st_size == REPORT["bytes"] < 2_000_000
    assert REPORT["parameters"] < 300_000
    assert tuple(REPORT["classes"]) == CLASSES
    assert not any(node.metadata_props for node in network.graph.node)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in network.graph.initializer)


def scraped(url: str) -> str:
    """Return the page, empty while the service does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            page: str = answer.read().decode()
    except urllib.error.URLError:
        return ""
    return page


PASSING = 3
"""Frames."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """What the service answered after 30 dark frames or more; at the end it is told to end."""
    port = any_free_port()
    flags = ["--port", str(port), "--rate", "100", "--seed", "4", "--night-after", "0"]
    command = [sys.executable, "-m", "demo.object_detection", *flags]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True) as service:
        try:
            deadline, page = time.monotonic() + 60, ""
            while counts(page)[SERVED]["inferences_total", 0.0] < 30:
                assert time.monotonic() < deadline, "30 inferences were not counted within 60 s"
                time.sleep(0.1)
                page = scraped(f"http://127.0.0.1:{port}/metrics")
            yield page
        finally:
            service.send_signal(signal.SIGTERM)
            _, errors = service.communicate(timeout=10)
    assert (service.returncode, errors) == (0, "")


@pytest.fixture(scope="module")
def seen(page: str) -> list[tuple[Boxes, Frame]]:
    """What is in the frames that the service had seen by then, and what the detector finds there."""
    frames = list(islice(Camera(4, exposure=NIGHT).frames(), int(value(page, "objects_per_frame_count"))))
    return list(zip(detected(frames), frames, strict=True))


def value(page: str, name: str, **labels: str) -> float:
    """The only sample of a name with these labels."""
    families = text_string_to_metric_families(page)
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def test_the_service_exports_what_was_in_the_frames(page: str, seen: list[tuple[Boxes, Frame]]) -> None:
    """After n inferences the objects counted are those the detector finds in the first n frames, which were dark."""
    assert value(page, "objects_per_frame_sum") == sum(len(found) for found, _ in seen)
    for number, name in enumerate(CLASSES):
        expected = sum(int((found.classes == number).sum()) for found, _ in seen)
        assert value(page, "detections_total", **{"class": name}) == expected


def test_the_service_is_judged_by_the_truth(page: str, seen: list[tuple[Boxes, Frame]]) -> None:
    """Its accuracy is that of the frames up to one of those that passed while the page was made, a hundred a second."""
    frames = list(islice(Camera(4, exposure=NIGHT).frames(), len(seen) + PASSING))
    judged = [confusion(*pair) for pair in zip(detected(frames), frames, strict=True)]
    possible = {sum(judged[:end], Confusion()).accuracy for end in range(len(seen) - PASSING, len(judged) + 1)}

    assert value(page, "model_accuracy_score") in possible


def test_the_service_tells_how_it_serves(page: str, seen: list[tuple[Boxes, Frame]]) -> None:
    """One load, three stages of every inference, a wait before each, and what the model runs on."""
    assert value(page, "model_load_seconds_count") == 1
    for stage in ("preprocess", "inference", "postprocess"):
        assert value(page, "inference_stage_duration_seconds_count", stage=stage) == len(seen)
    assert value(page, "model_queue_wait_seconds_count") >= len(seen)
    assert value(page, "model_queue_length") >= 0
    assert value(page, "model_info", device="cpu", provider="CPUExecutionProvider", format="onnx") == 1
    assert value(page, "model_memory_usage_bytes", device="cpu") == NETWORK.stat().st_size
