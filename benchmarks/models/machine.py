"""What a benchmark ran on: processor, cores, GPUs, versions. No host name, no path, nothing that tells whose it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver for Linux tells of its devices, a folder each."""


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """The machine, and the versions of those of the distributions that are installed."""
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in sorted(set(libraries)) if (found := version(name))},
    }


def kind(facts: dict[str, Any]) -> tuple[Any, ...]:
    """What has to be equal for figures of two machines to be comparable."""
    return facts.get("cpu"), facts.get("cores"), tuple(facts.get("gpus", ()))


def cpu() -> str:
    """The model of the processor; its architecture where the system does not tell."""
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        told = None
    return told[1].strip() if told else platform.machine()


def gpus(folder: Path = GPUS) -> list[str]:
    """The names of the NVIDIA GPUs of this machine, in the order of their bus addresses."""
    names = []
    for file in sorted(folder.glob("*/information")):
        told = re.search(r"^Model:\s*(.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        names.append(told[1].strip() if told else "unknown")
    return names


def version(distribution: str) -> str:
    """The installed version, "" if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
