"""What the synthetic scenes are made of: objects and clutter as discs and convex polygons, painted with soft edges.

A silhouette is drawn in units of its own height: y from 0 at the top to 1 at the bottom, x from 0 to its `width`. It
touches all four sides of that rectangle, so that the rectangle is its true box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Canvas: TypeAlias = npt.NDArray[np.float32]
    Colour: TypeAlias = npt.NDArray[np.float32]
    Numbers: TypeAlias = npt.NDArray[np.float64]
    Mask: TypeAlias = npt.NDArray[np.bool_]

SAMPLES = 2
"""Points per side of a pixel at which a silhouette is looked up: four shades of edge."""


@dataclass(frozen=True)
class Disc:
    """A disc, or a ring if it has a hole; middle and radii in heights of the silhouette."""

    paint: str
    x: float
    y: float
    radius: float
    hole: float = 0.0

    def covers(self, x: Numbers, y: Numbers) -> Mask:
        """Return which of the points are on it."""
        square = (x - self.x) ** 2 + (y - self.y) ** 2
        return (square <= self.radius**2) & (square >= self.hole**2)


@dataclass(frozen=True)
class Polygon:
    """A convex polygon, its corners clockwise as seen on the screen."""

    paint: str
    corners: tuple[tuple[float, float], ...]

    def covers(self, x: Numbers, y: Numbers) -> Mask:
        """Return which of the points are on it: those to the right of every edge."""
        inside = np.ones(np.broadcast_shapes(x.shape, y.shape), dtype=np.bool_)
        for (x1, y1), (x2, y2) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            inside &= (x2 - x1) * (y - y1) >= (y2 - y1) * (x - x1)
        return inside


def bar(paint: str, start: tuple[float, float], end: tuple[float, float], thickness: float) -> Polygon:
    """Return a straight bar from one point to another."""
    (x1, y1), (x2, y2) = start, end
    half = thickness / 2 / float(np.hypot(x2 - x1, y2 - y1))
    across, along = (y2 - y1) * half, (x2 - x1) * half
    return Polygon(
        paint,
        ((x1 + across, y1 - along), (x2 + across, y2 - along), (x2 - across, y2 + along), (x1 - across, y1 + along)),
    )


def block(paint: str, left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return an upright rectangle."""
    return Polygon(paint, ((left, top), (right, top), (right, bottom), (left, bottom)))


@dataclass(frozen=True)
class Silhouette:
    """Parts from back to front, and the width of the whole in heights."""

    width: float
    parts: tuple[Disc | Polygon, ...]


CAR = Silhouette(
    2.1,
    (
        Polygon("coat", ((0.6, 0.0), (1.45, 0.0), (1.8, 0.42), (0.4, 0.42))),
        Polygon("glass", ((0.66, 0.07), (1.0, 0.07), (1.0, 0.4), (0.54, 0.4))),
        Polygon("glass", ((1.06, 0.07), (1.4, 0.07), (1.63, 0.4), (1.06, 0.4))),
        Polygon("coat", ((0.12, 0.4), (1.98, 0.4), (2.1, 0.56), (2.1, 0.82), (0.0, 0.82), (0.0, 0.56))),
        *(Disc("dark", x, 0.79, 0.21) for x in (0.5, 1.6)),
        *(Disc("light", x, 0.79, 0.09) for x in (0.5, 1.6)),
    ),
)

PERSON = Silhouette(
    0.42,
    (
        bar("trousers", (0.15, 0.58), (0.11, 1.0), 0.13),
        bar("trousers", (0.27, 0.58), (0.31, 1.0), 0.13),
        Polygon("coat", ((0.08, 0.23), (0.34, 0.23), (0.42, 0.6), (0.0, 0.6))),
        Disc("skin", 0.21, 0.12, 0.12),
    ),
)

BICYCLE = Silhouette(
    1.6,
    (
        *(Disc("dark", x, 0.66, 0.34, 0.25) for x in (0.34, 1.26)),
        bar("coat", (0.34, 0.66), (0.6, 0.2), 0.09),
        bar("coat", (0.6, 0.2), (1.14, 0.2), 0.09),
        bar("coat", (0.56, 0.26), (0.76, 0.66), 0.09),
        bar("coat", (0.76, 0.66), (1.14, 0.2), 0.09),
        bar("coat", (0.34, 0.66), (0.76, 0.66), 0.09),
        bar("coat", (1.26, 0.66), (1.1, 0.04), 0.09),
        block("dark", 0.46, 0.08, 0.74, 0.18),
        block("dark", 0.98, 0.0, 1.24, 0.09),
    ),
)

SIGN = Silhouette(
    0.5,
    (
        block("pole", 0.22, 0.4, 0.28, 1.0),
        Disc("light", 0.25, 0.25, 0.25),
        Disc("plate", 0.25, 0.25, 0.21),
        block("light", 0.11, 0.21, 0.39, 0.29),
    ),
)

TREE = Silhouette(0.7, (block("pole", 0.3, 0.5, 0.4, 1.0), Disc("leaves", 0.35, 0.35, 0.35)))
LAMP = Silhouette(0.3, (block("pole", 0.0, 0.0, 0.05, 1.0), block("pole", 0.0, 0.0, 0.3, 0.05)))
CRATE = Silhouette(1.4, (block("coat", 0.0, 0.0, 1.4, 1.0), block("dark", 0.1, 0.1, 1.3, 0.2)))
"""Clutter: round on a pole like a sign, a pole alone, and broad and coloured like a car."""


def paint(
    canvas: Canvas,
    silhouette: Silhouette,
    box: tuple[float, float, float, float],
    colours: Mapping[str, Colour],
    *,
    mirrored: bool,
) -> None:
    """Paint the silhouette into its box (left, top, right, bottom in pixels) of a canvas (H, W, 3), 0 to 1.

    `colours` gives each paint its three shares, float32 of shape (3,). What lies outside the canvas is left out.
    """
    height, width = canvas.shape[:2]
    left, top, right, bottom = box
    x1, y1 = max(0, int(left)), max(0, int(top))
    x2, y2 = min(width, int(np.ceil(right))), min(height, int(np.ceil(bottom)))
    if x1 >= x2 or y1 >= y2:
        return

    columns = x1 + (np.arange((x2 - x1) * SAMPLES) + 0.5) / SAMPLES
    rows = y1 + (np.arange((y2 - y1) * SAMPLES) + 0.5) / SAMPLES
    x = (columns - left) / (right - left) * silhouette.width
    x = (silhouette.width - x if mirrored else x)[np.newaxis, :]
    y = ((rows - top) / (bottom - top))[:, np.newaxis]

    fine = canvas[y1:y2, x1:x2].repeat(SAMPLES, axis=0).repeat(SAMPLES, axis=1)
    for part in silhouette.parts:
        fine[part.covers(x, y)] = colours[part.paint]
    canvas[y1:y2, x1:x2] = fine.reshape(y2 - y1, SAMPLES, x2 - x1, SAMPLES, 3).mean(axis=(1, 3))
