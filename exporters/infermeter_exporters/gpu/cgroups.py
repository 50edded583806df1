"""Where a process runs, by the text of /proc/PID/cgroup: its container, pod, systemd unit, Slurm job.

Containers may be nested (Docker in Docker, Kubernetes in Docker): then all of them are given, the innermost first. Who
looks for a name takes the innermost that is known to a runtime that can be reached.
"""

import re
from typing import NamedTuple


class Place(NamedTuple):
    """Where a process runs; what does not apply is empty.

    Attributes:
        containers: their ids, 64 hexadecimal digits, the innermost first.
        runtime: of the innermost: `docker`, `podman`, `containerd`, `crio`; empty where its cgroup does not say.
        pod_uid: of the Kubernetes pod, as the API writes it.
        unit: the innermost systemd service, with its ending: `face@1.service`.
        slurm_job: the number of the job.
        machine: name of an LXC container, of a virtual machine or of what systemd-nspawn runs.
    """

    containers: tuple[str, ...] = ()
    runtime: str = ""
    pod_uid: str = ""
    unit: str = ""
    slurm_job: str = ""
    machine: str = ""


# No name of ours is longer; what is longer in a file of the kernel is not worth reading either.
LONGEST = 256
_MOST_PARTS = 4096

_CONTAINER = re.compile(r"(?:([a-z][a-z-]*)-)?([0-9a-f]{64})(?:\.scope)?")
_RUNTIMES = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "crio",
}
_PARENTS = {"docker": "docker", "libpod_parent": "podman", "cri-containerd": "containerd"}
# Static pods have the hash of their manifest for a uid, without dashes; systemd's slices write dashes as underscores.
_POD = re.compile(r"(?:[a-z-]*-)?pod([0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?")
_JOB = re.compile(r"job_([0-9]{1,20})")
_LXC = re.compile(r"lxc\.payload\.(.+)")
_MACHINE = re.compile(r"machine-(?:lxc-|qemu-[0-9]+-)?(.+)\.scope")
_NSPAWN = re.compile(r"systemd-nspawn@(.+)\.service")
_USER_MANAGER = re.compile(r"user@[0-9]+\.service")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
# What runs containers and jobs is not whose they are.
_KEEPERS = re.compile(
    r"(?:docker|containerd|crio|podman|kubelet|k3s|k3s-agent|rke2-server|rke2-agent|slurmd|slurmstepd|lxc|lxd|incus"
    r"|libvirtd|virtqemud|systemd-machined|snap\.docker\.dockerd|snap\.lxd\.daemon)\.service"
)


def parsed(text: str) -> Place:
    """Where the process runs whose cgroup file this is.

    The lines of a host with cgroups of version 1 differ, since each controller has its own tree; what one does not say,
    another may.
    """
    found = Place()
    for path in _paths(text):
        more = {name: value for name, value in _of(path)._asdict().items() if not getattr(found, name)}
        found = found._replace(**more)
    return found


def _paths(text: str) -> list[str]:
    """Paths, the one of version 2 first, then that of systemd's tree, each once."""
    ranked: list[tuple[int, str]] = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            ranked.append((0 if number == "0" else 1 if controllers == "name=systemd" else 2, path))
    ranked.sort(key=lambda one: one[0])
    return list(dict.fromkeys(path for _, path in ranked))


def _of(path: str) -> Place:
    containers: list[str] = []
    runtime = pod_uid = unit = slurm_job = machine = parent = ""
    slurm = False
    # containerd writes slice:runtime:id as one part where it takes a name for systemd for a path.
    for part in path.replace(":", "/").split("/")[:_MOST_PARTS]:
        if len(part) > LONGEST:
            continue
        part = unescaped(part)  # noqa: PLW2901  (systemd writes what is no letter of its own as a number)
        if container := _CONTAINER.fullmatch(part):
            if "conmon" not in (container[1] or ""):  # which watches the container from outside
                containers.insert(0, container[2])
                runtime = _RUNTIMES.get(container[1] or "", "") or _PARENTS.get(parent, "")
        elif pod := _POD.fullmatch(part):
            pod_uid = pod[1].replace("_", "-")
        elif slurm and (job := _JOB.fullmatch(part)):
            slurm_job = job[1]
        elif guest := _LXC.fullmatch(part) or _MACHINE.fullmatch(part) or _NSPAWN.fullmatch(part):
            machine = guest[1]
        elif parent in {"lxc", "lxc.payload"} and part and not part.startswith("."):
            machine = part
        elif part.endswith(".service") and part != ".service" and not _USER_MANAGER.fullmatch(part):
            unit = part
        slurm = slurm or part == "slurm" or part.endswith("slurmstepd.scope") or part.startswith("slurm_")
        parent = part
    if _KEEPERS.fullmatch(unit):
        unit = ""
    return Place(tuple(containers), runtime, pod_uid, unit, slurm_job, machine)


def unescaped(name: str) -> str:
    r"""A name of systemd as it was meant: `my\x2dvm` is `my-vm`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
