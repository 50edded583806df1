"""Names of pods: from links to logs, and from gRPC servers that are real."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import pytest
from grpc_tools import protoc  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from infermeter_exporters.gpu.cgroups import Place
from infermeter_exporters.gpu.containers import Container, NamesError
from infermeter_exporters.gpu.grpc_unary import call, fields, mapping
from infermeter_exporters.gpu.kubernetes import ContainerLogs, Cri, PodResources, workload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, B = "ab" * 32, "0123456789abcdef" * 4
UID = "c9de5f2a-1b2c-4d3e-8f90-a1b2c3d4e5f6"
GPU = "GPU-6f1d0c9a-7e2b-4b7f-9d35-2f4a1c8e5b60"

RUNTIME = """
syntax = "proto3";
package runtime.v1;
service RuntimeService {
  rpc ListContainers(ListContainersRequest) returns (ListContainersResponse);
  rpc ListPodSandbox(ListPodSandboxRequest) returns (ListPodSandboxResponse);
}
message ContainerFilter { string id = 1; }
message ListContainersRequest { ContainerFilter filter = 1; }
message ContainerMetadata { string name = 1; uint32 attempt = 2; }
message ImageSpec { string image = 1; string user_specified_image = 18; }
message Container {
  string id = 1;
  string pod_sandbox_id = 2;
  ContainerMetadata metadata = 3;
  ImageSpec image = 4;
  string image_ref = 5;
  int32 state = 6;
  int64 created_at = 7;
  map<string, string> labels = 8;
}
message ListContainersResponse { repeated Container containers = 1; }
message PodSandboxFilter { string id = 1; }
message ListPodSandboxRequest { PodSandboxFilter filter = 1; }
message PodSandbox { string id = 1; int64 created_at = 4; map<string, string> labels = 5; }
message ListPodSandboxResponse { repeated PodSandbox items = 1; }
"""
RESOURCES = """
syntax = "proto3";
package v1;
service PodResourcesLister { rpc List(ListPodResourcesRequest) returns (ListPodResourcesResponse); }
message ListPodResourcesRequest {}
message ListPodResourcesResponse { repeated PodResources pod_resources = 1; }
message PodResources { string name = 1; string namespace = 2; repeated ContainerResources containers = 3; }
message ContainerResources { string name = 1; repeated ContainerDevices devices = 2; repeated int64 cpu_ids = 3; }
message ContainerDevices { string resource_name = 1; repeated string device_ids = 2; }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Messages of both services, as protobuf's own compiler makes them."""
    folder = tmp_path_factory.mktemp("proto")
    found = {}
    for name, text in (("infermeter_test_cri", RUNTIME), ("infermeter_test_resources", RESOURCES)):
        (folder / f"{name}.proto").write_text(text, encoding="utf-8")
        assert protoc.main(["protoc", f"-I{folder}", f"--python_out={folder}", f"{name}.proto"]) == 0
        spec = importlib.util.spec_from_file_location(f"{name}_pb2", folder / f"{name}_pb2.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found[name.rpartition("_")[2]] = module
    return found


class Server(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server on a unix socket; `answers` gives the answer to a method and its decoded request."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.methods: dict[str, Any] = {}
        self.asked: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def service(self, details: Any) -> Any:
        method = details.method
        self.asked.append(method)
        if method not in self.methods:
            return None
        request, answer = self.methods[method]
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def server() -> Iterator[Server]:
    """The path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        running = Server(f"{folder}/s")
        yield running
        running.stop()


@pytest.fixture
def runtime(server: Server, made: dict[str, Any]) -> Server:
    """A runtime with one pod of one container."""
    cri = made["cri"]
    labels = {"io.kubernetes.container.name": "main", "io.kubernetes.pod.name": "face-0"}
    labels["io.kubernetes.pod.namespace"] = "ml"
    image = cri.ImageSpec(image="sha256:0", user_specified_image="acme/face:3")
    metadata = cri.ContainerMetadata(name="main", attempt=2)
    one = cri.Container(
        id=A, pod_sandbox_id=B, metadata=metadata, image=image, image_ref="r", state=1, created_at=-5, labels=labels
    )
    pod = cri.PodSandbox(id=B, created_at=7, labels={"infermeter.service": "face", "app": "x" * 100_000})
    server.methods = {
        "/runtime.v1.RuntimeService/ListContainers": (
            cri.ListContainersRequest,
            lambda request, _: cri.ListContainersResponse(containers=[one] if request.filter.id == A else []),
        ),
        "/runtime.v1.RuntimeService/ListPodSandbox": (
            cri.ListPodSandboxRequest,
            lambda request, _: cri.ListPodSandboxResponse(items=[pod] if request.filter.id == B else []),
        ),
    }
    return server


def test_a_runtime(runtime: Server) -> None:
    """The container, with the labels that its pod was given by its users, in an answer of any size."""
    found = Cri("containerd", [runtime.path], 30).find(Place((B, A)), {})
    assert found is not None
    assert found._replace(labels={}) == Container("main", "acme/face:3", {}, "ml", "face-0")
    assert found.labels["infermeter.service"] == "face"
    assert len(found.labels["app"]) == 100_000
    assert Cri("containerd", [runtime.path], 30).find(Place((B,)), {}) is None


def test_a_method_that_is_not_there(server: Server) -> None:
    """containerd has no such service where its plugin for Kubernetes is off."""
    with pytest.raises(NamesError, match="Method not found"):
        Cri("containerd", [server.path], 30).find(Place((A,)), {})


def test_a_server_that_fails(server: Server, made: dict[str, Any]) -> None:
    """What it says reaches the one who looks for the reason."""

    def fails(_: object, context: Any) -> None:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")

    server.methods = {"/v1.PodResourcesLister/List": (made["resources"].ListPodResourcesRequest, fails)}
    with pytest.raises(NamesError, match="not for you"):
        PodResources(server.path, 30).find(Place((A,)), {})


def test_a_server_that_hangs(server: Server, made: dict[str, Any]) -> None:
    """The deadline is for all of the answer."""
    release = threading.Event()

    def hangs(_: object, __: object) -> Any:
        release.wait()
        return made["resources"].ListPodResourcesResponse()

    server.methods = {"/v1.PodResourcesLister/List": (made["resources"].ListPodResourcesRequest, hangs)}
    try:
        with pytest.raises(NamesError, match=r"does not answer within 0\.1 s"):
            PodResources(server.path, 0.1).find(Place((A,)), {})
    finally:
        release.set()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.0 200 OK\r\n\r\n{}" * 20, b"\x00" * 64])
def test_what_does_not_speak_grpc(says: bytes) -> None:
    """It is one error, whatever it is."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NamesError):
            call(f"{folder}/s", "/a/b", b"", 10)
        thread.join()
        with pytest.raises(NamesError, match="No such file or directory"):
            call(f"{folder}/none", "/a/b", b"", 10)


def test_pods_with_devices(server: Server, made: dict[str, Any]) -> None:
    """By the host name, else by the GPUs that it may see, and nobody where two may be meant."""
    resources = made["resources"]

    def pod(name: str, namespace: str, **containers: list[str]) -> Any:
        return resources.PodResources(
            name=name,
            namespace=namespace,
            containers=[
                resources.ContainerResources(
                    name=key,
                    cpu_ids=[1, 300],
                    devices=[resources.ContainerDevices(resource_name="nvidia.com/gpu", device_ids=ids)],
                )
                for key, ids in containers.items()
            ],
        )

    pods = [
        pod("face-0", "ml", main=[GPU + "::3"]),
        pod("object-0", "ml", main=["GPU-1"], side=[]),
        pod("shared-a", "ml", main=["GPU-2::0"]),
        pod("shared-b", "ml", main=["GPU-2::1"]),
    ]
    answer = resources.ListPodResourcesResponse(pod_resources=pods)
    server.methods = {"/v1.PodResourcesLister/List": (resources.ListPodResourcesRequest, lambda _, __: answer)}
    source = PodResources(server.path, 30)
    place = Place((A,), pod_uid=UID)
    assert source.find(place, {"HOSTNAME": "face-0"}) == Container("main", namespace="ml", pod="face-0")
    assert source.find(place, {"NVIDIA_VISIBLE_DEVICES": GPU}) == Container("main", namespace="ml", pod="face-0")
    assert source.find(place, {"HOSTNAME": "object-0"}) == Container("", namespace="ml", pod="object-0")
    seen = {"HOSTNAME": "object-0", "NVIDIA_VISIBLE_DEVICES": "GPU-1"}
    assert source.find(place, seen) == Container("main", namespace="ml", pod="object-0")
    assert source.find(place, {"NVIDIA_VISIBLE_DEVICES": "GPU-2"}) is None
    assert source.find(place, {"HOSTNAME": "node-7", "NVIDIA_VISIBLE_DEVICES": "all"}) is None
    assert source.find(Place(unit="face.service"), {"HOSTNAME": "face-0"}) is None
    assert server.asked == ["/v1.PodResourcesLister/List"]


def test_links_to_logs(tmp_path: Path) -> None:
    """What is known of containers stands in names; links need not lead anywhere."""
    (tmp_path / "containers").mkdir()
    (tmp_path / "pods" / f"ml_object-0_{UID}").mkdir(parents=True)
    (tmp_path / "containers" / f"face-7d5bc8f6c9-x7k2p_ml_main-app-{A}.log").symlink_to("/nowhere")
    (tmp_path / "containers" / "README").write_text("", encoding="utf-8")
    logs = ContainerLogs(str(tmp_path))
    assert logs.present()
    assert logs.find(Place((A,)), {}) == Container("main-app", namespace="ml", pod="face-7d5bc8f6c9-x7k2p")
    assert logs.find(Place((B,)), {}) is None
    assert logs.find(Place((B,), pod_uid=UID), {}) == Container(namespace="ml", pod="object-0")
    (tmp_path / "containers" / f"web-0_shop_web-{B}.log").symlink_to("/nowhere")
    assert logs.find(Place((B,), pod_uid=UID), {}) == Container("web", namespace="shop", pod="web-0")
    assert not ContainerLogs(str(tmp_path / "none")).present()
    assert ContainerLogs(str(tmp_path / "none")).find(Place((A,)), {}) is None


def test_links_are_read_again_only_when_they_changed(tmp_path: Path) -> None:
    """A folder that is as it was long ago is not listed again, be it as large as it may."""
    folder = tmp_path / "containers"
    folder.mkdir()
    (folder / f"face-0_ml_main-{A}.log").symlink_to("/nowhere")
    long_ago = 1_600_000_000
    os.utime(folder, (long_ago, long_ago))
    logs = ContainerLogs(str(tmp_path))
    assert logs.find(Place((A,)), {}) == Container("main", namespace="ml", pod="face-0")
    (folder / f"face-1_ml_main-{B}.log").symlink_to("/nowhere")
    os.utime(folder, (long_ago, long_ago))
    assert logs.find(Place((B,)), {}) is None
    os.utime(folder, (long_ago, long_ago + 1))
    assert logs.find(Place((B,)), {}) == Container("main", namespace="ml", pod="face-1")


@pytest.mark.parametrize(
    ("pod", "made_by"),
    [
        ("face-detector-7d5bc8f6c9-x7k2p", "face-detector"),
        ("face-0", "face"),
        ("llm-worker-12", "llm-worker"),
        ("nvidia-dcgm-x7k2p", "nvidia-dcgm"),
        ("nightly-29384756-zz8xw", "nightly"),
        ("train-3-bq2ds", "train"),
        ("face", "face"),
        ("face-detector", "face-detector"),
        ("etcd-node-a", "etcd-node-a"),
        ("yolo-v8", "yolo-v8"),
    ],
)
def test_what_made_a_pod(pod: str, made_by: str) -> None:
    """Replicas, runs and restarts are one service."""
    assert workload(pod) == made_by


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    """They are a message, or an error of one kind."""
    try:
        found = list(fields(content))
    except ValueError:
        return
    assert sum(len(part) for _, part in found) <= len(content)


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=300)))
def test_maps(made: dict[str, Any], labels: dict[str, str]) -> None:
    """What protobuf writes is what is read."""
    message = made["cri"].PodSandbox(id="x", created_at=-1, labels=labels).SerializeToString()
    assert mapping([part for number, part in fields(message) if number == 5]) == labels
