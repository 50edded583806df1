"""What a model is called, from where it is stored."""

import os
from pathlib import PurePath

# What tools call every model that they write, and the folders that they write them to: the folder above tells more.
_ANY_MODEL = {"model", "model_fp16", "model_quantized", "model_int8", "best", "last", "weights", "pytorch_model"}
_ANY_FOLDER = {"onnx", "weights", "models", "checkpoints", "snapshots"}


def from_path(path: str | os.PathLike[str]) -> str:
    """The name of the model that is stored at `path`: of its file, or if every model is called so, of its folder.

    `yolov8n.onnx` is `yolov8n`, `face/onnx/model.onnx` is `face`, `best.pt` without a folder is `best`.
    """
    pure = PurePath(os.fspath(path))
    own = pure.stem or pure.name
    if own.lower() in _ANY_MODEL:
        for folder in pure.parts[-2::-1]:
            if folder.lower() not in _ANY_FOLDER and folder.strip("./\\"):
                return folder
    return own
