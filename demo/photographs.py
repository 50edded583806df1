"""Frames for a vision service, cut from six public-domain and CC0 photographs, with the truth about each frame.

The photographs are files inside the scikit-image wheel, so nothing is downloaded. Two show a person (the astronaut
Eileen Collins, and a cameraman in profile), four show nobody. A frame is what a video wall would show: one, two or
four views side by side, each a random part of a photograph, at a random size, mirrored or not, in better or worse
light. A view of a person always contains the whole face, so the number of faces in a frame is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import skimage.data
import skimage.transform

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Pixels: TypeAlias = npt.NDArray[np.uint8]

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

FACES: dict[str, Box] = {"astronaut": (180, 58, 269, 178), "camera": (202, 117, 257, 195)}
"""Photographs of one person, and where the face is, from hair line to chin, in the photograph of 512 x 512."""

WITHOUT_FACES = ("chelsea", "clock", "coffee", "rocket")
"""Photographs of nobody: a cat, a clock on a wall, a cup and a launch."""

LAYOUTS = ((1, 1, 160), (1, 1, 320), (1, 2, 160), (2, 2, 160))
"""Rows and columns of views, and the side of each in pixels: frames of 160 x 160 to 320 x 320."""

ZOOMS = (1.05, 1.5, 2.0)
"""The photograph's shorter side over the side of the view: from nearly the whole picture to a quarter of it."""

LIGHT = (0.4, 1.3)
"""Brightness is multiplied by something in this range: from dusk to overexposed."""


@dataclass(frozen=True)
class Frame:
    """One RGB picture, uint8 of shape (height, width, 3), and the boxes of all faces in it, in pixels."""

    pixels: Pixels
    faces: tuple[Box, ...]


def frames(seed: int = 0) -> Iterator[Frame]:
    """Yield frames without end; the same seed gives the same frames."""
    random = np.random.default_rng(seed)
    while True:
        rows, columns, side = LAYOUTS[random.integers(len(LAYOUTS))]
        pixels = np.empty((rows * side, columns * side, 3), dtype=np.uint8)
        faces: list[Box] = []
        for row in range(rows):
            for column in range(columns):
                top, left = row * side, column * side
                view = _view(random, side)
                pixels[top : top + side, left : left + side] = view.pixels
                faces += [(x1 + left, y1 + top, x2 + left, y2 + top) for x1, y1, x2, y2 in view.faces]
        yield Frame(pixels, tuple(faces))


def photograph(name: str) -> Pixels:
    """Return one of the photographs as RGB, uint8 of shape (height, width, 3)."""
    pixels: Pixels = getattr(skimage.data, name)()
    return np.repeat(pixels[:, :, np.newaxis], 3, axis=2) if pixels.ndim == 2 else pixels  # noqa: PLR2004


def _view(random: np.random.Generator, side: int) -> Frame:
    """Return a square part of a photograph; every second one, on average, shows a face."""
    names = tuple(FACES) if random.random() < 0.5 else WITHOUT_FACES  # noqa: PLR2004
    name = names[random.integers(len(names))]
    whole, scale = _scaled(name, round(side * ZOOMS[random.integers(len(ZOOMS))]))
    height, width = whole.shape[:2]

    # The view may begin anywhere in the picture, but not after the face begins nor so early that it cuts it off.
    # Where there is no face, one that begins at the far corner and ends at the near one asks for nothing.
    x1, y1, x2, y2 = (edge * scale for edge in FACES[name]) if name in FACES else (width, height, 0, 0)
    left = int(random.integers(max(0, int(x2 - side + 1)), min(width - side, int(x1)) + 1))
    top = int(random.integers(max(0, int(y2 - side + 1)), min(height - side, int(y1)) + 1))
    light = random.uniform(*LIGHT)
    pixels = (whole[top : top + side, left : left + side] * light).clip(0, 255).astype(np.uint8)
    face = (x1 - left, y1 - top, x2 - left, y2 - top)
    if random.random() < 0.5:  # noqa: PLR2004
        pixels = pixels[:, ::-1]
        face = (side - face[2], face[1], side - face[0], face[3])
    return Frame(pixels, (face,) if name in FACES else ())


@cache  # 36 pictures of at most 2 MB; scaling takes longer than finding a face
def _scaled(name: str, shorter: int) -> tuple[Pixels, float]:
    """Return the photograph with its shorter side scaled to that many pixels, and the factor applied."""
    whole = photograph(name)
    scale = shorter / min(whole.shape[:2])
    shape = [round(length * scale) for length in whole.shape[:2]]
    scaled = skimage.transform.resize(  # type: ignore[no-untyped-call]
        whole, shape, order=1, anti_aliasing=scale < 1, preserve_range=True
    )
    return scaled.astype(np.uint8), scale
