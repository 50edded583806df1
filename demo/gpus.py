"""The GPU exporter of the demo: of this machine's GPUs or, where there are none, of simulated ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import DemoError
from demo.child import Child
from demo.services import ADDRESS, is_free

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "GPUs"
PORT = 9835
START_SECONDS = 30.0
SIMULATED = "h100x2,shared"
# What a driver of NVIDIA makes, on Linux and within Windows.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def simulated() -> bool:
    """Return whether there is no GPU here that could be watched."""
    return not any(path.exists() for path in _DRIVERS)


def command(port: int) -> Sequence[str]:
    """Return the command that starts the exporter on a port."""
    program = [sys.executable, "-m", "infermeter_exporters", "gpu-exporter", f"--web.listen-address={ADDRESS}:{port}"]
    return [*program, f"--simulate={SIMULATED}"] if simulated() else program


def advice(port: int) -> str:
    """Return what to do when it fails."""
    return f"run `{' '.join(['infermeter', *command(port)[3:]])}` to see it fail by itself."


def start(folder: Path, port: int) -> Child:
    """Start the exporter, its log in `folder`; `DemoError` if its port is taken."""
    if not is_free(port):
        message = (
            f"port {port}, where the GPU exporter would serve its metrics, is in use: "
            "stop what listens there, or choose another port with --gpus-port."
        )
        raise DemoError(message)
    return Child("the GPU exporter", command(port), folder / "gpus.log", cwd=Path(__file__).parent.parent)
