"""What is read of a process, what it is called, and the service that follows from all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.attribution_rules import rules
from infermeter_exporters.gpu.cgroups import Place
from infermeter_exporters.gpu.containers import Container
from infermeter_exporters.gpu.processes import Gone, Process, process_name, read, service_of, start_time
from infermeter_exporters.gpu.services import Owner, owner

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("comm", "command", "name"),
    [
        ("python3", "python3 /srv/face/serve.py --token s3cret", "serve"),
        ("python3.11", "/usr/bin/python3.11 -u -X dev -W error serve.py", "serve"),
        ("python", "python -m face.server --port 1", "face.server"),
        ("python", "python -mface.server", "face.server"),
        ("python", "python /srv/face/__main__.py", "face"),
        ("python", "python -c print(1) secret.py", "python"),
        ("python", "python -uc print(1)", "python"),
        ("python", "python", "python"),
        ("pt_main_thread", "python /usr/local/bin/torchrun --nproc-per-node 8 train.py --key s3cret", "train"),
        ("python", "python -m torch.distributed.run --nnodes 2 /w/train.py", "train"),
        ("gunicorn", "/v/bin/python /v/bin/gunicorn -w 4 face.api:app", "face.api"),
        ("gunicorn", "gunicorn: worker [face.api:app]", "face.api:app"),
        ("uvicorn", "/v/bin/python /v/bin/uvicorn main:make() --factory", "main"),
        ("uvicorn", "uvicorn --port 80", "uvicorn"),
        ("vllm", "/v/bin/python /v/bin/vllm serve llama", "vllm"),
        ("VLLM::EngineCor", "VLLM::EngineCore_0", "vllm"),
        ("ray::IDLE", "ray::ServeReplica:face", "ray"),
        ("tritonserver", "/opt/tritonserver/bin/tritonserver --model-repository=/m", "tritonserver"),
        ("text-generation", "text-generation-launcher --model-id x", "text-generation-launcher"),
        ("worker", "/usr/bin/ffmpeg -i rtsp://user:pass@host", "worker"),
        ("Xorg", "", "Xorg"),
        ("", "", "unknown_process"),
    ],
)
def test_names_of_processes(comm: str, command: str, name: str) -> None:
    """The program; of Python what it runs; never an argument that might be secret."""
    words = [command] if ": worker" in command else command.split()
    assert process_name(comm, words) == name


def tree(proc: Path, pid: int, start: int = 100, **files: str) -> None:
    """A process in a folder like /proc."""
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    stat = f"{pid} (a) b (c) S {files.pop('parent', '1')} " + "0 " * 17 + f"{start} 0 0"
    defaults = {"cgroup": "0::/\n", "comm": "python\n", "cmdline": "python\0serve.py\0", "environ": "", "stat": stat}
    for name, text in (defaults | files).items():
        (folder / name).write_text(text, encoding="utf-8")


def test_a_process(tmp_path: Path) -> None:
    """The start is field 22 even where the name looks like fields; only a few variables are kept."""
    environment = "HOME=/root\0SECRET=x\0OTEL_SERVICE_NAME=face\0OTEL_SERVICE_NAME=other\0HOSTNAME=h"
    tree(tmp_path, 7, 4711, cgroup="0::/system.slice/face.service\n", environ=environment)
    assert start_time(str(tmp_path), 7) == 4711
    found = read(str(tmp_path), 7)
    assert found._replace(user="") == Process(
        Place(unit="face.service"), "serve", "", {"OTEL_SERVICE_NAME": "face", "HOSTNAME": "h"}
    )


def test_a_worker_of_multiprocessing_is_called_as_its_parent(tmp_path: Path) -> None:
    """Its own command line says nothing but that."""
    tree(tmp_path, 7)
    forked = "python\0-c\0from multiprocessing.spawn import spawn_main\0--multiprocessing-fork\0"
    tree(tmp_path, 8, cmdline=forked, parent="7")
    tree(tmp_path, 9, cmdline=forked, parent="9")
    assert read(str(tmp_path), 8).name == "serve"
    assert read(str(tmp_path), 9).name == "python"


def test_processes_that_are_gone(tmp_path: Path) -> None:
    """There is none, it is a zombie, or its files vanish one by one."""
    with pytest.raises(Gone):
        start_time(str(tmp_path), 7)
    tree(tmp_path, 7, stat="7 (x) Z 1 " + "0 " * 17 + "5 0")
    with pytest.raises(Gone):
        start_time(str(tmp_path), 7)
    for name in ("environ", "cmdline", "comm", "cgroup"):
        (tmp_path / "7" / name).unlink()
        with pytest.raises(Gone):
            read(str(tmp_path), 7)


def test_a_real_process() -> None:
    """This one, and one that it starts."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"INFERMETER_SERVICE": "face"},
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            child.stdout.readline()  # until it runs, Linux may show no environment of it
            assert start_time("/proc", child.pid) >= start_time("/proc", os.getpid()) > 0
            found = read("/proc", child.pid)
            assert found.environment is not None
            assert found.environment["INFERMETER_SERVICE"] == "face"
        finally:
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(Gone):  # it waits to be buried
            start_time("/proc", child.pid)


