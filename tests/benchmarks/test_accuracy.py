"""How good a model is on labelled pictures, where the right answer is known."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.gpu_benchmark import main
from benchmarks.models import boxes
from benchmarks.models.accuracy import indices, judged
from benchmarks.models.cases import CannotRun, Mistake
from benchmarks.models.labelled_scenes import SEED, write_scenes
from benchmarks.models.pictures import Labelled, labelled, tensor
from demo.accuracy import Confusion, confusion, mean_average_precision
from demo.detector import Boxes, Detector
from demo.scenes import Camera

if TYPE_CHECKING:
    from collections.abc import Mapping

DETECTOR = "demo/detector.onnx"
QUICK = ("--providers", "cpu", "--seconds", "0.05", "--rounds", "1", "--warm-up", "1", "--threads", "1")
SCENES = 12


def rows(path: Path) -> Any:
    return json.loads(path.read_text())["rows"]


def test_a_classifier_is_judged_by_its_right_answers(channels: str, colours: Path, tmp_path: Path) -> None:
    """Six of eight pictures show the colour of their folder; batches of three leave two in the last."""
    written = tmp_path / "figures.json"
    sizes = ("--input-sizes", "4x6", "--batch-sizes", "1,3")

    assert main([channels, *QUICK, *sizes, "--labelled", str(colours), "--json", str(written)]) == 0

    assert [row["figures"]["accuracy"] for row in rows(written)] == [0.75, 0.75]


def test_a_detector_is_judged_as_the_demo_judges_it(tmp_path: Path) -> None:
    """The same average precision, precision and recall as the demo's own detector and measure on the same scenes."""
    write_scenes(tmp_path / "scenes", SCENES)
    written = tmp_path / "figures.json"
    arguments = ["--labelled", str(tmp_path / "scenes"), "--confidence", "0.3", "--json", str(written)]

    assert main([DETECTOR, *QUICK, "--batch-sizes", "1,5", *arguments]) == 0

    frames = list(islice(Camera(SEED).frames(), SCENES))
    ranked, reporting = Detector(threshold=boxes.LEAST), Detector(threshold=0.3)
    found = [ranked.detect(frame.pixels) for frame in frames]
    counts = sum((confusion(reporting.detect(frame.pixels), frame) for frame in frames), Confusion())
    expected = {
        "map_50": mean_average_precision(found, frames),
        "precision": counts.right / (counts.matched + counts.false),
        "recall": counts.right / (counts.matched + counts.missed),
    }
    assert expected["map_50"] > 0.9
    for row in rows(written):
        assert {name: row["figures"][name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_a_static_quantisation_is_made_of_labelled_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without pictures it is left out; with some the quantised detector still finds the objects."""
    assert main([DETECTOR, *QUICK, "--precisions", "fp32,int8-static"]) == 0
    said = capsys.readouterr().out
    assert f"left out: {DETECTOR}: int8-static takes its ranges from pictures: give --labelled (1 case)" in said

    write_scenes(tmp_path / "scenes", SCENES)
    written = tmp_path / "figures.json"
    arguments = ["--precisions", "int8-static", "--labelled", str(tmp_path / "scenes"), "--json", str(written)]
    assert main([DETECTOR, *QUICK, *arguments]) == 0
    (row,) = rows(written)
    assert row["figures"]["map_50"] > 0.9


def test_labels_of_another_kind_are_a_failure_that_keeps_the_figures(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A detector has no accuracy on classes: that is said, the exit code is 1, and what was timed stays."""
    written = tmp_path / "figures.json"

    assert main([DETECTOR, *QUICK, "--labelled", str(colours), "--json", str(written)]) == 1

    assert "its first output, of shape 1x4x32x32" in capsys.readouterr().out
    (row,) = rows(written)
    assert ("accuracy" in row["figures"], row["figures"]["calls"] > 0) == (False, True)


def test_folders_are_the_classes_of_their_names_or_numbers_or_order() -> None:
    """In this order; a name that the model does not know is refused."""
    assert indices(("cat", "dog"), {0: "dog", 1: "cat"}) == [1, 0]
    assert indices(("10", "2"), {}) == [10, 2]
    assert indices(("2", "10"), {2: "two", 10: "ten"}) == [2, 10]
    assert indices(("cat", "dog"), {}) == [0, 1]
    with pytest.raises(CannotRun, match="no class 'cow'"):
        indices(("cow",), {0: "dog"})


def test_labels_are_shares_of_the_picture(tmp_path: Path) -> None:
    """Half and a quarter of a picture of 200 by 100; a picture without labels has no object."""
    from PIL import Image

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (200, 100)).save(tmp_path / "images" / name)
    (tmp_path / "labels" / "a.txt").write_text("2 0.5 0.5 0.25 0.25\n\n")

    truth = labelled(tmp_path)

    assert [picture.name for picture in truth.pictures] == ["a.png", "b.jpg"]
    assert [frame.boxes.tolist() for frame in truth.frames] == [[[75, 37.5, 125, 62.5]], []]
    assert [frame.classes.tolist() for frame in truth.frames] == [[2], []]

    (tmp_path / "labels" / "b.txt").write_text("cat 0.5 0.5 0.25 0.25\n")
    with pytest.raises(Mistake, match=r"b\.txt, line 1 is 'cat .*', expected: class x y width height"):
        labelled(tmp_path)


def test_a_picture_becomes_what_the_model_takes(tmp_path: Path) -> None:
    """Channels first or last, 0 to 1 less the mean and by the deviation, or whole numbers of 0 to 255."""
    from PIL import Image

    Image.new("RGB", (4, 2), (255, 51, 0)).save(tmp_path / "a.png")

    first = tensor(tmp_path / "a.png", (3, 2, 4), np.float32, [0.5, 0.2, 0.0], [0.5, 1.0, 1.0])
    assert first.shape == (3, 2, 4)
    assert first[:, 0, 0].tolist() == [1, 0, 0]
    last = tensor(tmp_path / "a.png", (2, 4, 3), np.uint8, [0.0], [1.0])
    assert (last.shape, last[1, 3].tolist()) == ((2, 4, 3), [255, 51, 0])
    with pytest.raises(CannotRun, match="7x7 is not the shape of a picture"):
        tensor(tmp_path / "a.png", (7, 7), np.float32, [0.0], [1.0])


def test_places_of_yolo_become_boxes() -> None:
    """Middle, width and height to corners inside the picture; the unsure go, and of two on one object the less sure."""
    output = np.zeros((1, 6, 7), dtype=np.float32)
    output[0, :, 0] = 20, 20, 20, 20, 0.1, 0.75
    output[0, :, 1] = 21, 20, 20, 20, 0.5, 0.1  # nearly the same box
    output[0, :, 2] = 60, 4, 10, 20, 0.9, 0.0  # half outside
    output[0, :, 3] = 40, 40, 5, 5, 0.01, 0.01

    (found,) = boxes.objects({"output0": output}, (64, 64))

    assert found.boxes.tolist() == [[55, 0, 64, 14], [10, 10, 30, 30]]
    assert found.confidences.tolist() == pytest.approx([0.9, 0.75])
    assert found.classes.tolist() == [0, 1]
    larger = boxes.scaled(found, 2, 0.5)
    assert larger.boxes.tolist() == [[110, 0, 128, 7], [20, 5, 60, 15]]


def test_outputs_of_no_known_detector_are_refused() -> None:
    """Better no figure than one of boxes that are none."""
    with pytest.raises(CannotRun, match="its outputs, logits of shape 1x10, are not of a detector that is known"):
        boxes.objects({"logits": np.zeros((1, 10))}, (64, 64))


def test_a_detector_that_finds_nothing_has_no_precision() -> None:
    """Nothing of nothing is right: absent, not 0; its recall is 0."""
    nothing = Boxes(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))

    class Blind:
        names: Mapping[int, str] = MappingProxyType({})

        def detect(self, pictures: Any) -> list[Boxes]:
            return [nothing for _ in pictures]

    frame = next(frame for frame in Camera(SEED).frames() if len(frame.boxes))
    runner: Any = Blind()
    assert judged(runner, Labelled((), frames=(frame,)[:0]), 0.25) == {}
    found = judged(runner, Labelled((Path("a.png"),), frames=(frame,)), 0.25)
    assert found == {"map_50": 0, "recall": 0}
