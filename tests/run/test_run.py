"""`infermeter run`: a service as it is; what is on the page is the truth, and nothing of the service changes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.run.conftest import Running

    Run = Callable[..., AbstractContextManager[Running]]
    Script = Callable[..., str]

# It writes its truth as JSON, waits, and ends with code 7.
SERVICE = """
    import json, sys
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(7)
    truth = {"scores": [], "labels": [], "frames": []}
    for index in range(25):
        number = int(rng.integers(0, 9))
        drawn, kinds = rng.random(number, np.float32), rng.integers(0, 3, number)
        boxes, scores, labels = session.run(None, {"x": np.zeros((number, 4), np.float32), "s": drawn, "l": kinds})
        truth["scores"] += scores.tolist()
        truth["labels"] += labels.tolist()
        truth["frames"].append(len(scores))
    print(json.dumps(truth), flush=True)
    sys.stdin.readline()
    sys.exit(7)
"""
NAMES = {0: "person", 1: "dog", 2: "car"}
# A library of that name, where there is none: what the bootstrap waits for.
LIBRARY = "raise ImportError('no such thing')"


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A detector whose output is its input."""
    from tests.integrations.onnx_models import FLOAT, INT64, passed_through, written

    tensors = (("x", "boxes", FLOAT, ("n", 4)), ("s", "scores", FLOAT, ("n",)), ("l", "labels", INT64, ("n",)))
    return written(tmp_path, "face.onnx", passed_through(*tensors, metadata={"names": str(NAMES)}))


def at_most(values: list[float], edge: float) -> int:
    """What a bucket of a classic histogram holds."""
    return sum(value <= edge for value in values)


def test_an_unmodified_script_is_told_as_it_is(run: Run, script: Script, network: str) -> None:
    """Durations, confidences, objects per frame and classes are those of the results themselves."""
    with run(sys.executable, script(SERVICE), network) as service:
        truth = json.loads(service.told())
        page = service.page_with("inferences_total", 25)
        assert page.value("inference_duration_count", model="face", service="gate") == 25
        assert page.value("detection_confidence_count") == len(truth["scores"])
        assert page.value("detection_confidence_sum") == pytest.approx(sum(truth["scores"]), rel=1e-12)
        for edge, number in page.by("le", "detection_confidence_bucket").items():
            assert number == at_most(truth["scores"], float(edge))
        for edge, number in page.by("le", "objects_per_frame_bucket").items():
            assert number == at_most(truth["frames"], float(edge))
        assert page.by("class", "detections_total") == Counter(NAMES[label] for label in truth["labels"])
        assert page.value("model_load_seconds_count", model="face") == 1
        assert page.dropped() == {}
        service.go_on()
        assert service.code() == 7
        assert service.said.count("watching onnxruntime") == 1


def test_an_unmodified_ultralytics_script_is_told_as_it_is(
    run: Run, script: Script, tmp_path: Path, mended: dict[str, str]
) -> None:
    """The same of ultralytics, whose results say how long each image took."""
    if find_spec("ultralytics") is None:
        pytest.skip("make test-frameworks installs ultralytics")
    source = """
        import json, sys
        import numpy as np
        from ultralytics import YOLO

        model = YOLO("yolov8n.yaml")
        rng = np.random.default_rng(3)
        truth = {"scores": [], "frames": [], "classes": [], "seconds": []}
        for index in range(3):
            images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2)]
            for result in model.predict(images, imgsz=64, conf=0.00001, max_det=20, verbose=False):
                truth["scores"] += result.boxes.conf.tolist()
                truth["classes"] += [result.names[int(one)] for one in result.boxes.cls]
                truth["frames"].append(len(result.boxes))
                truth["seconds"].append(sum(result.speed.values()) / 1000)
        print("\\n" + json.dumps(truth), flush=True)
        sys.stdin.readline()
    """
    with run(sys.executable, script(source), folder=tmp_path, environment=mended) as service:
        line = service.told()
        while not line.startswith("{"):
            line = service.told()
        truth = json.loads(line)
        assert len(truth["scores"]) > 0
        page = service.page_with("inferences_total", 6)
        assert page.value("inference_duration_count", model="yolov8n", service="gate") == 6
        assert page.value("inference_duration_sum") == pytest.approx(sum(truth["seconds"]), rel=1e-9)
        for edge, number in page.by("le", "inference_duration_bucket").items():
            assert number == at_most(truth["seconds"], float(edge))
        assert page.value("detection_confidence_sum") == pytest.approx(sum(truth["scores"]), rel=1e-6)
        for edge, number in page.by("le", "detection_confidence_bucket").items():
            assert number == at_most(truth["scores"], float(edge))
        for edge, number in page.by("le", "objects_per_frame_bucket").items():
            assert number == at_most(truth["frames"], float(edge))
        assert page.by("class", "detections_total") == Counter(truth["classes"])
        assert page.dropped() == {}
        service.go_on()
        assert service.code() == 0


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        ((sys.executable, "-c", "import sys; sys.exit(7)"), 7),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"), 128 + 15),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), 128 + 9),
        (("no-such-program-anywhere",), 127),
        (("/etc/passwd",), 126),
        (("/etc",), 126),
    ],
)
def test_exit_codes_are_those_of_the_service(run: Run, command: tuple[str, ...], code: int) -> None:
    """And those that shells give where it cannot be started."""
    with run(*command) as service:
        assert service.code() == code
        assert ("cannot run" in service.said) == (code in {126, 127})


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU"])
def test_signals_reach_the_service(run: Run, script: Script, name: str) -> None:
    """What is sent to the command is sent on, once; how the service takes it is its own matter."""
    number = signal.Signals[name]
    source = f"""
        import signal, sys, time
        seen = []
        signal.signal({int(number)}, lambda *_: seen.append(1))
        print("ready", flush=True)
        while not seen:
            time.sleep(0.01)
        time.sleep(0.2)
        sys.exit(len(seen))
    """
    with run(sys.executable, script(source)) as service:
        assert service.told() == "ready"
        service.process.send_signal(number)
        assert service.code() == 1


