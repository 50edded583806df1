"""Synthetic scenes of a street, and the camera that looks at them: every frame comes with the truth about it.

A scene is a sky, houses and a road with clutter on it, and up to eight objects of four classes that stand on the road:
the nearer the lower and the larger, so that they hide parts of each other. The camera then does what cameras do: it
exposes, adds noise and rounds. What the scenes show depends on the seed alone, not on the state of the camera, so that
day and night can be compared on the same scenes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from demo.silhouettes import BICYCLE, CAR, CRATE, LAMP, PERSON, SIGN, TREE, paint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from demo.silhouettes import Canvas, Colour

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

CLASSES = ("car", "person", "bicycle", "sign")
"""A class is the index of its name."""

SIDE = 128
"""Pixels along each side of a frame."""

MOST = 8
"""Objects in one scene, at most."""

DAY, NIGHT = 1.0, 0.15
"""Exposures: at night white is 38 of 255."""

SILHOUETTES = (CAR, PERSON, BICYCLE, SIGN)
HEIGHTS = (34.0, 54.0, 34.0, 48.0)
"""What a class looks like, and its height in pixels in the foreground; far away it is half of that."""

VISIBLE = 0.5
"""Objects stand so that at least this part of the box of each stays free of the boxes in front of it."""


@dataclass(frozen=True)
class Frame:
    """One RGB picture and the truth about it.

    `pixels` is uint8 of shape (128, 128, 3). `boxes` is float32 of shape (n, 4): left, top, right, bottom of the whole
    object, also where something hides it, in pixels inside the frame. `classes` is int64 of shape (n,).
    """

    pixels: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


@dataclass
class Camera:
    """A camera whose conditions may be changed while it runs; the same seed gives the same scenes.

    `exposure` multiplies the light: `DAY` is 1, `NIGHT` 0.15, more than 1 is overexposed.
    `noise` is the standard deviation of what the sensor adds to every value, in grey levels of 255.
    `absent` names classes that no longer appear; the rest of each scene stays as it is.
    """

    seed: int = 0
    exposure: float = DAY
    noise: float = 4.0
    absent: frozenset[str] = frozenset()
    number: int = field(default=0, init=False)
    """The scene that comes next."""

    def frames(self) -> Iterator[Frame]:
        """Yield frames without end, each in the conditions that hold when it is taken."""
        while True:
            yield self.frame()

    def frame(self) -> Frame:
        """Take the next frame; `ValueError` if `absent` names what is no class."""
        if unknown := self.absent.difference(CLASSES):
            raise ValueError(f"absent: {', '.join(sorted(unknown))} is not among {', '.join(CLASSES)}")
        light, boxes, classes = scene(np.random.default_rng((self.seed, self.number, 0)), self.absent)
        sensor = np.random.default_rng((self.seed, self.number, 1))  # its own, so that noise never changes a scene
        self.number += 1
        values = light * np.float32(255 * self.exposure)
        values += sensor.standard_normal(light.shape, dtype=np.float32) * np.float32(self.noise)
        return Frame(values.round().clip(0, 255).astype(np.uint8), boxes, classes)


def scene(
    random: np.random.Generator, absent: frozenset[str] = frozenset()
) -> tuple[Canvas, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the light of a scene, float32 (128, 128, 3) of 0 to 1, and its boxes (n, 4) and classes (n,)."""
    horizon = int(random.integers(36, 60))
    canvas = _street(random, horizon)
    _clutter(canvas, random, horizon)
    boxes: list[Box] = []
    classes: list[int] = []
    for kind, box in _placed(random, horizon):
        # The colours are drawn even for what is absent, so that what follows is the same without it.
        colours, mirrored = _colours(random), bool(random.random() < 0.5)  # noqa: PLR2004
        if CLASSES[kind] not in absent:
            paint(canvas, SILHOUETTES[kind], box, colours, mirrored=mirrored)
            boxes.append(box)
            classes.append(kind)
    return canvas, np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(classes, dtype=np.int64)


