"""Trains the detector of the demo anew, measures it, and writes `detector.onnx` and `detector.json`.

    pip install torch==2.13.0 onnx onnxscript onnxruntime numpy
    python -m demo.train_detector      # some minutes on two cores

The network is a small CenterNet (Zhou et al., arXiv:1904.07850). It learns from scenes by day and at dusk, never at
night: in the dark it still finds some objects, but fewer and less surely, and that is what the demo wants to show.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch  # type: ignore[import-not-found, unused-ignore]
from torch import nn  # type: ignore[import-not-found, unused-ignore]
from torch.nn import functional  # type: ignore[import-not-found, unused-ignore]

from demo.accuracy import Confusion, confusion, mean_average_precision
from demo.detector import CELL, CLASSES, NETWORK, Detector
from demo.scenes import DAY, NIGHT, SIDE, Camera, Frame

if TYPE_CHECKING:
    from pathlib import Path

CELLS = SIDE // CELL
HELD_OUT_SEED, HELD_OUT = 1_000_003, 300
"""Scenes it is measured on; training uses another seed."""

BATCH = 32
SPREAD = 0.14
"""Standard deviation of the hill of heat around the middle of an object, in sides of its box."""


class Network(nn.Module):  # type: ignore[misc, unused-ignore]
    """Pictures (n, 3, 128, 128) to logits of heat, size and shift (n, 4 + 2 + 2, 32, 32); see `demo.detector`."""

    def __init__(self) -> None:
        """Two halvings to the cells, a third one to see more of the surroundings, and back."""
        super().__init__()
        self.near = nn.Sequential(_layer(3, 16, stride=2), _layer(16, 32, stride=2), _layer(32, 32))
        self.far = nn.Sequential(_layer(32, 64, stride=2), *(_layer(64, 64) for _ in range(4)), nn.Conv2d(64, 32, 1))
        self.both = _layer(32, 48)
        self.maps = nn.Conv2d(48, len(CLASSES) + 4, 1)
        nn.init.constant_(self.maps.bias[: len(CLASSES)], -4.0)  # heat begins near 0: most cells are empty

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        near = self.near(pictures)
        return self.maps(self.both(near + functional.interpolate(self.far(near), scale_factor=2.0)))


class Exported(nn.Module):  # type: ignore[misc, unused-ignore]
    """The network as `demo.detector` uses it: heat as a share of 1, and the three maps apart."""

    def __init__(self, network: Network) -> None:
        """Wrap a trained network."""
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return heat, size and shift."""
        maps = self.network(pictures)
        return maps[:, : len(CLASSES)].sigmoid(), maps[:, -4:-2], maps[:, -2:]


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution of 3 x 3 with what belongs to it."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def target(frame: Frame) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the maps to learn, float32 (4 + 2 + 2 + 1, 32, 32); the last is 1 where size and shift count."""
    maps = np.zeros((len(CLASSES) + 5, CELLS, CELLS), dtype=np.float32)
    cells = np.arange(CELLS, dtype=np.float32)
    for (left, top, right, bottom), kind in zip(frame.boxes / CELL, frame.classes, strict=True):
        x, y = (left + right) / 2, (top + bottom) / 2
        column, row = int(x), int(y)
        across = np.exp(-0.5 * ((cells - column) / (SPREAD * (right - left))) ** 2)
        along = np.exp(-0.5 * ((cells - row) / (SPREAD * (bottom - top))) ** 2)
        maps[kind] = np.maximum(maps[kind], along[:, np.newaxis] * across)
        maps[len(CLASSES) :, row, column] = np.log(right - left), np.log(bottom - top), x - column, y - row, 1
    return maps


