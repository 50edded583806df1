"""Accuracy and average precision, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import pytest

from demo.accuracy import Confusion, average_precision, confusion, mean_average_precision, paired
from demo.detector import Boxes
from demo.scenes import Frame

Box: TypeAlias = tuple[float, float, float, float]

A, B, C, D = ((x, 0.0, x + 10.0, 10.0) for x in (0.0, 20.0, 40.0, 60.0))
"""Four squares, far apart."""


def truth(*objects: tuple[Box, int]) -> Frame:
    """Return a black frame with these objects in it."""
    return Frame(
        np.zeros((128, 128, 3), dtype=np.uint8),
        np.array([box for box, _ in objects], dtype=np.float32).reshape(-1, 4),
        np.array([kind for _, kind in objects], dtype=np.int64),
    )


def found(*detections: tuple[Box, float, int]) -> Boxes:
    """Return detections as a detector does."""
    return Boxes(
        np.array([box for box, _, _ in detections], dtype=np.float32).reshape(-1, 4),
        np.array([confidence for _, confidence, _ in detections], dtype=np.float32),
        np.array([kind for _, _, kind in detections], dtype=np.int64),
    )


def test_average_precision_is_the_area_under_the_best_precision_from_each_recall_on() -> None:
    """Hits and misses by falling confidence: hit, miss, hit, hit, of 4 objects.

    Precision at the hits: 1/1, 2/3, 3/4. At recall 2/4 the best from there on is 3/4. Area: (1 + 3/4 + 3/4) / 4.
    """
    detections = found((A, 0.9, 0), ((100, 0, 110, 10), 0.8, 0), (B, 0.7, 0), (C, 0.6, 0))
    frame = truth((A, 0), (B, 0), (C, 0), (D, 0))

    assert average_precision([detections], [frame], kind=0) == pytest.approx(0.625)


def test_confidences_rank_across_frames() -> None:
    """A sure miss in one frame comes before the less sure hit of another: precision 1/2 at recall 1."""
    detections = [found((B, 0.9, 0)), found((A, 0.5, 0))]

    assert average_precision(detections, [truth(), truth((A, 0))], kind=0) == pytest.approx(0.5)


def test_an_object_found_twice_counts_once() -> None:
    """The second, less sure detection is false: hit, miss, hit of 2 objects, (1 + 2/3) / 2."""
    detections = found((A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0))

    assert average_precision([detections], [truth((A, 0), (B, 0))], kind=0) == pytest.approx(5 / 6)


def test_the_mean_is_over_the_classes_that_are_there() -> None:
    """Class 0 is found (1), class 2 is not (0), classes 1 and 3 are in no frame and do not count."""
    detections = [found((A, 0.9, 0), (C, 0.9, 1))]

    assert mean_average_precision(detections, [truth((A, 0), (B, 2))]) == pytest.approx(0.5)


def test_without_objects_there_is_no_average_precision() -> None:
    """Not a number, rather than a perfect or a bad one."""
    assert math.isnan(average_precision([found((A, 0.9, 0))], [truth()], kind=0))
    assert math.isnan(mean_average_precision([found((A, 0.9, 0))], [truth()]))
    assert math.isnan(mean_average_precision([], []))


def test_without_detections_it_is_zero() -> None:
    """Nothing found of what is there."""
    assert mean_average_precision([found()], [truth((A, 0))]) == 0


@pytest.mark.parametrize(("shift", "hit"), [(3.3, True), (3.4, False)])
def test_half_an_overlap_is_enough(shift: float, hit: bool) -> None:  # noqa: FBT001
    """A square of 10 moved by s shares (10 - s) of (10 + s): one half at s = 10/3."""
    boxes = np.array([[shift, 0, 10 + shift, 10]], dtype=np.float32)

    assert paired(boxes, np.ones(1, np.float32), np.array([A], np.float32)).tolist() == [0 if hit else -1]


def test_the_surest_chooses_first_and_each_object_is_taken_once() -> None:
    """The less sure one, though a better fit, gets the second-best object or none."""
    true = np.array([A, (4, 0, 14, 10)], dtype=np.float32)
    boxes = np.array([A, (1, 0, 11, 10), A], dtype=np.float32)

    assert paired(boxes, np.array([0.5, 0.9, 0.4], dtype=np.float32), true[:1]).tolist() == [-1, 0, -1]
    assert paired(boxes[1:2], np.array([0.9], dtype=np.float32), true).tolist() == [0]


def test_confusion_tells_matched_right_missed_and_false() -> None:
    """A as what it is, B as something else, C not at all, and one where nothing is: 1 right of 4."""
    frame = truth((A, 0), (B, 1), (C, 2))
    counts = confusion(found((A, 0.9, 0), (B, 0.8, 3), (D, 0.7, 0)), frame)

    assert counts == Confusion(matched=2, right=1, missed=1, false=1)
    assert counts.accuracy == 0.25


def test_confusions_of_frames_add_up() -> None:
    """Frames weigh as much as there is in them."""
    counts = confusion(found((A, 0.9, 0)), truth((A, 0))) + confusion(found((A, 0.9, 0)), truth())

    assert counts == Confusion(matched=1, right=1, missed=0, false=1)
    assert counts.accuracy == 0.5


def test_nothing_to_find_and_nothing_found_is_no_accuracy() -> None:
    """An empty frame seen as empty adds nothing."""
    counts = confusion(found(), truth())

    assert counts == Confusion()
    assert math.isnan(counts.accuracy)
