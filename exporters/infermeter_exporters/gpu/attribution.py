"""Whose the processes on GPUs are: a cache that never waits, and one thread that finds out.

A process is known by its pid and the time when it began, so that a reused pid never inherits a name for longer than it
takes to look again: at most `RECHECK` seconds.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from infermeter_exporters.gpu.attribution_rules import Rule
from infermeter_exporters.gpu.cgroups import Place
from infermeter_exporters.gpu.containers import Container, DockerApi, DockerFiles, Names, NamesError
from infermeter_exporters.gpu.kubernetes import ContainerLogs, Cri, PodResources
from infermeter_exporters.gpu.processes import Gone, Process, read, start_time
from infermeter_exporters.gpu.services import Owner, owner

__all__ = ["Attribution", "Owner", "sources_of"]

# Seconds. Looking at the time when a process began costs 10 us.
RECHECK = 2.0
AGAIN = 30.0  # until what could not be told is tried again
SOON = (0.5, 1.0, 2.0)  # the same at first: a container that is just starting is not known to its runtime yet
FORGET = 60.0  # after nobody asked for a process
KEEP_CONTAINER = 600.0
_BACKOFF_FIRST, _BACKOFF_LAST = 2.0, 60.0
_PERIOD = 1.0

_HOST_PIDS = "pid:[4026531836]"  # the namespace that the kernel begins with has this number on every Linux


class _Entry:
    """What is known of a pid."""

    __slots__ = ("checked", "due", "nameless", "owner", "reason", "seen", "start", "tries")

    def __init__(self, now: float) -> None:
        self.owner: Owner | None = None
        self.reason = "pending"
        self.start = -1
        self.seen = now
        self.checked = now
        self.due = now
        self.tries = 0
        self.nameless = False  # it runs in a container that no source knows


class _Source:
    """A source of names and how it fares."""

    __slots__ = ("backoff", "last", "names", "problem", "until", "up")

    def __init__(self, names: Names) -> None:
        self.names = names
        self.up: bool | None = None
        self.problem = ""
        self.backoff = 0.0
        self.until = float("-inf")
        self.last: tuple[Place, Mapping[str, str]] = (Place(), {})


class Attribution:
    """Whose processes are.

    Args:
        rules: by which services are named, before all else.
        proc: where the host's /proc is.
        sources: of names of containers, in the order in which they are asked; by default those under `root`.
        root: where the root of the host's file system is.
        host_pids: whether pids in `proc` are those of the host, which drivers speak of; by default it is found out for
            /proc, and believed of any other path.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        *,
        proc: str = "/proc",
        sources: Sequence[Names] | None = None,
        root: str = "/",
        host_pids: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._proc = proc
        self._sources = [_Source(names) for names in (sources_of(root) if sources is None else sources)]
        self._host_pids = _sees_host_pids(proc) if host_pids is None else host_pids
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._queue: deque[int] = deque()
        # By ids of containers and uid of the pod.
        self._containers: dict[tuple[tuple[str, ...], str], tuple[Container, float]] = {}
        self._readable: dict[str, bool] = {}
        self._logger = logging.getLogger("infermeter.gpu.attribution")
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def owner(self, pid: int) -> Owner | None:
        """Whose process it is, None if that is not known (yet).

        It waits for nothing: what is not known is left to the thread. Every 2 seconds it looks whether the pid still
        belongs to the process that it knows.
        """
        now = self._clock()
        entry = self._entries.get(pid)
        if entry is None:
            self._new(pid, now)
            return None
        entry.seen = now
        if entry.owner is None or now - entry.checked < RECHECK:
            return entry.owner
        entry.checked = now
        try:
            same = start_time(self._proc, pid) == entry.start
        except (Gone, OSError):
            same = False
        if same:
            return entry.owner
        self._new(pid, now)
        return None

    def _new(self, pid: int, now: float) -> None:
        self._entries[pid] = _Entry(now)
        self._queue.append(pid)
        self._wake.set()

    def why(self, pid: int) -> str:
        """Why `owner` gives None.

        Returns:
            `pending`: it is being found out, or waits for a container that just starts; `no_such_process`: there is
            none with this pid, as where the host's pids are not seen; `permission`: it may not be looked at;
            `unknown`: something failed that should not.
        """
        entry = self._entries.get(pid)
        return entry.reason if entry else "pending"

    def status(self) -> dict[str, bool]:
        """Whether each source could be used when it was last tried; those that were never tried are left out.

        `proc` tells whether processes may be looked at, `environment` whether their environment may.
        """
        found = dict(self._readable)
        found.update((source.names.name, source.up) for source in self._sources if source.up is not None)
        return found

    def missing(self) -> list[str]:
        """What would tell more, in sentences; empty if nothing that was asked for is missing."""
        if not self._host_pids:
            return [
                "The pids of the host are not seen here (hostPID: true, or --pid host, would show them): "
                "no process on a GPU can be attributed."
            ]
        found = []
        if self._readable.get("proc") is False:
            found.append(
                f"Processes in {self._proc} may not be looked at (it is mounted with hidepid, or needs root): "
                "their services are not known."
            )
        if self._readable.get("environment") is False:
            found.append(
                "The environment of processes may not be read (root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, may): "
                "INFERMETER_SERVICE and OTEL_SERVICE_NAME are not seen."
            )
        found += [
            f"{source.names.needs[0].upper()}{source.names.needs[1:]} cannot be used ({source.problem}); "
            f"it gives {source.names.gives}."
            for source in self._sources
            if source.up is False
        ]
        if any(entry.nameless for entry in list(self._entries.values())):
            found += [
                f"Processes run in containers of which no name is known; {source.names.needs} gives "
                f"{source.names.gives}, and is not there."
                for source in self._sources
                if source.up is None and not source.names.present()
            ]
        return found

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Name services by other rules from now on; owners change when the thread has been through them."""
        self._rules = rules
        now = self._clock()
        for entry in list(self._entries.values()):
            entry.due = now
        self._wake.set()

    def start(self) -> None:
        """Begin to find out."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="infermeter-attribution", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it; a source that hangs just now is not waited for longer than a second."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1)
            self._thread = None

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait(_PERIOD)
            self._wake.clear()
            try:
                self.turn()
            except Exception:  # without this thread nothing would ever be known again
                self._logger.exception("attribution failed; it goes on")
                self._stopped.wait(_PERIOD)

    def turn(self) -> None:
        """What the thread does each second, and when somebody asks for a process that is not known."""
        while self._queue and not self._stopped.is_set():
            self._find_out(self._queue.popleft())
        now = self._clock()
        for pid, entry in list(self._entries.items()):
            if now - entry.seen > FORGET:
                # Nobody else replaces an entry that is not asked for; if somebody just did, it is asked for again.
                self._entries.pop(pid, None)
            elif now >= entry.due and not self._stopped.is_set():
                self._find_out(pid)
        for source in self._sources:
            if source.up is False and now >= source.until and source.last[0] != Place():
                self._ask(source, *source.last)
        for key, (_, used) in list(self._containers.items()):
            if now - used > KEEP_CONTAINER:
                del self._containers[key]

    def _find_out(self, pid: int) -> None:
        entry = self._entries.get(pid)
        if entry is None:
            return
        entry.due = self._clock() + (SOON[entry.tries] if entry.tries < len(SOON) else AGAIN)
        entry.tries += 1
        if not self._host_pids:
            entry.reason = "no_such_process"
            return
        try:
            start = start_time(self._proc, pid)
            process = read(self._proc, pid)
            if start_time(self._proc, pid) != start:
                return  # reused in the middle: `due` comes soon
        except (Gone, PermissionError) as error:
            entry.owner = None
            hidden = isinstance(error, PermissionError) or _hides_processes(self._proc)
            entry.reason = "permission" if hidden else "no_such_process"
            if hidden:
                self._readable["proc"] = False
            return
        except Exception:  # a file of the kernel that is not as it should be must not end the thread
            self._logger.exception("process %s cannot be read", pid)
            entry.owner = None
            entry.reason = "unknown"
            return
        self._readable["proc"] = True
        self._readable["environment"] = process.environment is not None
        if start != entry.start:
            entry.owner = None
        entry.start = start
        self._decide(entry, process)

    def _decide(self, entry: _Entry, process: Process) -> None:
        place = process.place
        contained = bool(place.containers or place.pod_uid)
        container = self._container(place, process.environment or {}) if contained else Container()
        entry.nameless = contained and not (container and container.name)
        if entry.nameless:
            may_come = entry.tries <= len(SOON) and any(source.names.present() for source in self._sources)
            if container is None and entry.owner is None and may_come:
                # A name that changes after a second would leave a series of a service that never was.
                entry.reason = "pending"
                return
        else:
            entry.due = float("inf")
        entry.owner = owner(process, container or Container(), self._rules)
        entry.reason = ""
        entry.checked = self._clock()

    def _container(self, place: Place, environment: Mapping[str, str]) -> Container | None:
        key = (place.containers, place.pod_uid)
        now = self._clock()
        if key in self._containers:
            known = self._containers[key][0]
            self._containers[key] = (known, now)
            return known
        partly = None
        for source in self._sources:
            found = self._ask(source, place, environment) if now >= source.until else None
            if found and found.name:
                self._containers[key] = (found, now)
                return found
            partly = partly or found
        return partly

    def _ask(self, source: _Source, place: Place, environment: Mapping[str, str]) -> Container | None:
        names = source.names
        if not names.present():
            if source.up:
                source.up, source.problem = False, "it is not there any more"
            return None
        source.last = (place, environment)
        try:
            found = names.find(place, environment)
        except Exception as error:  # foreign programs answer; whatever is wrong with one, the next is asked
            if not isinstance(error, NamesError):
                self._logger.exception("%s failed", names.name)
            source.up, source.problem = False, str(error) or type(error).__name__
            source.backoff = min(_BACKOFF_LAST, max(_BACKOFF_FIRST, source.backoff * 2))
            source.until = self._clock() + source.backoff
            return None
        source.up, source.problem, source.backoff = True, "", 0.0
        return found


