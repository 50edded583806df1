"""The service of the demo tells Prometheus the truth about the frames it saw."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import islice
from pathlib import Path

import pytest

from demo.photographs import frames
from demo.services import any_free_port
from demo.window import counts

ROOT = Path(__file__).parents[2]
KEY = ("face-detection", "centerface")


def scraped(url: str, inferences: int, seconds: float = 60) -> str:
    """Return /metrics once that many inferences are counted."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                page: str = answer.read().decode()
        except urllib.error.URLError:
            page = ""
        if counts(page)[KEY]["inferences_total", 0.0] >= inferences:
            return page
        time.sleep(0.1)
    pytest.fail(f"{url} did not count {inferences} inferences within {seconds} s")


def test_what_is_exported_is_what_was_in_the_frames() -> None:
    """After n inferences the objects counted are exactly the faces in the first n frames of the seed."""
    port = any_free_port()
    command = [sys.executable, "-m", "demo.face_detection", "--port", str(port), "--rate", "100", "--seed", "4"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as service:
        try:
            found = counts(scraped(f"http://127.0.0.1:{port}/metrics", inferences=40))[KEY]
        finally:
            service.terminate()
        _, errors = service.communicate(timeout=10)

    inferences = int(found["objects_per_frame_count", 0.0])
    faces = sum(len(frame.faces) for frame in islice(frames(seed=4), inferences))
    assert found["objects_per_frame_sum", 0.0] == faces
    assert found["detection_confidence_count", 0.0] == faces
    assert 0.7 < found["detection_confidence_sum", 0.0] / faces < 0.95
    assert (service.returncode, errors) == (0, "")
