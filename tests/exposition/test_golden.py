"""Whole pages of metrics, in both formats, against the files in `tests/golden`.

What is shown there is the library's contract: read the difference, and if it is what you meant, accept it with
`pytest tests/exposition --update-golden`.

No clock gives the same time twice, so these services end their calls as wrappers do, with times that nobody measured.
"""

from __future__ import annotations

import asyncio
import re
from contextvars import copy_context
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text

from infermeter import CostModel, Detections, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from infermeter import Call, Track

FORMATS = {"prom": "text/plain; version=0.0.4", "om.txt": "application/openmetrics-text; version=1.0.0"}
PARSERS = {"prom": text, "om.txt": open_metrics}
MASKS = (
    # What differs from one run or one installation to the next.
    (r'python_version="[^"]*",version="[^"]*"', 'python_version="PYTHON",version="VERSION"'),
    (r"(?m)^infermeter_fold_seconds_count .*", "infermeter_fold_seconds_count 1.0"),
    (r"(?m)^infermeter_fold_seconds_sum .*", "infermeter_fold_seconds_sum 0.001"),
)


def infer(track: Track, seconds: float, report: Callable[[Call], object] = lambda call: None) -> None:
    """An inference of a known time, that reports something."""
    call = track.begin()
    report(call)
    track.finish(call, seconds)


def fail(track: Track, seconds: float, error: BaseException) -> None:
    """An inference of a known time, that raises."""
    track.fail(track.begin(), error, seconds)


def zeros() -> Recorder:
    """A service that has decorated its function and not called it."""
    recorder = Recorder(service="gate", registry=CollectorRegistry())
    recorder.track(model="yolov8m", version="8.3", detections="auto")(lambda frame: frame)
    return recorder


def vision() -> Recorder:
    """Two models of different prices, values on edges and beside them, batches, empty frames, and an open call."""
    recorder = Recorder(service="gate", registry=CollectorRegistry(), cost=CostModel(usd_per_hour=3.6))
    yolo = recorder.track(model="yolov8m", version="8.3", names={0: "person", 16: "dog"})
    face = recorder.track(model="centerface", cost=CostModel(usd_per_hour=3.6, usd_per_kwh=0.3, watts=600))

    def batch(call: Call) -> None:
        call.batch_size(3)
        call.input_size(3 * 640 * 640)
        call.detections([0.25, 0.5, 0.75], classes=[0, 0, 16])
        call.detections(np.array([0.9375, 0.5], dtype=np.float32), classes=np.array([16, 2]))
        call.detections([])

    infer(yolo, 0.05, batch)
    infer(yolo, 0.051, lambda call: call.detections([1.0], classes=["person"]))
    infer(yolo, 100)
    for _ in range(3):
        infer(face, 0.004, lambda call: call.detections(np.full(9, 0.9990234375, dtype=np.float32)))
    face.begin()
    return recorder


def llm() -> Recorder:
    """Streams: time to the first token, tokens, their price, a fallback, and edges of one's own."""
    prices = CostModel(usd_per_1k_prompt_tokens=0.5, usd_per_1k_completion_tokens=1.5)
    edges = {"inference_duration": (0.5, 2, 8)}
    recorder = Recorder(service="chat", registry=CollectorRegistry(), cost=prices, buckets=edges)

    def stream(call: Call) -> None:
        call.fact().first_item = 0.25
        call.fact().per_token = 0.021
        call.tokens(prompt=1000)
        call.tokens(completion=120)
        call.tokens(completion=80)

    def fallback(call: Call) -> None:
        call.fallback()
        call.tokens(prompt=10, completion=1)

    infer(recorder.track(model="qwen3-8b"), 4.5, stream)
    infer(recorder.track(model="qwen3-8b"), 0.5, fallback)
    return recorder


