"""The public API as users write it: mypy reads this file, nothing runs it.

A `type: ignore` that names an error code says that the line must be refused; mypy reports one that is not needed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, assert_type

import numpy as np
from prometheus_client import CollectorRegistry

import infermeter


@infermeter.track(model="yolov8m")
def detect(frame: bytes, *, size: int = 640) -> list[float]:
    return [size / 1000, *frame]


assert_type(detect(b"", size=320), list[float])
detect("text")  # type: ignore[arg-type]
detect(b"", width=1)  # type: ignore[call-arg]


@infermeter.track(model="llm", version="2", stream="item")
def stream(prompt: str) -> Iterator[str]:
    yield prompt


assert_type(stream("a"), Iterator[str])


@infermeter.track(model="llm")
async def astream(prompt: str) -> AsyncIterator[str]:
    yield prompt


class Detector:
    @infermeter.track(model="yolov8m", detections="auto", names={0: "face"})
    async def detect(self, frame: bytes) -> int:
        return len(frame)

    @staticmethod
    @infermeter.track(model="yolov8m", names=["face"])
    def static(frame: bytes) -> int:
        return len(frame)

    @infermeter.track(model="yolov8m", cost=infermeter.CostModel(usd_per_hour=2.10))
    @classmethod
    def of_class(cls, frame: bytes) -> int:
        return len(frame)


assert_type(Detector.static(b""), int)
assert_type(Detector.of_class(b""), int)


def inside() -> None:
    with infermeter.track(model="yolov8m", version="2") as call:
        assert_type(call, infermeter.Call)
        call.detections(np.zeros(3, dtype=np.float32), classes=[0, 0, 1], names=("face", "plate"))
        call.batch_size(8)
        call.input_size(1024)
        call.tokens(prompt=120, completion=48)
        call.fallback()
        with call.stage("preprocess"):
            pass
    infermeter.current().tokens(completion=48)


def read(result: object) -> infermeter.Detections:
    return infermeter.Detections(confidences=[0.5], classes=["face"])


infermeter.track(model="a", detections=read)
infermeter.track()  # type: ignore[call-arg]
infermeter.track(model="a", colour="red")  # type: ignore[call-arg]
infermeter.track(model="a", stream="token")  # type: ignore[arg-type]
infermeter.configure(
    service="face-detection",
    cost=infermeter.CostModel(usd_per_kwh=0.3, watts=250, concurrency=4),
    registry=CollectorRegistry(),
    buckets={"inference_duration": [0.01, 0.1, 1]},
    labels={"region": "eu"},
    max_label_values={"class": 600},
    max_series=2000,
)
infermeter.configure(servce="a")  # type: ignore[call-arg]

with infermeter.serve(0) as server:
    assert_type(server.port, int)


@infermeter.load(model="yolov8m", version="8.3")
def load_net(path: str) -> bytes:
    return path.encode()


assert_type(load_net("yolov8m.pt"), bytes)
load_net(1)  # type: ignore[arg-type]

with infermeter.load(model="yolov8m"):
    pass

waiting = infermeter.queue(model="yolov8m")
ticket = waiting.put()
waiting.get(ticket)
waiting.get()
waiting.discard(ticket)
with waiting.wait():
    pass

frames = infermeter.cache("frames")
frames.hit()
frames.miss(3)

infermeter.model_info("yolov8m", "8.3", device="cuda:0", provider="CUDAExecutionProvider", format="onnx")
infermeter.model_info("yolov8m", colour="red")  # type: ignore[call-arg]
infermeter.model_memory("yolov8m", 52_000_000, device="cuda:0")
infermeter.model_accuracy(model="yolov8m", score=0.93, version="8.3")

recorder = infermeter.Recorder(service="mine", registry=CollectorRegistry())
assert_type(recorder.track(model="a"), infermeter.Track)


async def asgi(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    await receive()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return [b""]


infermeter.asgi_middleware(asgi, exclude=["/healthz"])
infermeter.wsgi_middleware(wsgi, exclude=["/healthz"])
infermeter.instrument("onnxruntime", exclude=("flask",))
infermeter.uninstrument()
infermeter.instrument(1)  # type: ignore[arg-type]
assert_type(infermeter.watch(Detector(), "gate", detections="auto"), Detector)
