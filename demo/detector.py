"""A detector of the objects in `demo.scenes`, small enough to live in the repository, run on one CPU thread.

`train_detector.py` makes `detector.onnx`. Like CenterFace it looks at the picture in cells of 4 x 4 pixels; for a
batch of n pictures, float32 RGB of 0 to 1, shape (n, 3, 128, 128), it answers three maps over those cells:

* heat, (n, 4, 32, 32): how sure it is, 0 to 1, that the middle of an object of each class lies in the cell;
* size, (n, 2, 32, 32): natural logarithm of the object's width and height, counted in cells;
* shift, (n, 2, 32, 32): how far right and down of the upper left corner of the cell the middle is, in cells.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demo.centerface import without_overlaps
from demo.scenes import CLASSES, SIDE

# From 1.29 on, onnxruntime reports to its maker unless told otherwise before it is imported, and leaves files behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CELL", "CLASSES", "NETWORK", "Boxes", "Detector", "as_input"]

NETWORK = Path(__file__).with_name("detector.onnx")

CELL = 4
"""Pixels along one side of a cell of the maps."""


@dataclass(frozen=True)
class Boxes:
    """The objects found in one frame, the surest first.

    `boxes` is float32 of shape (n, 4): left, top, right, bottom in pixels, inside the frame.
    `confidences` is float32 of shape (n,), 0 to 1. `classes` is int64 of shape (n,), indices into `CLASSES`.
    """

    boxes: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self.confidences)


class Detector:
    """The network, ready to run.

    `threshold`: an object is reported from this confidence (0 to 1) upward.
    `overlap`: two boxes that share more than this part of their union (0 to 1) are one object, whatever their classes;
    the surer one stays.
    """

    def __init__(self, threshold: float = 0.3, overlap: float = 0.6, network: Path = NETWORK) -> None:
        """Load the network."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
        self.threshold = threshold
        self.overlap = overlap

    def detect(self, frame: npt.NDArray[np.uint8]) -> Boxes:
        """Find the objects in an RGB frame, uint8 of shape (128, 128, 3)."""
        return self.boxes(self.maps(as_input(frame)))

    def maps(self, pictures: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Return heat, size and shift of pictures as `as_input` makes them."""
        maps: list[npt.NDArray[np.float32]] = self._session.run(["heat", "size", "shift"], {"pictures": pictures})
        return maps

    def boxes(self, maps: list[npt.NDArray[np.float32]]) -> Boxes:
        """Return the objects that the maps of one picture show."""
        heat, size, shift = (each[0] for each in maps)
        kinds, rows, columns = np.nonzero(_peaks(heat) & (heat >= self.threshold))
        confidences = heat[kinds, rows, columns]
        middles = (np.stack([columns, rows]) + shift[:, rows, columns]) * CELL
        halves = np.exp(size[:, rows, columns]) * CELL / 2
        boxes = np.concatenate([middles - halves, middles + halves]).T.clip(0, SIDE).astype(np.float32)

        kept = without_overlaps(boxes, confidences, self.overlap)
        return Boxes(boxes[kept], confidences[kept], kinds[kept].astype(np.int64))

    @property
    def provider(self) -> str:
        """What runs the network, which may be another than was asked for."""
        provider: str = self._session.get_providers()[0]
        return provider


def as_input(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the frame as the network wants it: float32 0 to 1, shape (1, 3, 128, 128)."""
    return np.ascontiguousarray(frame.transpose(2, 0, 1)[np.newaxis], dtype=np.float32) / np.float32(255)


def _peaks(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return where a map (classes, rows, columns) is at least as high as in the eight cells around."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    peaks: npt.NDArray[np.bool_] = heat >= around.max(axis=(3, 4))
    return peaks
