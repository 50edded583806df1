"""Writes a labelled folder of the demo's scenes, on which its detector can be judged.

python -m benchmarks.models.labelled_scenes FOLDER [PICTURES]
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

from demo.scenes import SIDE, Camera

SEED = 1_000_003
"""Of scenes on which the detector was not trained."""


def write_scenes(folder: Path, count: int) -> None:
    """Write `images/N.png`, and `labels/N.txt` as YOLO writes them, into a folder that may exist."""
    from PIL import Image  # noqa: PLC0415

    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(islice(Camera(SEED).frames(), count)):
        Image.fromarray(frame.pixels).save(folder / "images" / f"{number:04}.png")
        lines = []
        for kind, (left, top, right, bottom) in zip(frame.classes, frame.boxes / SIDE, strict=True):
            box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            lines.append(f"{kind} {' '.join(f'{share:.6f}' for share in box)}\n")
        (folder / "labels" / f"{number:04}.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write_scenes(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)  # noqa: PLR2004
