"""The face detection service of the demo: everything infermeter needs from it is in the lines that say `infermeter`.

    python -m demo.face_detection --port 8002      # metrics at http://127.0.0.1:8002/metrics

Its camera is `photographs.frames`, its model `centerface.CenterFace`; it runs until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import infermeter
from demo.centerface import CenterFace, Faces
from demo.photographs import frames

if TYPE_CHECKING:
    from demo.photographs import Pixels

with infermeter.load(model="centerface"):
    model = CenterFace()


@infermeter.track(model="centerface", names=("face",))
def detect(picture: Pixels) -> Faces:
    """Find the faces in an RGB picture, uint8 of shape (height, width, 3)."""
    faces = model.detect(picture)
    call = infermeter.current()
    call.input_size(picture.nbytes)
    call.detections(faces.confidences, classes=[0] * len(faces))
    return faces


def main() -> None:
    """Serve the metrics and detect faces, one frame after the other, at a steady rate."""
    parser = argparse.ArgumentParser(prog="python -m demo.face_detection", description="Find faces, and be measured.")
    parser.add_argument("--port", type=int, default=8002, help="where /metrics is served (default 8002)")
    parser.add_argument("--address", default="127.0.0.1", help="on this address (default 127.0.0.1)")
    parser.add_argument("--rate", type=float, default=12, help="frames a second (default 12)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same frames (default 0)")
    arguments = parser.parse_args()

    infermeter.configure(service="face-detection", cost=infermeter.CostModel(usd_per_hour=2.10))
    infermeter.serve(arguments.port, addr=arguments.address)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM, too, is a KeyboardInterrupt
    with contextlib.suppress(KeyboardInterrupt):
        for frame in frames(arguments.seed):
            started = time.monotonic()
            detect(frame.pixels)
            time.sleep(max(0, started + 1 / arguments.rate - time.monotonic()))


if __name__ == "__main__":
    main()
