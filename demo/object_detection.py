"""The object detection service of the demo: a street camera, and a detector that knows the street by day.

    python -m demo.object_detection --port 8003                     # metrics at http://127.0.0.1:8003/metrics
    python -m demo.object_detection --port 8003 --night-after 60    # after a minute it gets dark

Its camera is `scenes.Camera`, its model `detector.Detector`; it runs until Ctrl-C or SIGTERM. The camera takes frames
in a thread of its own, and they wait in a queue: a detector that is too slow shows in how long they do.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import queue
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import infermeter
from demo.accuracy import Confusion, confusion
from demo.detector import CLASSES, NETWORK, Boxes, Detector, as_input
from demo.scenes import DAY, NIGHT, Camera

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from demo.scenes import Frame

MODEL = "scenes-s"
JUDGED = 300
"""The latest frames, whose truth is known because they were rendered, by which the model is judged."""
ROOM = 32
"""Frames that may wait for the detector; when there is no more room the camera waits."""

with infermeter.load(model=MODEL):
    model = Detector()
infermeter.model_info(MODEL, device="cpu", provider=model.provider, format="onnx")
infermeter.model_memory(MODEL, NETWORK.stat().st_size, device="cpu")  # its weights
waiting = infermeter.queue(model=MODEL)


@infermeter.track(model=MODEL, names=CLASSES)
def detect(frame: npt.NDArray[np.uint8]) -> Boxes:
    """Find the objects in an RGB frame, uint8 of shape (128, 128, 3)."""
    call = infermeter.current()
    call.input_size(frame.nbytes)
    with call.stage("preprocess"):
        pictures = as_input(frame)
    with call.stage("inference"):
        maps = model.maps(pictures)
    with call.stage("postprocess"):
        found = model.boxes(maps)
    call.detections(found.confidences, classes=found.classes)
    return found


def film(camera: Camera, rate: float, night_after: float, frames: queue.Queue[Frame]) -> None:
    """Take frames at a steady rate, for ever."""
    began = time.monotonic()
    while True:
        started = time.monotonic()
        camera.exposure = NIGHT if started - began >= night_after else DAY
        frame = camera.frame()
        waiting.put()
        frames.put(frame)
        time.sleep(max(0, started + 1 / rate - time.monotonic()))


def main() -> None:
    """Serve the metrics, detect the objects in every frame, and judge what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.object_detection", description="Find objects in a street, and be measured."
    )
    parser.add_argument("--port", type=int, default=8003, help="where /metrics is served (default 8003)")
    parser.add_argument("--address", default="127.0.0.1", help="on this address (default 127.0.0.1)")
    parser.add_argument("--rate", type=float, default=10, help="frames a second (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same scenes (default 0)")
    parser.add_argument(
        "--night-after", type=float, default=math.inf, metavar="SECONDS", help="when it gets dark (default never)"
    )
    arguments = parser.parse_args()

    infermeter.configure(service="object-detection", cost=infermeter.CostModel(usd_per_hour=2.10))
    infermeter.serve(arguments.port, addr=arguments.address)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM, too, is a KeyboardInterrupt
    frames: queue.Queue[Frame] = queue.Queue(ROOM)
    film_all = (Camera(arguments.seed), arguments.rate, arguments.night_after, frames)
    threading.Thread(target=film, args=film_all, daemon=True).start()
    judged: deque[Confusion] = deque(maxlen=JUDGED)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            frame = frames.get()
            waiting.get()
            judged.append(confusion(detect(frame.pixels), frame))
            accuracy = sum(judged, Confusion()).accuracy
            if not math.isnan(accuracy):
                infermeter.model_accuracy(MODEL, accuracy)


if __name__ == "__main__":
    main()
