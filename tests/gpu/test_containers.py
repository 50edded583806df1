"""Names of containers: from Docker's socket, whatever answers there, from Podman for real, and from Docker's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infermeter_exporters.gpu.cgroups import Place
from infermeter_exporters.gpu.containers import Container, DockerApi, DockerFiles, NamesError, described
from tests.gpu.sockets import Socket, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = "ab" * 32, "0123456789abcdef" * 4
LABELS = {"com.docker.compose.project": "shop", "com.docker.compose.service": "face"}
INSPECTED = {"Id": A, "Name": "/shop-face-1", "Config": {"Image": "acme/face:3", "Labels": LABELS}}
FACE = Container("shop-face-1", "acme/face:3", LABELS)


@pytest.fixture
def server() -> Iterator[Socket]:
    """The path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder, Socket(Path(folder) / "s") as running:
        yield running


def docker(server: Socket, deadline: float = 10) -> DockerApi:
    return DockerApi("docker", [server.path], deadline)


def test_a_container(server: Socket) -> None:
    """Name, image and labels of the container that was asked for; what Docker does not know is None."""
    server.says = {f"/containers/{A}/json": answer("200 OK", json.dumps(INSPECTED).encode())}
    assert docker(server).find(Place((A,)), {}) == FACE
    assert docker(server).find(Place((B,)), {}) is None
    assert server.asked == [f"/containers/{A}/json", f"/containers/{B}/json"]


def test_one_container_in_another(server: Socket) -> None:
    """The innermost that is known: a host does not know what runs in Docker in Docker."""
    server.says = {f"/containers/{A}/json": answer("200 OK", json.dumps(INSPECTED).encode())}
    assert docker(server).find(Place((B, A)), {}) == FACE
    assert server.asked == [f"/containers/{B}/json", f"/containers/{A}/json"]


def test_an_answer_in_pieces(server: Socket) -> None:
    """It may come byte by byte."""
    whole = answer("200 OK", json.dumps(INSPECTED).encode())
    server.says = [whole[place : place + 1] for place in range(len(whole))]
    assert docker(server).find(Place((A,)), {}) == FACE


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ([], "does not speak HTTP"),
        ([b"\x00\xff" * 50], "does not speak HTTP"),
        ([b"HTTP/1.0 200 OK\r\nContent-Le"], "does not speak HTTP"),
        ([b"HTTP/1.0 yes\r\n\r\n{}"], "does not speak HTTP"),
        ([answer("500 Internal Server Error", b"{}")], "answers with status 500"),
        ([answer("200 OK", b"")], "does not answer in JSON"),
        ([answer("200 OK", b'{"Name": ')], "does not answer in JSON"),
        ([answer("200 OK", b"[" * 200_000)], "does not answer in JSON"),
        ([answer("200 OK", b"[]")], "a container is described as list"),
        ([b"HTTP/1.0 200 OK\r\n\r\n", *[b"x" * (1 << 20)] * 5], "answers with more than 4194304 bytes"),
    ],
)
def test_nonsense(server: Socket, says: list[bytes], problem: str) -> None:
    """Whatever comes, it is one error that says what is wrong."""
    server.says = says
    with pytest.raises(NamesError, match=problem):
        docker(server).find(Place((A,)), {})


@pytest.mark.parametrize("config", [None, [], {"Labels": None}, {"Labels": ["a"], "Image": 3}])
def test_what_is_left_out_is_empty(server: Socket, config: object) -> None:
    """Podman and old versions leave out what does not apply."""
    server.says = [answer("200 OK", json.dumps({"Name": "/face", "Config": config}).encode())]
    assert docker(server).find(Place((A,)), {}) == Container("face")


@pytest.mark.parametrize("says", [[], [b"HTTP/1.0 200 OK\r\n\r\n"]])
def test_a_server_that_hangs(server: Socket, says: list[bytes]) -> None:
    """The deadline is for all of the answer."""
    server.says, server.hold = says, True
    with pytest.raises(NamesError, match=r"does not answer within 0\.05 s"):
        docker(server, 0.05).find(Place((A,)), {})


def test_no_socket(tmp_path: Path) -> None:
    """There is none, nobody listens on it, or it is no socket."""
    gone = DockerApi("docker", [str(tmp_path / "none")])
    assert not gone.present()
    with pytest.raises(NamesError, match="No such file or directory"):
        gone.find(Place((A,)), {})
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NamesError, match="Connection refused"):
        DockerApi("docker", [str(tmp_path / "file")]).find(Place((A,)), {})


def test_files_of_docker(tmp_path: Path) -> None:
    """Docker's own files tell the same as its API."""
    (tmp_path / A).mkdir()
    (tmp_path / A / "config.v2.json").write_text(json.dumps(INSPECTED), encoding="utf-8")
    files = DockerFiles(str(tmp_path))
    assert files.present()
    assert files.find(Place((B, A)), {}) == FACE
    assert files.find(Place((B,)), {}) is None
    (tmp_path / A / "config.v2.json").write_text("{", encoding="utf-8")
    with pytest.raises(NamesError, match="does not answer in JSON"):
        files.find(Place((A,)), {})
    assert not DockerFiles(str(tmp_path / "none")).present()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    """Docker's folder belongs to root."""
    tmp_path.chmod(0)
    with pytest.raises(NamesError, match="Permission denied"):
        DockerFiles(str(tmp_path)).find(Place((A,)), {})
    tmp_path.chmod(0o700)


def test_kubernetes_on_docker() -> None:
    """Kubernetes writes who a container is into its labels."""
    labels = {
        "io.kubernetes.container.name": "main",
        "io.kubernetes.pod.name": "face-0",
        "io.kubernetes.pod.namespace": "ml",
    }
    assert described("/k8s_main_face-0_ml_x_0", "i", labels) == Container("main", "i", labels, "ml", "face-0")


def test_a_real_podman(tmp_path: Path) -> None:
    """Podman answers on its own socket as Docker does."""
    podman = shutil.which("podman")
    if podman is None:
        pytest.skip("podman is not installed")
    with tempfile.TemporaryDirectory() as folder:  # podman takes no long path for its runroot
        own = [podman, "--root", str(tmp_path / "root"), "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        (tmp_path / "empty").mkdir()
        create = [*own, "create", "--name", "face-1", "--label", "com.docker.compose.service=face", "--network", "none"]
        create += ["--rootfs", str(tmp_path / "empty"), "x"]
        made = subprocess.run(create, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"podman cannot create a container here: {made.stderr}")
        path = f"{folder}/podman.sock"
        with subprocess.Popen([*own, "system", "service", "--time", "60", f"unix://{path}"]) as service:
            try:
                for _ in range(600):
                    if Path(path).exists() or service.poll() is not None:
                        break
                    time.sleep(0.05)
                found = DockerApi("podman", [path], 30).find(Place((made.stdout.strip(),)), {})
                unknown = DockerApi("podman", [path], 30).find(Place((A,)), {})
            finally:
                service.terminate()
        subprocess.run([*own, "rm", "--force", "face-1"], capture_output=True, check=False)
    assert found is not None
    assert (found.name, found.labels["com.docker.compose.service"]) == ("face-1", "face")
    assert unknown is None
