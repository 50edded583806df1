"""The drift exporter of the demo: it compares half minutes with the first one that has enough to compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import DemoError
from demo.child import Child
from demo.services import ADDRESS, is_free

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "drift"
PORT = 9837
START_SECONDS = 30.0
LEARN = 300
"""Detections of a window that makes a reference."""


def configuration(folder: Path, prometheus: str) -> str:
    """Return drift.yml: everything is a hundred times quicker than it would be."""
    source = {"type": "prometheus", "url": prometheus, "baselines": ["frozen"], "learn": LEARN}
    # JSON is YAML.
    times = {"interval": "5s", "window": "30s", "delay": "3s"}
    return json.dumps({"store": str(folder / "drift.sqlite"), **times, "sources": [source]}, indent=1)


def command(config: Path, port: int) -> Sequence[str]:
    """Return the command that starts the exporter on a port."""
    program = [sys.executable, "-m", "infermeter_exporters", "drift-exporter", f"--web.listen-address={ADDRESS}:{port}"]
    return [*program, f"--config.file={config}"]


def advice(port: int) -> str:
    """Return what to do when it fails."""
    return f"run `infermeter drift-exporter --web.listen-address={ADDRESS}:{port}` to see it fail by itself."


def require_free(port: int) -> None:
    """Raise `DemoError` if its port is taken."""
    if not is_free(port):
        message = (
            f"port {port}, where the drift exporter would serve its metrics, is in use: "
            "stop what listens there, or choose another port with --drift-port."
        )
        raise DemoError(message)


def start(folder: Path, port: int, prometheus: str) -> Child:
    """Start the exporter of a Prometheus, its files in `folder`."""
    config = folder / "drift.yml"
    config.write_text(configuration(folder, prometheus))
    return Child("the drift exporter", command(config, port), folder / "drift.log", cwd=Path(__file__).parent.parent)
