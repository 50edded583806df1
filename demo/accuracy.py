"""How good detections are, measured against the truth: average precision, and counts of what was found and missed.

A detection and an object are paired when the intersection of their boxes is at least half of their union; each is
paired at most once, the surest detection choosing first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demo.centerface import overlap_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from demo.detector import Boxes
    from demo.scenes import Frame

OVERLAP = 0.5
"""Intersection over union from which a detection is of an object."""


@dataclass(frozen=True)
class Confusion:
    """Counts over any number of frames; add two to count both.

    `matched` detections are of an object, whatever class they say; `right` of those say its class.
    `missed` objects have no detection, `false` detections have no object.
    """

    matched: int = 0
    right: int = 0
    missed: int = 0
    false: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        """Return the sums of the counts."""
        return Confusion(
            self.matched + other.matched,
            self.right + other.right,
            self.missed + other.missed,
            self.false + other.false,
        )

    @property
    def accuracy(self) -> float:
        """Right ones over everything that was matched, missed or false, 0 to 1; NaN if there was nothing."""
        everything = self.matched + self.missed + self.false
        return self.right / everything if everything else float("nan")


def confusion(found: Boxes, frame: Frame, overlap: float = OVERLAP) -> Confusion:
    """Compare what was found in one frame with what is in it."""
    pairs = paired(found.boxes, found.confidences, frame.boxes, overlap)
    matched = pairs >= 0
    return Confusion(
        matched=int(matched.sum()),
        right=int((found.classes[matched] == frame.classes[pairs[matched]]).sum()),
        missed=len(frame.boxes) - int(matched.sum()),
        false=int((~matched).sum()),
    )


def mean_average_precision(found: Sequence[Boxes], frames: Sequence[Frame], overlap: float = OVERLAP) -> float:
    """Return the mean over classes of the average precision, 0 to 1, of what was found in each of the frames.

    Classes that are in none of the frames have no average precision and do not count; NaN if none is left.
    """
    present = sorted({int(kind) for frame in frames for kind in frame.classes})
    precisions = [average_precision(found, frames, kind, overlap) for kind in present]
    return float(np.mean(precisions)) if precisions else float("nan")


def average_precision(found: Sequence[Boxes], frames: Sequence[Frame], kind: int, overlap: float = OVERLAP) -> float:
    """Return the area under the curve of precision over recall of one class, 0 to 1; NaN if it is in no frame.

    All-point interpolation, as in PASCAL VOC from 2010 on: the precision at a recall is the best at that or any
    higher recall. What is found of other classes has no say, here, in what pairs with what.
    """
    confidences: list[npt.NDArray[np.float32]] = []
    right: list[npt.NDArray[np.bool_]] = []
    objects = 0
    for boxes, frame in zip(found, frames, strict=True):
        mine = boxes.classes == kind
        true = frame.boxes[frame.classes == kind]
        confidences.append(boxes.confidences[mine])
        right.append(paired(boxes.boxes[mine], boxes.confidences[mine], true, overlap) >= 0)
        objects += len(true)
    if not objects:
        return float("nan")

    order = np.argsort(-np.concatenate(confidences), kind="stable")
    hits = np.concatenate(right)[order]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / objects)  # each hit raises recall by one object


def paired(
    boxes: npt.NDArray[np.float32],
    confidences: npt.NDArray[np.float32],
    true: npt.NDArray[np.float32],
    overlap: float = OVERLAP,
) -> npt.NDArray[np.intp]:
    """Return, for each of the boxes (n, 4), the index of the true box (m, 4) it is paired with, -1 for none."""
    pairs = np.full(len(boxes), -1, dtype=np.intp)
    taken = np.zeros(len(true), dtype=np.bool_)
    if not len(true):
        return pairs
    for index in np.argsort(-confidences, kind="stable"):
        overlaps = np.where(taken, -1, overlap_of(boxes[index], true))
        best = int(overlaps.argmax())
        if overlaps[best] >= overlap:
            pairs[index] = best
            taken[best] = True
    return pairs
