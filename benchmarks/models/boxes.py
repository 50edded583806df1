"""What the outputs of a network say: classes, or boxes of objects.

Two kinds of detectors are understood: maps named `heat`, `size` and `shift` over the cells of a picture, as those of
`demo.detector`, and one output of shape (n, 4 + classes, places) as ultralytics exports YOLO: middle, width and height
in pixels of the input, then a confidence for each class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models.cases import CannotRun
from demo.centerface import without_overlaps
from demo.detector import Boxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from benchmarks.models.cases import Size

LEAST = 0.02
"""Confidence from which an object counts for the average precision: the curve needs the unsure ones too."""
OVERLAP = 0.6
"""Two boxes that share more than this part of their union are one object."""
MAPS = {"heat", "size", "shift"}

Outputs = dict[str, Any]
"""Arrays whose first axis is the batch, by name."""


def classes(outputs: Mapping[str, npt.NDArray[Any]]) -> list[int]:
    """The class with the highest score of each item.

    Raises:
        CannotRun: the first output is not one score for each class.
    """
    scores = next(iter(outputs.values()))
    scores = scores.reshape(*scores.shape[:2], -1)  # some networks keep two axes of 1 from their last pooling
    if scores.ndim != 3 or scores.shape[2] != 1 or scores.shape[1] < 2:  # noqa: PLR2004
        raise CannotRun(f"its first output, of shape {_shape(outputs)}, is not one score for each class")
    return [int(index) for index in scores[:, :, 0].argmax(axis=1)]


def objects(outputs: Mapping[str, npt.NDArray[Any]], size: Size) -> list[Boxes]:
    """The objects of each item, in pixels of the input, the surest first.

    Raises:
        CannotRun: outputs of neither kind.
    """
    if set(outputs) >= MAPS:
        items = zip(outputs["heat"], outputs["size"], outputs["shift"], strict=True)
        return [_of_maps(heat, extent, shift, size) for heat, extent, shift in items]
    first = next(iter(outputs.values()))
    if len(outputs) == 1 and first.ndim == 3 and first.shape[1] > 4 and first.shape[2] > first.shape[1]:  # noqa: PLR2004
        return [_of_places(item, size) for item in first]
    raise CannotRun(
        f"its outputs, {', '.join(outputs)} of shape {_shape(outputs)}, are not of a detector that is known"
    )


def scaled(found: Boxes, across: float, along: float) -> Boxes:
    """The same objects in a picture of another size."""
    sides = np.array([across, along, across, along], dtype=np.float32)
    return Boxes(found.boxes * sides, found.confidences, found.classes)


def _of_maps(
    heat: npt.NDArray[np.float32], size: npt.NDArray[np.float32], shift: npt.NDArray[np.float32], picture: Size
) -> Boxes:
    """The peaks of the heat: a cell that is at least as hot as the eight around it."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).max(axis=(3, 4))
    kinds, rows, columns = np.nonzero((heat >= around) & (heat >= LEAST))
    cell = np.array([[picture[1] / heat.shape[2]], [picture[0] / heat.shape[1]]])
    middles = (np.stack([columns, rows]) + shift[:, rows, columns]) * cell
    halves = np.exp(size[:, rows, columns]) * cell / 2
    return _kept(np.concatenate([middles - halves, middles + halves]).T, heat[kinds, rows, columns], kinds, picture)


def _of_places(item: npt.NDArray[np.float32], picture: Size) -> Boxes:
    """The places whose surest class is sure enough."""
    scores = item[4:].max(axis=0)
    sure = scores >= LEAST
    middles, halves = item[:2, sure], item[2:4, sure] / 2
    corners = np.concatenate([middles - halves, middles + halves]).T
    return _kept(corners, scores[sure], item[4:, sure].argmax(axis=0), picture)


def _kept(
    corners: npt.NDArray[Any], confidences: npt.NDArray[Any], kinds: npt.NDArray[np.intp], picture: Size
) -> Boxes:
    height, width = picture
    inside = corners.clip(0, [width, height, width, height]).astype(np.float32)
    kept = without_overlaps(inside, confidences, OVERLAP)
    return Boxes(inside[kept], confidences[kept].astype(np.float32), kinds[kept].astype(np.int64))


def _shape(outputs: Mapping[str, npt.NDArray[Any]]) -> str:
    return ", ".join("x".join(map(str, array.shape)) for array in outputs.values())
