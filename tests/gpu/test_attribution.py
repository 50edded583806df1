"""The cache of owners: what is known when, what is tried again, and what a page says of what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infermeter_exporters.gpu.attribution import Attribution, Owner, sources_of
from infermeter_exporters.gpu.attribution_rules import rules
from infermeter_exporters.gpu.containers import Container, NamesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infermeter_exporters.gpu.cgroups import Place

A, B = "ab" * 32, "0123456789abcdef" * 4
FACE = Owner("face", "", "", "", "serve")
IN_A = Owner("face", "face-1", "", "", "serve")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Runtime:
    """A source of names that a test changes while it is asked."""

    needs = "the socket /run/x.sock"
    gives = "names"

    def __init__(self, name: str = "docker", *, there: bool = True) -> None:
        self.name = name
        self.there = there
        self.problem = ""
        self.known: dict[str, Container] = {}
        self.asked = 0

    def present(self) -> bool:
        return self.there

    def find(self, place: Place, environment: Mapping[str, str]) -> Container | None:
        self.asked += 1
        if self.problem:
            raise NamesError(self.problem)
        return self.known.get(place.containers[0])


def process(proc: Path, pid: int, start: int = 100, cgroup: str = "/", environ: str = "") -> None:
    """A process in a folder like /proc."""
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    stat = f"{pid} (python) S 1 " + "0 " * 17 + f"{start} 0 0"
    files = {"cgroup": f"0::{cgroup}\n", "comm": "python\n", "cmdline": "python\0serve.py\0"}
    for name, text in (files | {"environ": environ, "stat": stat}).items():
        (folder / name).write_text(text, encoding="utf-8")


def gone(proc: Path, pid: int) -> None:
    for path in (proc / str(pid)).iterdir():
        path.unlink()
    (proc / str(pid)).rmdir()


def passing(attribution: Attribution, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    attribution.turn()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_is_not_known_is_found_out_later(tmp_path: Path, clock: Clock) -> None:
    """The one who asks waits for nothing."""
    process(tmp_path, 7, environ="INFERMETER_SERVICE=face")
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    assert attribution.status() == {}
    assert (attribution.owner(7), attribution.why(7)) == (None, "pending")
    attribution.turn()
    assert attribution.owner(7) == FACE
    assert attribution.status() == {"proc": True, "environment": True}
    assert attribution.missing() == []


def test_a_reused_pid_inherits_nothing(tmp_path: Path, clock: Clock) -> None:
    """It has another start; after two seconds the old name is not given any more."""
    process(tmp_path, 7, 100, environ="INFERMETER_SERVICE=face")
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    attribution.owner(7)
    attribution.turn()
    process(tmp_path, 7, 101, environ="INFERMETER_SERVICE=object")
    clock.now += 2
    assert (attribution.owner(7), attribution.why(7)) == (None, "pending")
    attribution.turn()
    assert attribution.owner(7) == FACE._replace(service="object")


def test_a_process_that_left(tmp_path: Path, clock: Clock) -> None:
    """It is nobody's after two seconds, and looked for again, soon at first."""
    process(tmp_path, 7, environ="INFERMETER_SERVICE=face")
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    attribution.owner(7)
    attribution.turn()
    gone(tmp_path, 7)
    assert attribution.owner(7) == FACE
    clock.now += 2
    assert attribution.owner(7) is None
    attribution.turn()
    assert attribution.why(7) == "no_such_process"
    process(tmp_path, 7, 200, environ="INFERMETER_SERVICE=object")
    attribution.turn()
    assert attribution.owner(7) is None
    passing(attribution, clock, 0.5)
    assert attribution.owner(7) == FACE._replace(service="object")


def test_what_nobody_asks_for_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    """A minute after the last question; memory does not grow with the processes of a day."""
    process(tmp_path, 7)
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    attribution.owner(7)
    attribution.turn()
    passing(attribution, clock, 60)
    assert list(attribution._entries) == [7]
    passing(attribution, clock, 1)
    assert list(attribution._entries) == []


def test_a_container_is_asked_for_once(tmp_path: Path, clock: Clock) -> None:
    """All its processes are in it."""
    runtime = Runtime()
    runtime.known[A] = Container("face-1", labels={"infermeter.service": "face"})
    attribution = Attribution(proc=str(tmp_path), sources=[runtime], clock=clock)
    for pid in (7, 8, 9):
        process(tmp_path, pid, cgroup=f"/docker/{A}")
        attribution.owner(pid)
    attribution.turn()
    assert [attribution.owner(pid) for pid in (7, 8, 9)] == [IN_A] * 3
    assert runtime.asked == 1
    assert attribution.status() == {"proc": True, "environment": True, "docker": True}