def test_what_a_terminal_says_is_heard_once(run: Run, script: Script) -> None:
    """Ctrl-C reaches both processes of a terminal; only a signal that one process got is passed on."""
    source = """
        import os, pty, signal, sys, time
        # A terminal of its own, in which the command and its service are the foreground.
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "infermeter_exporters", "run", "--port", "0", "--",
                                      sys.executable, "-c", sys.argv[1]])
        said = b""
        while b"ready" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, b"\\x03")
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    inner = (
        "import signal, sys, time\nseen = []\nsignal.signal(2, lambda *_: seen.append(1))\n"
        "print('ready', flush=True)\nwhile not seen: time.sleep(0.01)\ntime.sleep(0.3)\nsys.exit(len(seen))"
    )
    done = subprocess.run(
        [sys.executable, script(source), inner], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "1", done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "onxruntime"), "run('onxruntime') names no integration, did you mean 'onnxruntime'?"),
        (("--except", "torch,nothing-like-it"), "run('nothing-like-it') names no integration"),
        (("--port", "70000"), "serve(70000) is not a port number of 0 to 65535"),
        (("--service", "_gate"), "service='_gate' is not a non-empty string"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    run: Run, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """One sentence, code 2, and no service."""
    with run("touch", str(tmp_path / "started"), options=options) as service:
        assert service.code() == 2
        assert service.said.startswith("infermeter: ")
        assert said in service.said
        assert service.said.count("\n") == 1
    assert not (tmp_path / "started").exists()


def test_a_port_in_use_is_told_before_anything_starts(run: Run, tmp_path: Path) -> None:
    """A service whose metrics nobody could read is not started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        options = ("--addr", "127.0.0.1", "--port", str(other.getsockname()[1]))
        with run("touch", str(tmp_path / "started"), options=options) as service:
            assert service.code() == 2
            assert "is in use" in service.said
    assert not (tmp_path / "started").exists()


def test_no_command_is_a_mistake(run: Run) -> None:
    """It says what is expected."""
    with run() as service:
        assert service.code() == 2
        assert "infermeter run -- python service.py" in service.said


def test_only_and_except(run: Run, script: Script, network: str) -> None:
    """What is not asked for is not watched."""
    for options in (("--only", "flask,openai"), ("--except", "onnxruntime")):
        with run(sys.executable, script(SERVICE), network, options=(*options, "--port", "0")) as service:
            service.told()
            assert "inferences_total" not in service.page().names
            service.go_on()
            assert service.code() == 7
            assert "watching" not in service.said


