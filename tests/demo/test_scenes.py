"""Scenes are the same for the same seed, hold what they claim, and look as the camera's conditions say."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from demo.scenes import CLASSES, DAY, MOST, NIGHT, SIDE, Camera, Frame
from demo.silhouettes import BICYCLE, CAR, CRATE, LAMP, PERSON, SIGN, TREE, Silhouette, block, paint


def taken(camera: Camera, count: int = 40) -> list[Frame]:
    """Return the next frames."""
    return list(islice(camera.frames(), count))


def test_the_same_seed_gives_the_same_frames() -> None:
    """Pixels and truth repeat exactly."""
    for one, other in zip(taken(Camera(seed=3)), taken(Camera(seed=3)), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.classes, other.classes)


def test_another_seed_gives_other_frames() -> None:
    """Two seeds are two sequences."""
    first, second = ([frame.classes.tolist() for frame in taken(Camera(seed))] for seed in (1, 2))

    assert first != second


def test_frames_have_the_shapes_and_types_they_promise() -> None:
    """Also where there is nothing to see."""
    frames = taken(Camera(seed=4), 60)

    for frame in frames:
        n = len(frame.classes)
        assert frame.pixels.shape == (SIDE, SIDE, 3)
        assert frame.pixels.dtype == np.uint8
        assert frame.boxes.shape == (n, 4)
        assert frame.boxes.dtype == np.float32
        assert frame.classes.shape == (n,)
        assert frame.classes.dtype == np.int64
    assert min(len(frame.classes) for frame in frames) == 0


def test_truth_lies_inside_the_frame() -> None:
    """Every box has an area, and no edge beyond the picture."""
    boxes = np.concatenate([frame.boxes for frame in taken(Camera(seed=5), 150)])

    assert (boxes >= 0).all()
    assert (boxes <= SIDE).all()
    assert (boxes[:, 2:] - boxes[:, :2] > 5).all()


def test_scenes_vary_from_none_to_eight_objects_of_all_classes() -> None:
    """No number and no class is rare."""
    frames = taken(Camera(seed=6), 250)

    numbers = Counter(len(frame.classes) for frame in frames)
    kinds = Counter(np.concatenate([frame.classes for frame in frames]).tolist())
    assert set(numbers) == set(range(MOST + 1))
    assert set(kinds) == set(range(len(CLASSES)))
    assert min(kinds.values()) > 0.15 * kinds.total()


def test_night_shows_the_same_scenes_darker() -> None:
    """Pixels scale with exposure; the truth does not change."""
    for day, night in zip(taken(Camera(noise=0)), taken(Camera(noise=0, exposure=NIGHT)), strict=True):
        assert night.pixels.max() <= 39
        np.testing.assert_allclose(night.pixels, day.pixels * (NIGHT / DAY), atol=0.6)
        np.testing.assert_array_equal(night.boxes, day.boxes)


def test_more_exposure_than_the_day_is_clipped() -> None:
    """White stays white; nothing wraps round to black."""
    for day, bright in zip(taken(Camera(noise=0), 10), taken(Camera(noise=0, exposure=2.0), 10), strict=True):
        assert (bright.pixels >= day.pixels).all()
        assert bright.pixels.max() == 255


def test_noise_has_the_standard_deviation_asked_for() -> None:
    """Measured against the same frame without noise, where neither end of the range cuts it off."""
    clean, noisy = Camera(noise=0).frame().pixels, Camera(noise=8).frame().pixels

    middle = (clean > 60) & (clean < 195)
    difference = noisy[middle].astype(np.float64) - clean[middle]
    assert difference.std() == pytest.approx(8, rel=0.05)
    assert difference.mean() == pytest.approx(0, abs=0.3)


def test_absent_classes_do_not_appear_and_all_else_stays() -> None:
    """What is left of each scene is what was there before."""
    missing = CLASSES.index("bicycle")
    for full, less in zip(taken(Camera()), taken(Camera(absent=frozenset({"bicycle"}))), strict=True):
        stays = full.classes != missing
        np.testing.assert_array_equal(less.classes, full.classes[stays])
        np.testing.assert_array_equal(less.boxes, full.boxes[stays])
        if stays.all():
            np.testing.assert_array_equal(less.pixels, full.pixels)


def test_an_unknown_class_cannot_be_absent() -> None:
    """A misspelt name is refused, not ignored."""
    with pytest.raises(ValueError, match="absent: tram is not among car, person, bicycle, sign"):
        Camera(absent=frozenset({"tram"})).frame()


def test_conditions_change_while_the_camera_runs() -> None:
    """The next frame is taken in the new conditions, and is of the next scene."""
    camera, steady = Camera(seed=8, noise=0), Camera(seed=8, noise=0)
    frames = camera.frames()

    np.testing.assert_array_equal(next(frames).pixels, steady.frame().pixels)
    camera.exposure = NIGHT
    dark, light = next(frames), steady.frame()
    assert dark.pixels.mean() < 0.2 * light.pixels.mean()
    np.testing.assert_array_equal(dark.boxes, light.boxes)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("silhouette", [CAR, PERSON, BICYCLE, SIGN, TREE, LAMP, CRATE])
def test_a_silhouette_fills_its_box_to_all_four_sides(silhouette: Silhouette, mirrored: bool) -> None:  # noqa: FBT001
    """The box is the true one: pixels change up to each edge of it, and none outside."""
    canvas = np.zeros((100, 260, 3), dtype=np.float32)
    colours = {part.paint: np.ones(3, dtype=np.float32) for part in silhouette.parts}
    paint(canvas, silhouette, (10, 10, 10 + 80 * silhouette.width, 90), colours, mirrored=mirrored)

    rows, columns = np.nonzero(canvas[:, :, 0])
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(edges, [10, 10, 10 + 80 * silhouette.width, 90], atol=1.01)


def test_edges_are_as_strong_as_the_share_of_the_pixel_they_cover() -> None:
    """A square from 1 to 2.5 fills one pixel, half of two and a quarter of a fourth."""
    canvas = np.zeros((4, 4, 3), dtype=np.float32)
    square = Silhouette(1.0, (block("coat", 0, 0, 1, 1),))
    paint(canvas, square, (1, 1, 2.5, 2.5), {"coat": np.ones(3, dtype=np.float32)}, mirrored=False)

    assert canvas[:, :, 0].tolist() == [[0, 0, 0, 0], [0, 1, 0.5, 0], [0, 0.5, 0.25, 0], [0, 0, 0, 0]]