def test_a_container_that_just_starts(tmp_path: Path, clock: Clock) -> None:
    """No other name is given while its runtime may not know it yet; then its own, until a late one comes."""
    runtime = Runtime()
    process(tmp_path, 7, cgroup=f"/docker/{A}")
    attribution = Attribution(proc=str(tmp_path), sources=[runtime], clock=clock)
    attribution.owner(7)
    attribution.turn()
    for seconds in (0.5, 1, 2):
        assert (attribution.owner(7), attribution.why(7)) == (None, "pending")
        passing(attribution, clock, seconds)
    assert attribution.owner(7) == FACE._replace(service="serve")
    runtime.known[A] = Container("face-1", labels={"infermeter.service": "face"})
    passing(attribution, clock, 29)
    assert attribution.owner(7) == FACE._replace(service="serve")
    passing(attribution, clock, 1)
    assert attribution.owner(7) == IN_A
    assert attribution.missing() == []


def test_without_any_source_nothing_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    """There is nobody who could know more in a second; the page says what would."""
    process(tmp_path, 7, cgroup=f"/docker/{A}")
    attribution = Attribution(proc=str(tmp_path), sources=[Runtime(there=False)], clock=clock)
    attribution.owner(7)
    attribution.turn()
    assert attribution.owner(7) == FACE._replace(service="serve")
    assert attribution.status() == {"proc": True, "environment": True}
    assert attribution.missing() == [
        "Processes run in containers of which no name is known; the socket /run/x.sock gives names, and is not there."
    ]


def test_a_source_that_fails(tmp_path: Path, clock: Clock) -> None:
    """The next one is asked; it is left alone for two seconds, then four, up to a minute, and found when it is back."""
    broken, other = Runtime("docker"), Runtime("docker_files")
    broken.problem = "it hangs"
    attribution = Attribution(proc=str(tmp_path), sources=[broken, other], clock=clock)
    for pid, container in ((7, A), (8, B)):
        other.known[container] = Container(f"face-{pid}")
        process(tmp_path, pid, cgroup=f"/docker/{container}")
        attribution.owner(pid)
    attribution.turn()
    assert [owner.service for pid in (7, 8) if (owner := attribution.owner(pid))] == ["face-7", "face-8"]
    assert broken.asked == 1
    assert attribution.status() == {"proc": True, "environment": True, "docker": False, "docker_files": True}
    assert attribution.missing() == ["The socket /run/x.sock cannot be used (it hangs); it gives names."]
    passing(attribution, clock, 1.9)
    assert broken.asked == 1
    passing(attribution, clock, 0.1)
    passing(attribution, clock, 3.9)
    assert broken.asked == 2
    broken.problem = ""
    passing(attribution, clock, 0.1)
    assert broken.asked == 3
    assert attribution.status()["docker"]
    assert attribution.missing() == []


def test_a_socket_that_goes_away(tmp_path: Path, clock: Clock) -> None:
    """What is known stays known."""
    runtime = Runtime()
    runtime.known[A] = Container("face-1", labels={"infermeter.service": "face"})
    attribution = Attribution(proc=str(tmp_path), sources=[runtime], clock=clock)
    process(tmp_path, 7, cgroup=f"/docker/{A}")
    attribution.owner(7)
    attribution.turn()
    runtime.there = False
    process(tmp_path, 8, cgroup=f"/docker/{B}")
    attribution.owner(8)
    attribution.turn()
    assert attribution.owner(7) == IN_A
    assert attribution.status()["docker"] is False


def test_rules_may_change(tmp_path: Path, clock: Clock) -> None:
    """Owners follow, also those that are known."""
    process(tmp_path, 7, environ="INFERMETER_SERVICE=face")
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    attribution.owner(7)
    attribution.turn()
    attribution.set_rules(rules([{"match": {"process": "serve"}, "service": "mine"}], "f"))
    assert attribution.owner(7) == FACE
    attribution.turn()
    assert attribution.owner(7) == FACE._replace(service="mine")