def test_a_python_that_imports_no_library_pays_nothing(run: Run, script: Script) -> None:
    """Neither infermeter nor NumPy is imported, and PYTHONPATH gains one folder."""
    source = """
        import json, os, sys
        import sitecustomize
        print(json.dumps([sorted({"infermeter", "numpy", "prometheus_client"} & sys.modules.keys()),
                          os.environ["PYTHONPATH"], sys.path]), flush=True)
    """
    path = script(source)
    with run(sys.executable, path, environment={"PYTHONPATH": "/one:/two"}) as service:
        imported, python_path, paths = json.loads(service.told())
        assert service.code() == 0
    plain = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "/one:/two"},
    )
    ours, *others = python_path.split(":")
    assert (imported, others) == ([], ["/one", "/two"])
    assert {file.name for file in Path(ours).iterdir()} <= {"__pycache__", "sitecustomize.py"}
    assert [one for one in paths if one != ours][1:] == json.loads(plain.stdout)[1:]


def test_a_sitecustomize_of_the_users_own_runs(run: Run, script: Script) -> None:
    """The one that ours hides is run, and is the module of that name."""
    path = script("import sitecustomize; print(sitecustomize.MINE, sitecustomize.__file__)")
    mine = script("MINE = 'mine'", "site/sitecustomize.py")
    with run(sys.executable, path, environment={"PYTHONPATH": str(Path(mine).parent)}) as service:
        assert service.told() == f"mine {mine}"
        assert service.code() == 0


def test_a_broken_sitecustomize_is_as_broken_as_before(run: Run, script: Script, network: str) -> None:
    """Python tells of it and goes on, and the service is watched."""
    path = script(SERVICE)
    mine = script("raise ValueError('mine is broken')", "site/sitecustomize.py")
    with run(sys.executable, path, network, environment={"PYTHONPATH": str(Path(mine).parent)}) as service:
        service.told()
        assert service.page_with("inferences_total", 25).value("inferences_total", model="face") == 25
        service.go_on()
        assert service.code() == 7
        assert "mine is broken" in service.said


def test_children_never_bind(run: Run, script: Script) -> None:
    """A service that serves its metrics itself does so by the command: its port stays free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = f"""
        import socket, sys
        import infermeter
        with infermeter.serve({port}, "127.0.0.1") as server:
            infermeter.track(model="mine")(lambda: None)()
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", {port}))
            print(server.port, flush=True)
            sys.stdin.readline()
    """
    with run(sys.executable, script(source)) as service:
        assert service.told() == "0"
        assert service.page_with("inferences_total", 1).value("inferences_total", model="mine", service="gate") == 1
        service.go_on()
        assert service.code() == 0


def test_another_environment_is_told(run: Run, script: Script, tmp_path: Path) -> None:
    """A Python in which infermeter is not installed runs as it does without, and one line says why nothing is seen."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    script("VERSION = 1", "onnxruntime.py")
    path = script("import onnxruntime; print(onnxruntime.VERSION)")
    with run(str(tmp_path / "venv/bin/python"), path) as service:
        assert service.told() == "1"
        assert service.code() == 0
        assert "onnxruntime is not watched in" in service.said
        assert "is not installed there" in service.said


def test_nothing_is_left_behind(run: Run, script: Script, network: str, tmp_path: Path) -> None:
    """The folder that the processes shared is gone when the command ends."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with run(sys.executable, script(SERVICE), network, environment={"TMPDIR": str(temporary)}) as service:
        service.told()
        assert len(list(temporary.iterdir())) == 1
        service.go_on()
        assert service.code() == 7
    assert list(temporary.iterdir()) == []


def test_a_folder_of_the_users_own_is_kept(run: Run, script: Script, network: str, tmp_path: Path) -> None:
    """Where the environment names one, what was counted goes on there the next time."""
    environment = {"INFERMETER_MULTIPROC_DIR": str(tmp_path / "mine")}
    for total in (25, 50):
        with run(sys.executable, script(SERVICE), network, environment=environment) as service:
            service.told()
            assert service.page_with("inferences_total", total).value("inferences_total", model="face") == total
            service.go_on()
            assert service.code() == 7


def subreaper() -> None:
    """Have orphans below become children of this process, as they do of process 1."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def test_orphans_are_buried(run: Run, script: Script) -> None:
    """As process 1 of a container it waits for those whose parents did not."""
    source = """
        import os, sys, time
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.2)
            os._exit(0)
        os.wait()
        print("orphaned", flush=True)
        sys.stdin.readline()
    """
    with run(sys.executable, script(source), prepare=subreaper) as service:
        assert service.told() == "orphaned"
        pid = service.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        deadline = time.monotonic() + 20
        while len(children.read_text().split()) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(children.read_text().split()) == 1
        service.go_on()
        assert service.code() == 0
