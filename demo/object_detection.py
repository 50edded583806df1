"""The object detection service of the demo: a street camera, and a detector that knows the street by day.

    python -m demo.object_detection --port 8003                     # metrics at http://127.0.0.1:8003/metrics
    python -m demo.object_detection --port 8003 --night-after 60    # after a minute it gets dark

Its camera is `scenes.Camera`, its model `detector.Detector`; it runs until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import infermeter
from demo.detector import CLASSES, Boxes, Detector
from demo.scenes import NIGHT, Camera

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

model = Detector()


@infermeter.track(model="scenes-s", names=CLASSES)
def detect(frame: npt.NDArray[np.uint8]) -> Boxes:
    """Find the objects in an RGB frame, uint8 of shape (128, 128, 3)."""
    found = model.detect(frame)
    call = infermeter.current()
    call.input_size(frame.nbytes)
    call.detections(found.confidences, classes=found.classes)
    return found


def main() -> None:
    """Serve the metrics and detect objects, one frame after the other, at a steady rate."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.object_detection", description="Find objects in a street, and be measured."
    )
    parser.add_argument("--port", type=int, default=8003, help="where /metrics is served, on 127.0.0.1 (default 8003)")
    parser.add_argument("--rate", type=float, default=10, help="frames a second (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same scenes (default 0)")
    parser.add_argument("--night-after", type=float, metavar="SECONDS", help="when it gets dark (default never)")
    arguments = parser.parse_args()

    infermeter.configure(service="object-detection", cost=infermeter.CostModel(usd_per_hour=2.10))
    infermeter.serve(arguments.port, addr="127.0.0.1")

    camera = Camera(arguments.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM, too, is a KeyboardInterrupt
    with contextlib.suppress(KeyboardInterrupt):
        first = time.monotonic()
        while True:
            started = time.monotonic()
            if arguments.night_after is not None and started - first >= arguments.night_after:
                camera.exposure = NIGHT
            detect(camera.frame().pixels)
            time.sleep(max(0, started + 1 / arguments.rate - time.monotonic()))


if __name__ == "__main__":
    main()
