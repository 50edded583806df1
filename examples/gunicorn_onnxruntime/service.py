"""A model behind Flask: POST a picture, and get how sure it is of each class. Nothing here knows of infermeter."""

import os

import numpy as np
import onnxruntime
from flask import Flask, Response, jsonify, request
from PIL import Image

app = Flask(__name__)
session = onnxruntime.InferenceSession(os.environ.get("MODEL", "../../demo/detector.onnx"))


@app.post("/classes")
def classes() -> Response:
    """Look at one picture; the model wants RGB of 0 to 1, float32 of shape (1, 3, 128, 128)."""
    picture = Image.open(request.stream).convert("RGB").resize((128, 128))
    batch = np.asarray(picture, np.float32).transpose(2, 0, 1)[np.newaxis] / 255
    heat = session.run(["heat"], {"pictures": batch})[0][0]  # a map for each class
    return jsonify(dict(zip(("car", "person", "bicycle", "sign"), heat.max(axis=(1, 2)).tolist(), strict=True)))