def errors() -> Recorder:
    """Every kind of failure, and every kind of observation that is refused."""
    recorder = Recorder(service="gate", registry=CollectorRegistry(), cost=CostModel(usd_per_hour=3.6))
    track = recorder.track(model="yolov8m", detections="auto")
    infer(track, 0.02, lambda call: call.detections([0.5]))
    out_of_memory = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    for error in (TimeoutError(), TimeoutError(), asyncio.CancelledError(), out_of_memory, ValueError(), KeyError()):
        fail(track, 0.5, error)

    def refused(call: Call) -> None:
        call.detections([0.5, float("nan"), float("inf"), -0.5])
        call.detections([0.5, 0.75], classes=[1])
        call.detections("0.9")
        call.batch_size(-1)
        call.input_size(float("inf"))
        track.read(call, object())
        careless.read(call, Detections([0.5]))

    careless = recorder.track(model="yolov8m", detections=lambda result: result["scores"])
    infer(track, 0.02, refused)
    late = track.begin()
    track.finish(late, 0.02)
    late.tokens(prompt=5)
    return recorder


def labels() -> Recorder:
    """Labels of one's own on every series of the service, and values that have to be escaped."""
    recorder = Recorder(service='the "gate"', registry=CollectorRegistry(), labels={"site": "köln", "path": "C:\\nets"})
    track = recorder.track(model="two\nlines", version="8.3")
    infer(track, 0.02, lambda call: call.detections([0.5], classes=['a "quoted" name']))
    return recorder


def folded() -> Recorder:
    """More models, versions, classes and error types than are admitted."""
    limits = {"model": 2, "version": 1, "class": 2, "error_type": 5}
    recorder = Recorder(service="gate", registry=CollectorRegistry(), max_label_values=limits)
    for index in range(4):
        track = recorder.track(model=f"model-{index}", version=f"{index}")
        infer(track, 0.02, lambda call: call.detections([0.5] * 4, classes=["a", "b", "c", "d"]))
        fail(track, 0.5, type(f"Error{index}", (Exception,), {})())
    return recorder


def serving() -> Recorder:
    """What a model is and how it is served: loads, a queue, stages, a cache, memory, accuracy, and another model."""
    recorder = Recorder(service="gate", registry=CollectorRegistry(), labels={"site": "köln"})
    recorder.model_info("yolov8m", "8.3", device="cpu", provider="AzureExecutionProvider", format="onnx")
    recorder.model_info("yolov8m", "8.3", device="cuda:0", provider="CUDAExecutionProvider", format="onnx")
    for seconds in (1.5, 30, 700):
        recorder.load("yolov8m", "8.3").loaded(seconds)
    for device, size in (("cpu", 1024), ("cuda:0", 2048), ("cuda:0", 4096)):
        recorder.model_memory("yolov8m", size, "8.3", device=device)
    recorder.note(None, "vram_allocated_bytes", "cuda:0", 3584.0)
    recorder.model_accuracy("yolov8m", 0.9375, "8.3")
    queue = recorder.queue("yolov8m", "8.3")
    for _ in range(3):
        queue.put()
    recorder.note(queue, "model_queue_wait_seconds", "", 0.25)
    recorder.note(queue, "model_queue_wait_seconds", "", 5.0)
    recorder.cache("embeddings")
    cache = recorder.cache("frames")
    cache.hit(3)
    cache.miss()

    def stages(call: Call) -> None:
        for name, seconds in (("preprocess", 0.001), ("inference", 0.0078125), ("inference", 0.5)):
            call.staged(name, seconds)

    infer(recorder.track(model="yolov8m", version="8.3"), 0.51, stages)
    recorder.queue("waited-for-elsewhere")
    return recorder


def processes() -> Recorder:
    """Two processes that share a folder, and one that is dead: its gauges are gone, but for the most recent one."""
    FOLDERS.append(TemporaryDirectory())

    def begun() -> Recorder:
        return Recorder(service="gate", registry=CollectorRegistry(), multiprocess_dir=FOLDERS[-1].name)

    def work(recorder: Recorder) -> None:
        recorder.model_accuracy("yolov8m", 0.75)
        infer(recorder.track(model="yolov8m"), 0.25, lambda call: call.detections([0.5], classes=["dog"]))
        recorder.track(model="yolov8m").begin()
        recorder.model_memory("yolov8m", 1000, device="cuda:0")
        recorder.fold()

    dead, other, recorder = begun(), begun(), begun()
    work(dead)
    assert dead._shared is not None
    dead._shared.close()  # as at its end: all that is left are its files
    work(other)
    work(recorder)
    LIVING.append(other)
    return recorder


