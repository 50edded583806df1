"""The services of the demo: where each one listens, and how it is started."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from demo import DemoError
from demo.child import Child

ADDRESS = "127.0.0.1"
START_SECONDS = 60.0
"""How long a service may take to answer: importing onnxruntime from a cold disk takes longest."""


@dataclass(frozen=True)
class Service:
    """One service: `python -m module --port port` serves http://127.0.0.1:port/metrics."""

    name: str
    module: str
    port: int
    flags: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Host and port, as Prometheus writes its targets."""
        return f"{ADDRESS}:{self.port}"

    @property
    def url(self) -> str:
        """Where its metrics are."""
        return f"http://{self.target}/metrics"

    @property
    def advice(self) -> str:
        """What to do when it fails."""
        return f"run `{Path(sys.executable).name} -m {self.module} --port {self.port}` to see it fail by itself."

    def start(self, folder: Path) -> Child:
        """Start it, its log in `folder`; `DemoError` if its port is taken."""
        if not is_free(self.port):
            message = (
                f"port {self.port}, where {self.name} would serve its metrics, is in use: "
                f"stop what listens there, or choose another port with --{self.name}-port."
            )
            raise DemoError(message)
        command = [sys.executable, "-m", self.module, "--port", str(self.port), *self.flags]
        return Child(self.name, command, folder / f"{self.name}.log", cwd=Path(__file__).parent.parent)


SERVICES = (
    Service("face-detection", "demo.face_detection", 8002),
    Service("object-detection", "demo.object_detection", 8003),
)


def is_free(port: int) -> bool:
    """Return whether nobody listens on the port of the loopback address."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that still linger are no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def any_free_port() -> int:
    """Return a port of the loopback address on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
