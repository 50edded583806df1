"""Pictures and labels of a folder, and pictures as models want them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.models.cases import CannotRun, Mistake
from demo.scenes import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
COLOURS = 3
FIELDS = 5
"""Of a line of labels: class, then middle, width and height as shares of the picture."""


@dataclass(frozen=True)
class Labelled:
    """Pictures and the truth about them: of classifiers `names` and `classes`, of detectors `frames`.

    `names` are the subfolders, sorted; `classes` is the index of each picture's. `frames` hold no pixels.
    """

    pictures: tuple[Path, ...]
    names: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()
    frames: tuple[Frame, ...] = ()


def labelled(folder: Path) -> Labelled:
    """Read `folder/class/picture.png`, or `folder/images/picture.png` with `folder/labels/picture.txt`.

    A line of labels is `class x y width height`, where x and y are the middle of the box and all four are shares of the
    picture, as YOLO writes them. A picture without such a file has no object.

    Raises:
        Mistake: no such folder, no picture in it, or labels that cannot be read.
    """
    if not folder.is_dir():
        raise Mistake(f"{folder}, the labelled folder, is no folder")
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        pictures = _pictures(folder / "images")
        frames = tuple(_frame(picture, folder / "labels" / f"{picture.stem}.txt") for picture in pictures)
        found = Labelled(pictures, frames=frames)
    else:
        of = {each.name: _pictures(each) for each in sorted(folder.iterdir()) if each.is_dir()}
        of = {name: inside for name, inside in of.items() if inside}
        classes = tuple(index for index, inside in enumerate(of.values()) for _ in inside)
        found = Labelled(tuple(picture for inside in of.values() for picture in inside), tuple(of), classes)
    if not found.pictures:
        layouts = "class/picture.png or images/picture.png and labels/picture.txt"
        raise Mistake(f"{folder}, the labelled folder, has no picture: expected {layouts}")
    return found


def tensor(
    picture: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, mean: Sequence[float], deviation: Sequence[float]
) -> npt.NDArray[Any]:
    """A picture resized to the shape of one item, (channels, height, width) or (height, width, channels).

    Whole numbers stay 0 to 255; otherwise 0 to 1, less the mean and by the deviation of each channel. The sides are
    scaled each by itself: nothing is cut off and nothing is padded.

    Raises:
        CannotRun: the shape is none of a picture.
    """
    from PIL import Image  # noqa: PLC0415 - only those who have labelled pictures need it

    first, height, width = layout(shape)
    channels = shape[0] if first else shape[-1]
    with Image.open(picture) as opened:
        resized = opened.convert("RGB" if channels == COLOURS else "L").resize(
            (width, height), Image.Resampling.BILINEAR
        )
        values = np.asarray(resized).reshape(height, width, channels)
    if np.issubdtype(np.dtype(dtype), np.floating):
        values = ((values / 255 - np.asarray(mean)) / np.asarray(deviation)).astype(dtype)
    else:
        values = values.astype(dtype)
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if first else values


def layout(shape: tuple[int, ...]) -> tuple[bool, int, int]:
    """Whether the channels come first, the height and the width of a picture of that shape.

    Raises:
        CannotRun: it is none.
    """
    if len(shape) == 3 and shape[0] in {1, COLOURS}:  # noqa: PLR2004 - channels and two sides
        return True, shape[1], shape[2]
    if len(shape) == 3 and shape[-1] in {1, COLOURS}:  # noqa: PLR2004
        return False, shape[0], shape[1]
    raise CannotRun(f"{'x'.join(map(str, shape))} is not the shape of a picture")


def _pictures(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS))


def _frame(picture: Path, labels: Path) -> Frame:
    """The truth about a picture, in its pixels."""
    from PIL import Image  # noqa: PLC0415

    with Image.open(picture) as opened:
        width, height = opened.size
    rows = []
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines() if labels.exists() else (), 1):
        fields = line.split()
        try:
            row = [float(text) for text in fields]
        except ValueError:
            row = []
        if fields and len(row) != FIELDS:
            raise Mistake(f"{labels}, line {number} is {line!r}, expected: class x y width height")
        rows += [row] if fields else []
    values = np.array(rows, dtype=np.float64).reshape(-1, FIELDS)
    middles, halves = values[:, 1:3], values[:, 3:] / 2
    boxes = np.concatenate([middles - halves, middles + halves], axis=1) * [width, height, width, height]
    return Frame(np.empty((0, 0, 3), dtype=np.uint8), boxes.astype(np.float32), values[:, 0].astype(np.int64))
