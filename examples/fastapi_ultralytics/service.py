"""A detector behind FastAPI: POST a picture to /detect, and get the boxes. Nothing here knows of infermeter."""

import io
import os
import threading
from typing import Annotated

from fastapi import Body, FastAPI
from PIL import Image
from ultralytics import YOLO

app = FastAPI()
net = YOLO(os.environ.get("MODEL", "yolov8n.pt"))
turn = threading.Lock()  # requests come in several threads, and a model is for one at a time


@app.post("/detect")
def detect(picture: Annotated[bytes, Body(media_type="image/jpeg")]) -> list[dict[str, str | float | list[float]]]:
    """Find objects: class, confidence, and left, top, right and bottom in pixels."""
    with turn:
        boxes = net(Image.open(io.BytesIO(picture)), verbose=False)[0].boxes
    rows = zip(boxes.cls.tolist(), boxes.conf.tolist(), boxes.xyxy.tolist(), strict=True)
    return [{"class": net.names[int(kind)], "confidence": sure, "box": box} for kind, sure, box in rows]
