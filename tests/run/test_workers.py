"""`infermeter run` with the programs that start several processes: what all of them did is on one page."""

from __future__ import annotations

import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.run.conftest import OPTIONS, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.run.conftest import Running

    Run = Callable[..., AbstractContextManager[Running]]
    Script = Callable[..., str]

WSGI = """
    import os
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(os.environ["NETWORK"], providers=["CPUExecutionProvider"])
    zeros = np.zeros((1, 3, 8, 8), np.float32)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/die":
            os.kill(os.getpid(), 9)
        session.run(None, {"a": zeros, "b": zeros})
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""
ASGI = """
    import os
    import numpy as np
    import onnxruntime
    from fastapi import FastAPI

    session = onnxruntime.InferenceSession(os.environ["NETWORK"], providers=["CPUExecutionProvider"])
    zeros = np.zeros((1, 3, 8, 8), np.float32)
    app = FastAPI()

    @app.get("/items/{item}")
    def item(item: int) -> int:
        session.run(None, {"a": zeros, "b": zeros})
        return os.getpid()
"""


@pytest.fixture
def network(tmp_path: Path) -> dict[str, str]:
    """A model that adds, in the environment of a service."""
    from tests.integrations.onnx_models import adder, written

    return {"NETWORK": written(tmp_path, "adder.onnx", adder()), "PYTHONPATH": str(tmp_path)}


@pytest.fixture
def port() -> int:
    """A free one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(service: Running, port: int, paths: list[str]) -> set[str]:
    """Answers of a service that is starting, to requests of several clients at once."""
    for _ in range(PATIENCE * 20):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert service.process.poll() is None, service.said
            time.sleep(0.05)

    def one(path: str) -> str:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE).text

    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(one, paths))


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_gunicorn(run: Run, script: Script, network: dict[str, str], port: int, preload: tuple[str, ...]) -> None:
    """Two workers, one of which is killed and replaced: every request is counted, and what is watched is told once."""
    script(WSGI, "service.py")
    # A worker that inherits a session of onnxruntime waits at its end for threads that did not come along, watched or
    # not.
    options = ("--no-control-socket", "--graceful-timeout", "2", *preload)
    gunicorn = ("-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", *options, "service:app")
    with run(sys.executable, *gunicorn, environment=network) as service:
        asked(service, port, ["/"] * 60)
        before = service.page_with("inferences_total", 60)
        assert before.value("infermeter_processes") >= 3
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/die", timeout=PATIENCE)
        asked(service, port, ["/"] * 39)
        page = service.page_with("inferences_total", 99)
        assert page.value("inference_duration_count", model="adder") == 99
        assert page.dropped() == {}
        service.process.send_signal(signal.SIGTERM)
        assert service.code() == 0
        assert service.said.count("watching onnxruntime") == 1


def test_uvicorn(run: Run, script: Script, network: dict[str, str], port: int) -> None:
    """Two workers that uvicorn spawns: the inferences, and the requests by route."""
    script(ASGI, "service.py")
    uvicorn = ("-m", "uvicorn", "--workers", "2", "--port", str(port), "--log-level", "warning", "service:app")
    with run(sys.executable, *uvicorn, environment=network) as service:
        workers = asked(service, port, [f"/items/{index}" for index in range(40)])
        page = service.page_with("inferences_total", 40)
        assert workers <= {str(pid) for pid in range(1, 2**22)}
        assert page.value("http_requests_total", endpoint="/items/{item}", status="200") == 40
        assert page.value("http_request_duration_seconds_count", endpoint="/items/{item}") == 40
        service.process.send_signal(signal.SIGTERM)
        assert service.code() in {0, 128 + 15}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(run: Run, script: Script, network: dict[str, str], method: str) -> None:
    """Children of every kind record for themselves, and what they did outlives them."""
    source = """
        import multiprocessing, os, sys
        import numpy as np

        def work(index):
            import onnxruntime
            session = onnxruntime.InferenceSession(os.environ["NETWORK"], providers=["CPUExecutionProvider"])
            zeros = np.zeros((1, 3, 8, 8), np.float32)
            for _ in range(10):
                session.run(None, {"a": zeros, "b": zeros})

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            children = [context.Process(target=work, args=(index,)) for index in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            print(*[child.exitcode for child in children], flush=True)
            sys.stdin.readline()
    """
    script(source, "work.py")
    with run(sys.executable, "-m", "work", method, options=OPTIONS, environment=network) as service:
        assert service.told() == "0 0 0"
        service.page_with("inferences_total", 30)
        service.go_on()
        assert service.code() == 0
        assert service.said.count("watching onnxruntime") == 1


def test_torchrun(run: Run, script: Script, tmp_path: Path) -> None:
    """Two ranks, each of which marks its module."""
    if find_spec("torch") is None:
        pytest.skip("make test-frameworks installs torch")
    source = """
        import pathlib, sys, time
        import torch
        import infermeter

        net = infermeter.watch(torch.nn.Linear(4, 2), "net")
        for _ in range(5):
            net(torch.zeros(3, 4))
        while not pathlib.Path(__file__).with_name("enough").exists():
            time.sleep(0.05)
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script(source))
    with run(sys.executable, *torchrun) as service:
        page = service.page_with("inferences_total", 10)
        assert page.value("inference_batch_size_sum", model="net") == 30
        (tmp_path / "enough").touch()
        assert service.code() == 0
