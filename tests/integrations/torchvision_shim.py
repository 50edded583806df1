"""A torchvision that works beside a torch for the CPU: the wheel of the package index is built for CUDA alone.

Its compiled operators cannot be loaded then, and importing it fails where it describes them. Declared here are the two
that it describes; the one that detectors call, non-maximum suppression, is written in tensors.
"""

import os
import tempfile
from typing import Any

_kept: list[Any] = []  # a library of operators is taken back when it is collected


def mend() -> None:
    """Make `import torchvision` work, and do nothing where it does."""
    try:
        import torchvision
    except RuntimeError:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _suppressed, "CPU")
        _kept.append(library)
        import torchvision
        import torchvision.extension

        torchvision.extension._has_ops = lambda: True


def offline() -> None:
    """Have ultralytics install nothing, ask nobody, say little, and keep its settings out of the home folder."""
    os.environ.update({"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="ultralytics-"))


def _suppressed(boxes: Any, scores: Any, threshold: float) -> Any:
    """Indices of the boxes that stay, best score first: each takes away the worse ones that it overlaps too much."""
    import torch

    order = scores.argsort(descending=True)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        corner = torch.maximum(boxes[best, :2], boxes[order, :2])
        opposite = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (opposite - corner).clamp(min=0).prod(dim=1)
        order = order[shared / (areas[best] + areas[order] - shared) <= threshold]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)