def http() -> Recorder:
    """Requests of two endpoints on edges and beside them, and of none, one in flight, and an open connection."""
    recorder = Recorder(service="gate", registry=CollectorRegistry())
    recorder.asgi_middleware(idle)
    traffic = recorder.traffic
    assert traffic is not None
    for method, endpoint, status, seconds, size in (
        ("GET", "/items/{item_id}", 200, 0.00025, 0.0),
        ("GET", "/items/{item_id}", 200, 0.001, 0.0),
        ("GET", "/items/{item_id}", 404, 0.0001, 0.0),
        ("POST", "/images", 201, 0.5, 300_000.0),
        ("POST", "/images", 499, 100.0, 256.0),
        ("BREW", "_unmatched", 405, 0.002, 3.0),
        ("GET", "_unmatched", 999, 0.002, 3.0),
    ):
        traffic.record(method, endpoint, status)(seconds, size)
    traffic.open[recorder] = traffic.sockets[recorder] = None
    return recorder


async def idle(_scope: object, _receive: object, _send: object) -> None:
    """An application that does nothing."""


FOLDERS: list[TemporaryDirectory[str]] = []
LIVING: list[Recorder] = []
SERVICES = {
    service.__name__: service for service in (zeros, vision, llm, errors, labels, folded, serving, processes, http)
}


@pytest.fixture(params=SERVICES)
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What each of the services has recorded; calls that it left open stay in a context of their own."""
    monkeypatch.delenv("INFERMETER_STRICT", raising=False)
    return copy_context().run(SERVICES[request.param])


def asked(recorder: Recorder, accept: str) -> str:
    """The page that the recorder answers to somebody who accepts that."""
    headers: dict[str, str] = {}
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "HTTP_ACCEPT": accept}
    body = b"".join(recorder.wsgi_app()(environ, lambda _status, found: headers.update(found)))
    assert headers["Content-Type"].startswith(accept)
    return body.decode()


@pytest.mark.parametrize("ending", FORMATS)
def test_prometheus_client_shows_the_same(recorder: Recorder, ending: str) -> None:
    """Whoever makes a page of the registry by hand has the same families, series and values."""
    encode, content_type = choose_encoder(FORMATS[ending])
    assert content_type.startswith(FORMATS[ending])
    registry = recorder.settings.registry
    assert registry is not None
    pages = [asked(recorder, FORMATS[ending]), encode(registry).decode(), encode(registry).decode()]
    parsed = [list(PARSERS[ending](page)) for page in pages]
    for families in parsed:
        for family in families:
            # Every collect is a fold, and folds take time.
            if family.name == "infermeter_fold_seconds":
                family.samples = []
            family.samples.sort(key=lambda sample: (sample.name, sorted(sample.labels.items())))

    assert parsed[0] == parsed[1] == parsed[2]


@pytest.mark.parametrize("ending", FORMATS)
def test_the_page_is_as_expected(request: pytest.FixtureRequest, golden: Path, recorder: Recorder, ending: str) -> None:
    """Every family, label, value and help of the service, in the order of the catalogue."""
    file = golden / f"instrumentation-{request.node.callspec.params['recorder']}.{ending}"
    page = asked(recorder, FORMATS[ending])
    for pattern, mask in MASKS:
        page = re.sub(pattern, mask, page)
    if request.config.getoption("update_golden"):
        file.write_text(page)

    assert file.exists(), f"{file} is not there: write it with --update-golden"
    assert page.splitlines() == file.read_text().splitlines()


def test_every_expected_page_is_of_a_service(golden: Path) -> None:
    """No page of a service that is gone is left behind."""
    expected = {f"instrumentation-{service}.{ending}" for service in SERVICES for ending in FORMATS}

    assert {file.name for file in golden.glob("instrumentation-*")} == expected