def loss(maps: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the focal loss of the heat plus the distances of size and shift, per object."""
    kinds = len(CLASSES)
    heat = maps[:, :kinds].sigmoid().clamp(1e-4, 1 - 1e-4)
    truth, counts = wanted[:, :kinds], wanted[:, -1:]
    middle = truth == 1
    hit = (heat.log() * (1 - heat) ** 2)[middle].sum()
    empty = ((1 - heat).log() * heat**2 * (1 - truth) ** 4)[~middle].sum()
    distance = ((maps[:, kinds:] - wanted[:, kinds:-1]).abs() * counts).sum()
    return (distance - hit - empty) / counts.sum().clamp(min=1)


def training_frames(seed: int, count: int) -> list[Frame]:
    """Return frames by day, one in eight at dusk, with more noise and less."""
    camera, random = Camera(seed), np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        camera.exposure = random.uniform(0.4, 0.7) if random.random() < 1 / 8 else random.uniform(0.7, 1.25)
        camera.noise = random.uniform(1, 7)
        frames.append(camera.frame())
    return frames


def trained(seed: int, frames: list[Frame], epochs: int) -> Network:
    """Return a network that has seen every frame once an epoch."""
    torch.manual_seed(seed)
    network = Network()
    pictures = torch.from_numpy(np.stack([frame.pixels for frame in frames])).permute(0, 3, 1, 2).contiguous()
    wanted = torch.from_numpy(np.stack([target(frame) for frame in frames]))
    steps = epochs * (len(frames) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        total, order = 0.0, torch.randperm(len(frames))
        for start in range(0, len(frames) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            error = loss(network(pictures[chosen].float() / 255), wanted[chosen])
            optimiser.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            total += float(error.detach())
        print(f"epoch {epoch + 1} of {epochs}: loss {total / (len(frames) // BATCH):.3f}", flush=True)
    network.eval()
    return network


def export(network: Network, path: Path) -> None:
    """Write the network as ONNX, for any number of pictures at once."""
    torch.onnx.export(
        Exported(network).eval(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        path,
        input_names=["pictures"],
        output_names=["heat", "size", "shift"],
        dynamic_shapes={"pictures": {0: torch.export.Dim("n")}},
        opset_version=18,
        external_data=False,
        dynamo=True,
    )
    written = onnx.load(path)
    for value in (*written.graph.node, *written.graph.value_info, written.graph, written):
        value.ClearField("metadata_props")  # the exporter notes where on this machine each line of code was
    onnx.save(written, path)


def measured(exposure: float) -> dict[str, Any]:
    """Return how good the written network is on the held-out scenes in that light."""
    frames = list(islice(Camera(HELD_OUT_SEED, exposure=exposure).frames(), HELD_OUT))
    ranked, reporting = Detector(threshold=0.02), Detector()
    found = [reporting.detect(frame.pixels) for frame in frames]
    counts = sum((confusion(*pair) for pair in zip(found, frames, strict=True)), Confusion())
    sure = np.concatenate([boxes.confidences for boxes in found])
    return {
        "exposure": exposure,
        "map_50": round(mean_average_precision([ranked.detect(frame.pixels) for frame in frames], frames), 4),
        "mean_confidence": round(float(sure.mean()), 4) if len(sure) else None,
        **asdict(counts),
        "accuracy": round(counts.accuracy, 4),
    }


def main() -> None:
    """Train, export, measure, and write down what was measured."""
    parser = argparse.ArgumentParser(prog="python -m demo.train_detector", description="Train the demo's detector.")
    parser.add_argument("--seed", type=int, default=7, help="of scenes, weights and order (default 7)")
    parser.add_argument("--frames", type=int, default=4000, help="different frames (default 4000)")
    parser.add_argument("--epochs", type=int, default=9, help="times each of them is seen (default 9)")
    arguments = parser.parse_args()

    started = time.monotonic()
    network = trained(arguments.seed, training_frames(arguments.seed, arguments.frames), arguments.epochs)
    seconds = round(time.monotonic() - started)
    export(network, NETWORK)
    report = {
        "classes": list(CLASSES),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "bytes": NETWORK.stat().st_size,
        "training": {**vars(arguments), "seconds": seconds},
        "held_out": {"seed": HELD_OUT_SEED, "frames": HELD_OUT, "day": measured(DAY), "night": measured(NIGHT)},
    }
    NETWORK.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
