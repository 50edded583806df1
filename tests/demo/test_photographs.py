"""Frames are the same for the same seed, and differ enough to be worth measuring."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np

from demo.photographs import frames


def test_the_same_seed_gives_the_same_frames() -> None:
    """Tests may count on the sequence: pixels and truth repeat exactly."""
    for one, other in islice(zip(frames(seed=3), frames(seed=3), strict=True), 40):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.faces == other.faces


def test_another_seed_gives_other_frames() -> None:
    """Two seeds are two sequences."""
    first, second = ([frame.faces for frame in islice(frames(seed), 40)] for seed in (1, 2))

    assert first != second


def test_frames_vary_in_size_and_in_number_of_faces() -> None:
    """Four sizes of picture, none above 320 pixels, and anything from no face to four."""
    some = list(islice(frames(), 200))

    assert {frame.pixels.shape for frame in some} == {(160, 160, 3), (160, 320, 3), (320, 320, 3)}
    assert set(Counter(len(frame.faces) for frame in some)) == {0, 1, 2, 3, 4}
    assert all(frame.pixels.dtype == np.uint8 for frame in some)


def test_faces_lie_wholly_inside_the_frame() -> None:
    """A view is never cut so that it shows half a face."""
    for frame in islice(frames(seed=5), 200):
        height, width = frame.pixels.shape[:2]
        for left, top, right, bottom in frame.faces:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
