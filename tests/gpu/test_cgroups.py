"""Where a process runs, by its cgroup: lines as real hosts write them, and any others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.cgroups import Place, parsed

A, B = "ab" * 32, "0123456789abcdef" * 4
UID = "c9de5f2a-1b2c-4d3e-8f90-a1b2c3d4e5f6"
SLICE = UID.replace("-", "_")
STATIC = "8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", Place()),
        ("/init.scope", Place()),
        ("/user.slice/user-1000.slice/session-3.scope", Place()),
        # Docker
        (f"/docker/{A}", Place((A,), "docker")),
        (f"/system.slice/docker-{A}.scope", Place((A,), "docker")),
        (f"/system.slice/docker.service/docker/{A}", Place((A,), "docker")),
        (f"/../docker-{A}.scope", Place((A,), "docker")),
        (f"/ecs/0f3a/{A}", Place((A,))),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope", Place((A,), "docker")),
        # Podman
        (f"/machine.slice/libpod-{A}.scope/container", Place((A,), "podman")),
        (f"/libpod_parent/libpod-{A}", Place((A,), "podman")),
        (f"/machine.slice/libpod-conmon-{A}.scope", Place()),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", Place((A,), "podman")),
        (f"/system.slice/face.service/libpod-payload-{A}", Place((A,), "podman", unit="face.service")),
        # Kubernetes
        (f"/kubepods/burstable/pod{UID}/{A}", Place((A,), pod_uid=UID)),
        (f"/kubepods/pod{UID}/crio-{A}", Place((A,), "crio", UID)),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{A}.scope",
            Place((A,), "containerd", UID),
        ),
        (f"/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{A}.scope/container", Place((A,), "crio", UID)),
        (f"/kubepods.slice/kubepods-pod{SLICE}.slice/crio-conmon-{A}.scope", Place(pod_uid=UID)),
        (f"/kubepods/burstable/pod{STATIC}/{A}", Place((A,), pod_uid=STATIC)),
        (
            f"/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{A}",
            Place((A,), "containerd", UID),
        ),
        (f"/system.slice/k3s.service/kubepods/besteffort/pod{UID}/{A}", Place((A,), pod_uid=UID)),
        # One in another: kind, Docker in Docker
        (
            f"/docker/{A}/kubelet/kubepods/besteffort/pod{UID}/{B}",
            Place((B, A), pod_uid=UID),
        ),
        (
            f"/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice"
            f"/cri-containerd-{B}.scope",
            Place((B, A), "containerd", UID),
        ),
        (f"/docker/{A}/docker/{B}", Place((B, A), "docker")),
        # systemd
        ("/system.slice/face.service", Place(unit="face.service")),
        ("/system.slice/system-face.slice/face@1.service", Place(unit="face@1.service")),
        (r"/system.slice/face\x2ddetector.service", Place(unit="face-detector.service")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/y.service", Place(unit="y.service")),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-x-1.scope", Place()),
        ("/system.slice/face.service/worker", Place(unit="face.service")),
        # Slurm
        ("/system.slice/slurmstepd.scope/job_123/step_0/user/task_0", Place(slurm_job="123")),
        ("/system.slice/node1_slurmstepd.scope/job_9/step_batch/user/task_0", Place(slurm_job="9")),
        ("/slurm/uid_1000/job_42/step_0/task_1", Place(slurm_job="42")),
        ("/slurm_node1/uid_1000/job_42/step_extern", Place(slurm_job="42")),
        ("/system.slice/slurmd.service", Place()),
        ("/job_42", Place()),
        # Guests
        ("/lxc/web/init.scope", Place(machine="web")),
        ("/lxc/101/ns/system.slice/face.service", Place(unit="face.service", machine="101")),
        ("/lxc.payload.web/system.slice/face.service", Place(unit="face.service", machine="web")),
        ("/lxc.payload/web", Place(machine="web")),
        (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", Place(machine="vm")),
        ("/machine.slice/systemd-nspawn@guest.service/payload", Place(machine="guest")),
    ],
)
def test_real_paths(path: str, place: Place) -> None:
    """What each runtime writes, in cgroups of version 2."""
    assert parsed(f"0::{path}\n") == place


def test_version_1() -> None:
    """What the tree of one controller does not say, that of another may."""
    text = f"""12:cpuset:/slurm/uid_0/job_7/step_0
11:memory:/docker/{A}
10:devices:/
1:name=systemd:/system.slice/face.service
0::/system.slice/face.service
"""
    assert parsed(text) == Place((A,), "docker", unit="face.service", slurm_job="7")


def test_the_tree_of_version_2_counts_before_others() -> None:
    """It is the one that newer runtimes use."""
    assert parsed(f"3:memory:/docker/{A}\n0::/docker/{B}\n").containers == (B,)


@pytest.mark.parametrize("id_", [A[:-1], A + "0", A.upper(), "g" * 64])
def test_what_is_no_id(id_: str) -> None:
    """Only 64 hexadecimal digits in small letters are one."""
    assert parsed(f"0::/docker/{id_}\n") == Place()


def test_long_names_are_passed_over() -> None:
    """Nothing of ours is longer than 256 characters."""
    assert parsed("0::/system.slice/" + "x" * 300 + ".service/face.service\n") == Place(unit="face.service")
    assert parsed("0::/system.slice/" + "x" * 300 + ".service\n") == Place()


PARTS = st.sampled_from(
    ["docker", f"docker-{A}.scope", B, "kubepods.slice", f"kubepods-pod{SLICE}.slice", "x.service", "job_1", "slurm"]
)


@given(st.text() | st.builds(lambda parts: "0::/" + "/".join(parts), st.lists(PARTS | st.text(max_size=80))))
def test_any_text(text: str) -> None:
    """Nothing in it raises, and what is found is what it says that it is."""
    found = parsed(text)
    assert [id_ for id_ in found.containers if len(id_) != 64 or set(id_) - set("0123456789abcdef")] == []
    assert found.slurm_job == "" or found.slurm_job.isdigit()
    assert found.unit == "" or found.unit.endswith(".service")
    assert found.pod_uid in {"", UID} or len(found.pod_uid) in {32, 36}


@given(st.lists(PARTS, min_size=1), st.integers(0, 2))
def test_the_rank_of_a_tree_changes_nothing_where_it_is_alone(parts: list[str], rank: int) -> None:
    """One path says the same in any tree."""
    path = "/" + "/".join(parts)
    head = ("0::", "1:name=systemd:", "4:cpu,cpuacct:")[rank]
    assert parsed(head + path) == parsed("0::" + path)
