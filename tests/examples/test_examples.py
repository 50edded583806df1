"""The examples: each runs as its README says, and what is on its page is what it answered."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import numpy as np
import pytest

from tests.examples.conftest import ADDRESS, ROOT, command, environment
from tests.page import Page
from tests.run.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tests.examples.conftest import Service

    Serving = Callable[..., AbstractContextManager[Service]]

CLASSES = ("car", "person", "bicycle", "sign")
# What makes ultralytics work beside a torch for the CPU: when it is imported, and not in every process.
MEND = """
import sys
class Mend:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "ultralytics":
            sys.meta_path.remove(Mend)
            from tests.integrations import torchvision_shim
            torchvision_shim.mend()
sys.meta_path.insert(0, Mend)
"""


def at_most(values: Sequence[float], edge: str) -> int:
    """What a bucket of a classic histogram holds."""
    return sum(value <= float(edge) for value in values)


def check_detections(page: Page, model: str, frames: list[list[tuple[str, float]]]) -> None:
    """Classes, confidences and objects per frame are those that were answered, each edge to the last one."""
    found = [one for frame in frames for one in frame]
    scores, sizes = [score for _, score in found], [len(frame) for frame in frames]
    assert page.by("class", "detections_total", model=model) == Counter(kind for kind, _ in found)
    for edge, number in page.by("le", "detection_confidence_bucket", model=model).items():
        assert number == at_most(scores, edge)
    assert page.value("detection_confidence_sum", model=model) == pytest.approx(sum(scores), rel=1e-12)
    for edge, number in page.by("le", "objects_per_frame_bucket", model=model).items():
        assert number == at_most(sizes, edge)
    assert page.value("objects_per_frame_sum", model=model) == len(found)


def requests(page: Page, endpoint: str) -> dict[str, float]:
    """The requests for an endpoint, by status."""
    return page.by("status", "http_requests_total", endpoint=endpoint, method="POST")


def test_gunicorn_onnxruntime(serving: Serving, street: Path, tmp_path: Path) -> None:
    """Two workers on one page: each inference, its batch and its input, each request, and who could not be answered."""
    for needed in ("flask", "gunicorn", "onnxruntime"):
        pytest.importorskip(needed, reason=f"make test installs {needed}")
    pictures = [path.read_bytes() for path in sorted(street.iterdir())]
    with serving("gunicorn_onnxruntime", tmp_path) as service:
        answers = service.post("/classes", pictures * 3, "image/png")
        assert [answer.status_code for answer in answers] == [200] * 36
        assert [answer.json() for answer in answers] == [heats(path) for path in sorted(street.iterdir())] * 3
        (refused,) = service.post("/classes", [b"no picture"], "image/png")
        assert refused.status_code == 500
        service.page_with("http_requests_total", 37)
        page = service.page_with("inferences_total", 36)
        assert requests(page, "/classes") == {"200": 36, "500": 1}
        assert page.value("http_request_size_bytes_sum") == sum(map(len, pictures)) * 3 + len(b"no picture")
        assert page.value("inferences_total", model="detector", service="gate") == 36
        assert page.value("inference_duration_count", model="detector") == 36
        assert page.value("inference_batch_size_sum", model="detector") == 36
        assert page.value("inference_input_size_bytes_sum", model="detector") == 36 * 3 * 128 * 128 * 4
        assert page.value("model_load_seconds_count", model="detector") in {1, 2}  # a late worker may have no request
        assert page.value("model_errors_total", model="detector") == 0
        assert page.by("provider", "model_info") == {"CPUExecutionProvider": 1}
        assert page.value("infermeter_processes") >= 2
        assert page.dropped() == {}
        assert service.stop() == 0


def heats(path: Path) -> dict[str, float]:
    """How sure the model of the demo is of each class, in a session of our own."""
    import onnxruntime
    from PIL import Image

    session = onnxruntime.InferenceSession(str(ROOT / "demo" / "detector.onnx"))
    batch = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1)[None] / 255
    return dict(zip(CLASSES, session.run(["heat"], {"pictures": batch})[0][0].max(axis=(1, 2)).tolist(), strict=True))


def test_fastapi_ultralytics(serving: Serving, street: Path, tmp_path: Path) -> None:
    """Boxes of every request: their classes, confidences and number, and who could not be answered."""
    for needed in ("fastapi", "uvicorn", "ultralytics"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed, make test-frameworks installs it")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(MEND, encoding="utf-8")
    # The service's own `sitecustomize` is one that `infermeter run` hides, and runs.
    theirs = {
        "MODEL": str(tmp_path / "yolov8n.pt"),
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path),
        "YOLO_OFFLINE": "1",
    }
    made = [sys.executable, str(Path(__file__).with_name("random_yolo.py")), theirs["MODEL"], str(street)]
    subprocess.run(made, env=environment(tmp_path, **theirs), cwd=tmp_path, check=True, timeout=PATIENCE)
    pictures = [path.read_bytes() for path in sorted(street.iterdir())]
    with serving("fastapi_ultralytics", tmp_path, **theirs) as service:
        answers = service.post("/detect", pictures, "image/png")
        assert [answer.status_code for answer in answers] == [200] * 12
        frames = [[(box["class"], box["confidence"]) for box in answer.json()] for answer in answers]
        # Something in some pictures and nothing in others, of several classes, more and less sure.
        assert {bool(frame) for frame in frames} == {True, False}
        assert len({kind for frame in frames for kind, _ in frame}) > 3
        assert len({score for frame in frames for _, score in frame}) > 99
        (refused,) = service.post("/detect", [b"no picture"], "image/png")
        assert refused.status_code == 500
        service.page_with("http_requests_total", 13)
        page = service.page_with("inferences_total", 12)
        assert requests(page, "/detect") == {"200": 12, "500": 1}
        assert page.value("http_request_size_bytes_sum") == sum(map(len, pictures)) + len(b"no picture")
        assert page.value("inferences_total", model="yolov8n", service="gate") == 12
        assert page.value("inference_duration_count", model="yolov8n") == 12
        assert page.by("stage", "inference_stage_duration_seconds_count", model="yolov8n") == dict.fromkeys(
            ("preprocess", "inference", "postprocess"), 12
        )
        check_detections(page, "yolov8n", frames)
        assert page.value("model_load_seconds_count", model="yolov8n") == 1
        assert page.dropped() == {}
        service.stop()


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is pushed to it, by path, as a Pushgateway does; it is for those who have none installed."""

    pushed: ClassVar[dict[str, str]]

    def do_PUT(self) -> None:
        """Keep a page."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.pushed[self.path] = body
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def receiver() -> Iterator[tuple[str, Callable[[], Page]]]:
    """A server that takes pushes: its address, and what the job `nightly` pushed."""

    class Kept(Receiver):
        pushed: ClassVar[dict[str, str]] = {}

    with http.server.ThreadingHTTPServer((ADDRESS, 0), Kept) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{ADDRESS}:{server.server_port}", lambda: Page(Kept.pushed["/metrics/job/nightly"])
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def pushgateway() -> Iterator[tuple[str, Callable[[], Page]]]:
    """A real Pushgateway: its address, and what Prometheus gets from it."""
    program = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if program is None:
        pytest.skip("no Pushgateway: apt-get install --no-install-recommends prometheus-pushgateway")
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        address = f"{ADDRESS}:{probe.getsockname()[1]}"
    process = subprocess.Popen([program, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                httpx.get(f"http://{address}/-/ready").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield address, lambda: Page(httpx.get(f"http://{address}/metrics").text)
    finally:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("gateway", [receiver, pushgateway])
def test_batch_push(
    gateway: Callable[[], AbstractContextManager[tuple[str, Callable[[], Page]]]], street: Path, tmp_path: Path
) -> None:
    """What a job did is pushed when it ends: pictures, what they show, how sure that is, and one that is broken."""
    pytest.importorskip("onnxruntime", reason="make test installs onnxruntime")
    pictures = shutil.copytree(street, tmp_path / "pictures")
    (pictures / "broken.png").write_bytes(b"no picture")
    python, *words = command("batch_push", "python")
    assert (python, words[-1]) == ("python", "pictures")
    with gateway() as (address, pushed):
        ended = subprocess.run(
            [sys.executable, *words[:-1], str(pictures)],
            cwd=ROOT / "examples" / "batch_push",
            env=environment(tmp_path, PUSHGATEWAY=address),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (ended.returncode, re.findall(r"^(\S+): cannot identify", ended.stderr, re.MULTILINE)) == (
            0,
            ["broken.png"],
        )
        seen = [json.loads(line)["seen"] for line in ended.stdout.splitlines()]
        assert {kind for frame in seen for kind in frame} == set(CLASSES)
        page = pushed()
    assert page.value("inferences_total", model="scenes-s", version="1", service="nightly") == 13
    assert page.value("inference_duration_count", model="scenes-s") == 13
    errors = page.by("error_type", "model_errors_total", model="scenes-s")
    assert {kind: number for kind, number in errors.items() if number} == {"UnidentifiedImageError": 1}
    check_detections(page, "scenes-s", [list(frame.items()) for frame in seen])
    assert page.dropped() == {}