def test_pids_of_another_namespace_are_nobodys(tmp_path: Path, clock: Clock) -> None:
    """A pid of the host may be that of another process here."""
    process(tmp_path, 7)
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock, host_pids=False)
    attribution.owner(7)
    attribution.turn()
    assert (attribution.owner(7), attribution.why(7)) == (None, "no_such_process")
    assert [sentence[:39] for sentence in attribution.missing()] == ["The pids of the host are not seen here "]


def test_files_of_the_kernel_that_are_not_as_they_should_be(tmp_path: Path, clock: Clock) -> None:
    """They are of a process that cannot be told, and the others are told."""
    process(tmp_path, 7)
    (tmp_path / "7" / "cgroup").unlink()
    (tmp_path / "7" / "cgroup").mkdir()
    process(tmp_path, 8)
    (tmp_path / "8" / "stat").write_text("nonsense", encoding="utf-8")
    process(tmp_path, 9)
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    for pid in (7, 8, 9):
        attribution.owner(pid)
    attribution.turn()
    assert [attribution.owner(pid) for pid in (7, 8)] == [None, None]
    assert attribution.why(8) == "no_such_process"
    assert attribution.owner(9) == FACE._replace(service="serve")


def test_hidden_processes(tmp_path: Path, clock: Clock) -> None:
    """Where /proc shows nobody the processes of others, not even process 1 is there."""
    (tmp_path / "stat").write_text("cpu 1 2 3", encoding="utf-8")
    attribution = Attribution(proc=str(tmp_path), sources=[], clock=clock)
    attribution.owner(7)
    attribution.turn()
    assert attribution.why(7) == "permission"
    assert attribution.status() == {"proc": False}
    assert [sentence.split(" (")[0] for sentence in attribution.missing()] == [
        f"Processes in {tmp_path} may not be looked at"
    ]
    process(tmp_path, 1)
    attribution.owner(8)
    attribution.turn()
    assert attribution.why(8) == "no_such_process"


AS_NOBODY = """
import os, sys
import pwd
from infermeter_exporters.gpu.attribution import Attribution
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
attribution = Attribution(proc=sys.argv[1], sources=[])
for pid in (7, 8):
    attribution.owner(pid)
attribution.turn()
print([attribution.owner(pid) for pid in (7, 8)], attribution.why(7), attribution.status())
print(*(sentence.split(" (")[0] for sentence in attribution.missing()), sep="\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may read nothing")
def test_without_permission() -> None:
    """What may not be read is said, and does not stop what may."""
    with tempfile.TemporaryDirectory() as folder:  # the folders of pytest may be entered by nobody
        proc = Path(folder)
        proc.chmod(0o755)
        for pid in (7, 8):
            process(proc, pid, cgroup="/system.slice/face.service")
            (proc / str(pid) / "environ").chmod(0o400)
        (proc / "7").chmod(0o700)
        command = [sys.executable, "-c", AS_NOBODY, folder]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == (
        "[None, Owner(service='face', container_name='', namespace='', pod='', process_name='serve')] permission "
        "{'proc': True, 'environment': False}\n"
        "The environment of processes may not be read\n"
    )


def test_the_thread(tmp_path: Path) -> None:
    """It finds out by itself what was asked for, and ends."""
    process(tmp_path, 7, environ="INFERMETER_SERVICE=face")
    attribution = Attribution(proc=str(tmp_path), sources=[])
    assert threads() == 0
    attribution.start()
    attribution.start()
    assert threads() == 1
    while attribution.owner(7) is None:
        threading.Event().wait(0.01)
    assert attribution.owner(7) == FACE
    attribution.stop()
    assert threads() == 0


def threads() -> int:
    return sum(thread.name == "infermeter-attribution" for thread in threading.enumerate())


def test_a_real_process() -> None:
    """One that this test starts, in the real /proc, with the real sources of this host."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=os.environ | {"OTEL_SERVICE_NAME": "face"}
    ) as child:
        attribution = Attribution(host_pids=True)
        attribution.owner(child.pid)
        attribution.turn()
        found = attribution.owner(child.pid)
        child.kill()
    if found is None:
        pytest.skip("this runs in a container that one of the sources may come to know")
    assert found.service == "face"


def test_sources_of_a_host() -> None:
    """All are under its root, and have names of their own."""
    sources = sources_of("/host")
    names = ["docker", "podman", "docker_files", "containerd", "crio", "container_logs", "pod_resources"]
    assert [source.name for source in sources] == names
    assert [source.needs for source in sources if " /host/" not in source.needs] == []