def _placed(random: np.random.Generator, horizon: int) -> list[tuple[int, Box]]:
    """Return classes and boxes of 0 to 8 objects, the farthest first, all inside the frame."""
    wanted = int(random.integers(0, MOST + 1))
    grounds = np.sort(random.uniform(horizon + 8, SIDE, wanted))  # where they stand: the lower the nearer
    placed: list[tuple[int, Box]] = []
    free: list[tuple[npt.NDArray[np.bool_], int]] = []  # the part of each box nobody hides, and the size of the box
    for bottom in grounds:
        for _ in range(8):  # in a crowd, after so many tries there is no place for this one
            kind = int(random.integers(len(CLASSES)))
            nearness = (bottom - horizon) / (SIDE - horizon)
            height = HEIGHTS[kind] * (0.5 + 0.5 * nearness) * random.uniform(0.85, 1.15)
            width = height * SILHOUETTES[kind].width * random.uniform(0.9, 1.1)
            left = random.uniform(0, SIDE - width)
            box = (left, max(0.0, bottom - height), left + width, bottom)
            pixels = np.zeros((SIDE, SIDE), dtype=np.bool_)
            pixels[int(box[1]) : round(box[3]), int(box[0]) : round(box[2])] = True
            if all((other & ~pixels).sum() >= VISIBLE * size for other, size in free):
                free = [(other & ~pixels, size) for other, size in free]
                free.append((pixels, int(pixels.sum())))
                placed.append((kind, box))
                break
    return placed


def _street(random: np.random.Generator, horizon: int) -> Canvas:
    """Return sky, houses with windows, and a road with its markings."""
    canvas = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    sky = random.uniform([0.5, 0.6, 0.7], [0.8, 0.85, 1.0]).astype(np.float32)
    canvas[:horizon] = sky * np.linspace(0.85, 1.1, horizon, dtype=np.float32)[:, np.newaxis, np.newaxis]
    ground = np.float32(random.uniform(0.28, 0.5)) * random.uniform(0.95, 1.05, 3).astype(np.float32)
    canvas[horizon:] = ground * np.linspace(0.85, 1.15, SIDE - horizon, dtype=np.float32)[:, np.newaxis, np.newaxis]

    left = 0
    while left < SIDE:
        right = left + int(random.integers(14, 40))
        top = int(random.integers(4, horizon - 8))
        wall = random.uniform(0.25, 0.75, 3).astype(np.float32)
        canvas[top : horizon + 2, left:right] = wall
        for y in range(top + 4, horizon - 5, 9):
            for x in range(left + 3, min(right, SIDE) - 5, 8):
                canvas[y : y + 5, x : x + 4] = wall * np.float32(random.uniform(0.4, 1.3))
        left = right + int(random.integers(0, 12))

    lane = int(random.integers(horizon + 12, SIDE - 8))
    for x in range(int(random.integers(0, 20)), SIDE, 24):
        canvas[lane : lane + 2, x : x + 12] = 0.8
    grain = random.normal(1.0, 0.04, (SIDE // 4, SIDE // 4, 1)).astype(np.float32)
    return (canvas * grain.repeat(4, axis=0).repeat(4, axis=1)).clip(0, 1)


def _clutter(canvas: Canvas, random: np.random.Generator, horizon: int) -> None:
    """Put things on the road that look a little like objects and are none."""
    for _ in range(int(random.integers(0, 6))):
        shape, height = ((TREE, 50.0), (LAMP, 70.0), (CRATE, 16.0))[random.integers(3)]
        height *= random.uniform(0.6, 1.2)
        bottom = random.uniform(horizon + 4, SIDE)
        left = random.uniform(-10, SIDE)
        box = (left, bottom - height, left + height * shape.width, bottom)
        paint(canvas, shape, box, _colours(random), mirrored=bool(random.random() < 0.5))  # noqa: PLR2004


def _colours(random: np.random.Generator) -> dict[str, Colour]:
    """Return a colour for every paint, each float32 (3,) of 0 to 1; coats are of any colour."""
    lowest = {
        "coat": (0.1, 0.1, 0.1),
        "trousers": (0.05, 0.05, 0.1),
        "skin": (0.45, 0.3, 0.2),
        "glass": (0.6, 0.7, 0.75),
        "plate": (0.6, 0.05, 0.05),
        "leaves": (0.1, 0.3, 0.08),
        "light": (0.8, 0.8, 0.8),
        "dark": (0.03, 0.03, 0.03),
        "pole": (0.3, 0.3, 0.3),
    }
    spread = {"coat": 0.85, "trousers": 0.35, "skin": 0.4}
    return {
        name: (np.array(low) + random.uniform(0, spread.get(name, 0.15), 3)).astype(np.float32)
        for name, low in lowest.items()
    }
