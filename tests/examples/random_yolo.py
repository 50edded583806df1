"""Writes a YOLO of random weights that sees something else in each picture of a folder, and nothing in some.

python random_yolo.py CHECKPOINT FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.utils import ROOT, YAML

SIDE = 640


def write(checkpoint: str, folder: str) -> None:
    """Write the checkpoint, whose classes are those of COCO."""
    torch.manual_seed(1)
    net = YOLO("yolov8n.yaml")
    pictures = [np.asarray(Image.open(path).resize((SIDE, SIDE))) for path in sorted(Path(folder).iterdir())]
    for module in net.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean of what it sees next, without which everything fades on its way
    net.model.train()
    with torch.no_grad():
        net.model(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255)
    for branch in net.model.model[-1].cv3:  # what decides on classes: mostly sure of none
        branch[-1].weight.data.normal_(0, 0.08)
        branch[-1].bias.data.normal_(-7, 1)
    net.model.names = YAML.load(ROOT / "cfg" / "datasets" / "coco.yaml")["names"]
    net.save(checkpoint)


if __name__ == "__main__":
    write(*sys.argv[1:])