def sources_of(root: str = "/") -> list[Names]:
    """All sources of names of a host, those that know most first.

    Args:
        root: where the root of its file system is.
    """
    at = root.rstrip("/")
    return [
        DockerApi("docker", [f"{at}/var/run/docker.sock", f"{at}/run/docker.sock"]),
        DockerApi("podman", [f"{at}/run/podman/podman.sock"]),
        DockerFiles(f"{at}/var/lib/docker/containers"),
        Cri("containerd", [f"{at}/run/containerd/containerd.sock", f"{at}/run/k3s/containerd/containerd.sock"]),
        Cri("crio", [f"{at}/run/crio/crio.sock"]),
        ContainerLogs(f"{at}/var/log"),
        PodResources(f"{at}/var/lib/kubelet/pod-resources/kubelet.sock"),
    ]


def _hides_processes(proc: str) -> bool:
    """Whether processes of others are hidden as if they were not there (hidepid): then not even the first is there."""
    return os.path.exists(f"{proc}/stat") and not os.path.exists(f"{proc}/1")  # noqa: PTH110


def _sees_host_pids(proc: str) -> bool:
    """Whether pids mean the same here as for the driver, which speaks of the host's wherever it is asked."""
    if proc != "/proc":
        return True
    try:
        return os.readlink("/proc/self/ns/pid") == _HOST_PIDS  # noqa: PTH115
    except OSError:
        return True
