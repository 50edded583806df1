"""Looks at each picture of a folder, writes what it sees, and when it ends pushes how it went to a Pushgateway.

python job.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import infermeter

CLASSES = ("car", "person", "bicycle", "sign")
SURE = 0.5
session = onnxruntime.InferenceSession(os.environ.get("MODEL", "../../demo/detector.onnx"))


@infermeter.track(model="scenes-s", version="1")
def look(path: Path) -> dict[str, float]:
    """Tell what kinds of objects are in a picture, and how sure that is."""
    picture = Image.open(path).convert("RGB").resize((128, 128))
    batch = np.asarray(picture, np.float32).transpose(2, 0, 1)[np.newaxis] / 255
    best = session.run(["heat"], {"pictures": batch})[0][0].max(axis=(1, 2))  # of the map of each class
    (seen,) = np.nonzero(best >= SURE)
    infermeter.current().detections(best[seen], seen, CLASSES)
    return {CLASSES[kind]: float(best[kind]) for kind in seen}


def work(folder: Path) -> None:
    """Look at all pictures; one that cannot be read is an error of the page, and not the end of the job."""
    for path in sorted(folder.iterdir()):
        try:
            print(json.dumps({"picture": path.name, "seen": look(path)}))
        except OSError as error:
            print(f"{path.name}: {error}", file=sys.stderr)


infermeter.configure(service="nightly")
try:
    work(Path(sys.argv[1]))
finally:
    infermeter.push(os.environ.get("PUSHGATEWAY", "127.0.0.1:9091"), job="nightly")
