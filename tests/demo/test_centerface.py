"""CenterFace finds faces where they are, and nowhere else."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from demo.centerface import CenterFace, Faces, overlap_of, without_overlaps
from demo.photographs import FACES, WITHOUT_FACES, frames, photograph


@pytest.fixture(scope="module")
def model() -> CenterFace:
    """Load the network once."""
    return CenterFace()


def overlap(box: tuple[float, float, float, float], faces: Faces) -> float:
    """Return how well the best of the boxes found covers the true one, 0 to 1."""
    return float(overlap_of(np.array(box, dtype=np.float32), faces.boxes).max(initial=0))


def test_the_astronauts_face_is_found_where_it_is(model: CenterFace) -> None:
    """One face, surely, within a few pixels of the true box."""
    faces = model.detect(photograph("astronaut"))

    assert len(faces) == 1
    assert faces.confidences[0] == pytest.approx(0.93, abs=0.02)
    np.testing.assert_allclose(faces.boxes[0], FACES["astronaut"], atol=5)


def test_a_face_in_profile_is_found_less_surely(model: CenterFace) -> None:
    """The cameraman looks away: still one face, with less confidence."""
    faces = model.detect(photograph("camera"))

    assert len(faces) == 1
    assert 0.7 < faces.confidences[0] < 0.9
    np.testing.assert_allclose(faces.boxes[0], FACES["camera"], atol=5)


@pytest.mark.parametrize("name", WITHOUT_FACES)
def test_a_photograph_of_nobody_has_no_face(model: CenterFace, name: str) -> None:
    """No face gives no boxes, in arrays of the usual shape."""
    faces = model.detect(photograph(name))

    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)
    assert faces.confidences.shape == (0,)


def test_every_size_of_picture_is_taken(model: CenterFace) -> None:
    """Sides need not be multiples of 32, and boxes stay inside the picture."""
    picture = photograph("astronaut")[70:171, 101:300]
    faces = model.detect(picture)

    assert len(faces) == 1
    assert (faces.boxes[0] >= 0).all()
    assert (faces.boxes[0] <= [199, 101, 199, 101]).all()


def test_frames_hold_the_faces_they_claim(model: CenterFace) -> None:
    """In 150 frames every face is found at its place, and nothing else is."""
    for frame in islice(frames(seed=1), 150):
        faces = model.detect(frame.pixels)

        assert len(faces) == len(frame.faces)
        assert all(overlap(face, faces) > 0.4 for face in frame.faces)


def test_of_overlapping_boxes_the_surest_stays() -> None:
    """Two boxes on one face are one; a box elsewhere is another; the surer comes first."""
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], dtype=np.float32)

    kept = without_overlaps(boxes, np.array([0.6, 0.7, 0.9], dtype=np.float32), overlap=0.3)

    assert kept.tolist() == [2, 1]


def test_overlap_is_intersection_over_union() -> None:
    """Two 2 x 2 squares that share one cell: 1 of 7; the same square: 1; apart: 0."""
    boxes = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 7, 7]], dtype=np.float32)

    assert overlap_of(boxes[1], boxes).tolist() == pytest.approx([1 / 7, 1, 0])