def test_a_real_cgroup() -> None:
    """A process that is put into the cgroup of a service is found there."""
    roots = [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")]
    root = next((root for root in roots if (root / "cgroup.procs").exists()), None)
    if root is None:
        pytest.skip("no cgroups are mounted")
    cgroup = root / f"infermeter-test-{os.getpid()}.service"
    try:
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    try:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            try:
                (cgroup / "cgroup.procs").write_text(str(child.pid), encoding="ascii")
                found = read("/proc", child.pid)
            finally:
                child.kill()
        assert found.place.unit == cgroup.name
    finally:
        cgroup.rmdir()


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment=a, service.name=face%20api,x"}, "face api"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "b"}, "b"),
        ({"INFERMETER_SERVICE": "c", "OTEL_SERVICE_NAME": "b"}, "c"),
        ({"INFERMETER_SERVICE": "", "OTEL_SERVICE_NAME": "b"}, "b"),
    ],
)
def test_names_in_the_environment(environment: Mapping[str, str], name: str) -> None:
    """Ours first, then those of OpenTelemetry, whose attributes are percent-encoded."""
    assert service_of(environment) == name


COMPOSE = {"com.docker.compose.service": "face", "com.docker.compose.project": "shop"}
POD = Container("main", "i", {}, "ml", "face-7d5bc8f6c9-x7k2p")


@pytest.mark.parametrize(
    ("place", "environment", "container", "service"),
    [
        (Place(), {"INFERMETER_SERVICE": "a"}, Container("c", labels={"infermeter.service": "b"}), "a"),
        (Place(), {"INFERMETER_SERVICE": "__a"}, Container(), "a"),
        (Place(), {"INFERMETER_SERVICE": "_"}, Container("c"), "c"),
        (Place(), {"OTEL_SERVICE_NAME": "unknown_service:python"}, Container("c"), "c"),
        (Place(), None, Container("c", labels=COMPOSE | {"infermeter.service": "b"}), "b"),
        (Place(), None, Container("c", labels=COMPOSE), "face"),
        (Place(), None, Container("s.1.x", labels={"com.docker.swarm.service.name": "s"}), "s"),
        (Place(), None, Container("systemd-face", labels={"PODMAN_SYSTEMD_UNIT": "face@1.service"}), "face"),
        (Place(), None, POD, "face"),
        (Place(), None, POD._replace(labels={"app.kubernetes.io/name": "f"}), "f"),
        (Place(unit="x.service"), None, Container("c"), "c"),
        (Place(unit="face@1.service"), None, Container(), "face"),
        (Place(slurm_job="7", unit="x.service"), {"SLURM_JOB_NAME": "train"}, Container(), "train"),
        (Place(slurm_job="7"), None, Container(), "slurm"),
        (Place(machine="vm"), None, Container(), "vm"),
        (Place(), None, Container(), "serve"),
        (Place(), {"INFERMETER_SERVICE": "a" * 300}, Container(), "a" * 256),
    ],
)
def test_the_order_of_names(
    place: Place, environment: Mapping[str, str] | None, container: Container, service: str
) -> None:
    """What was said on purpose goes before what follows from where something runs."""
    assert owner(Process(place, "serve", "ann", environment), container, ()).service == service


def test_rules_go_before_all_else() -> None:
    """And know all that is known."""
    rule = rules([{"match": {"workload": "(.*)", "user": "ann"}, "service": r"{namespace}/\1"}], "f")
    process = Process(Place(), "serve", "ann", {"INFERMETER_SERVICE": "a"})
    assert owner(process, POD, rule) == Owner("ml/face", "main", "ml", POD.pod, "serve")


@given(st.text(), st.text(), st.dictionaries(st.sampled_from(["INFERMETER_SERVICE", "OTEL_SERVICE_NAME"]), st.text()))
def test_a_service_is_never_empty_and_never_ours(name: str, comm: str, environment: dict[str, str]) -> None:
    """Whatever names are given: the names that begin with an underscore are the exporter's."""
    found = owner(Process(Place(), process_name(comm, [name]), "", environment), Container(name), ())
    assert found.service
    assert not found.service.startswith("_")
    assert len(found.service) <= 256
