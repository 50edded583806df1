"""Names of pods and their containers, without the API of Kubernetes: from links to logs, the runtime, the kubelet.

Numbers of fields are those of `k8s.io/cri-api` (runtime.v1) and `k8s.io/kubelet` (podresources v1).
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from infermeter_exporters.gpu.cgroups import Place
from infermeter_exporters.gpu.containers import DEADLINE, Container, NamesError, described
from infermeter_exporters.gpu.grpc_unary import call, fields, mapping

_LOG = re.compile(r"([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")
# Kubernetes writes a hash, which is a decimal number, in these letters, and takes random ones without vowels.
_HASH, _RANDOM = "[4-9bcdf]{6,10}", "[bcdfghjklmnpqrstvwxz2456789]{5}"
_MADE = re.compile(
    f"(.+?)(?:-{_HASH}-{_RANDOM}|-[0-9]{{8,10}}-{_RANDOM}|-[0-9]{{1,4}}-{_RANDOM}|-{_RANDOM}|-[0-9]{{1,5}})"
)
_REPLICA = re.compile(r"::[0-9]+$")
_LONGEST_HOST_NAME = 63
# A folder may change twice within one tick of the clock of its file system.
_TICK = 2.0


def workload(pod: str) -> str:
    """What made a pod, by the pod's name: the Deployment, StatefulSet, DaemonSet, Job or CronJob.

    A pod that nothing made keeps its name. Names that end in five letters without vowels, or in a number, look as if
    they were made: a rule puts such a one right.
    """
    made = _MADE.fullmatch(pod)
    return made[1] if made else pod


class ContainerLogs:
    """The names of the links that the kubelet makes to logs: `pod_namespace_container-id.log`. No log is read.

    Of a container without a link, its pod's folder tells: `namespace_pod_uid`.

    Args:
        folder: /var/log of the host.
    """

    name = "container_logs"
    gives = "names of pods, their namespaces and containers"

    def __init__(self, folder: str) -> None:
        self.needs = f"the folder {folder}/containers, read only"
        self._links = _Listing(f"{folder}/containers")
        self._pods = _Listing(f"{folder}/pods")

    def present(self) -> bool:
        """Whether the folder is there."""
        return os.path.isdir(self._links.folder)  # noqa: PTH112

    def find(self, place: Place, environment: Mapping[str, str]) -> Container | None:  # noqa: ARG002
        """The innermost container that has a link.

        Raises:
            NamesError: the folder cannot be read.
        """
        links = self._links.names()
        for container in place.containers:
            if found := _LOG.fullmatch(links.get(container, "")):
                return Container(found[3], namespace=found[2], pod=found[1])
        parts = self._pods.names().get(place.pod_uid, "").split("_") if place.pod_uid else []
        if len(parts) != 3:  # noqa: PLR2004
            return None
        return Container(namespace=parts[0], pod=parts[1])


class _Listing:
    """The names in a folder, by the id at their end; read again when the folder changed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._names: dict[str, str] = {}
        self._read: tuple[int, float] = (-1, 0.0)

    def names(self) -> dict[str, str]:
        try:
            changed = os.stat(self.folder).st_mtime_ns  # noqa: PTH116
            before, read = self._read
            if changed != before or read < changed / 1e9 + _TICK:
                self._read = (changed, time.time())
                self._names = {_id(name): name for name in os.listdir(self.folder)}  # noqa: PTH208
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise NamesError(f"{self.folder}: {error.strerror}") from error
        return self._names


def _id(name: str) -> str:
    found = _LOG.fullmatch(name)
    return found[4] if found else name.rpartition("_")[2]


class Cri:
    """The runtime of Kubernetes, on its socket; it tells the labels of pods too.

    Args:
        name: its name in labels.
        paths: of the socket; the first that is there is used.
        deadline: seconds for one question.
    """

    gives = "names and labels of pods, their namespaces and containers"

    def __init__(self, name: str, paths: Sequence[str], deadline: float = DEADLINE) -> None:
        self.name = name
        self.needs = f"the socket {paths[0]}"
        self._paths = paths
        self._deadline = deadline

    def present(self) -> bool:
        """Whether there is a socket."""
        return any(map(os.path.exists, self._paths))

    def find(self, place: Place, environment: Mapping[str, str]) -> Container | None:  # noqa: ARG002
        """The innermost container that it knows.

        Raises:
            NamesError: it cannot be reached, does not answer in time, or answers nonsense.
        """
        for container in place.containers:
            for _, message in self._listed("ListContainers", container):
                one = _Message(message)
                if one.text(1) == container:
                    metadata, image = _Message(one.bytes(3)), _Message(one.bytes(4))
                    labels = self._pod_labels(one.text(2)) | one.map(8)
                    return described(metadata.text(1), image.text(18) or image.text(1), labels)
        return None

    def _pod_labels(self, sandbox: str) -> dict[str, str]:
        for _, message in self._listed("ListPodSandbox", sandbox) if sandbox else ():
            one = _Message(message)
            if one.text(1) == sandbox:
                return one.map(5)
        return {}

    def _listed(self, method: str, id_: str) -> list[tuple[int, bytes]]:
        path = next((path for path in self._paths if os.path.exists(path)), self._paths[0])  # noqa: PTH110
        wanted = _field(1, id_.encode())
        answer = call(path, f"/runtime.v1.RuntimeService/{method}", _field(1, wanted), self._deadline)
        return [field for field in _Message(answer).fields if field[0] == 1]


class _Device(NamedTuple):
    pod: str
    namespace: str
    container: str
    ids: frozenset[str]


class PodResources:
    """Which devices the kubelet gave to which pods; it says nothing of processes or containers' ids.

    A process is found by its host name, which is its pod's, or by the GPUs that it may see if only one container has
    them: both stand in its environment.

    Args:
        path: of the socket.
        deadline: seconds for one question.
    """

    name = "pod_resources"
    gives = "names of pods whose processes' environment may be read, where no other source tells them"
    _AGE = 5.0

    def __init__(self, path: str, deadline: float = DEADLINE) -> None:
        self.needs = f"the socket {path}"
        self._path = path
        self._deadline = deadline
        self._given: list[_Device] = []
        self._asked = float("-inf")

    def present(self) -> bool:
        """Whether there is a socket."""
        return os.path.exists(self._path)  # noqa: PTH110

    def find(self, place: Place, environment: Mapping[str, str]) -> Container | None:
        """The pod of a process.

        Raises:
            NamesError: the kubelet cannot be reached, does not answer in time, or answers nonsense.
        """
        if not place.pod_uid and not place.containers:
            return None
        given = self._listed()
        host = environment.get("HOSTNAME", "")
        seen = set(environment.get("NVIDIA_VISIBLE_DEVICES", "").split(",")) - {""}
        own = [one for one in given if host and one.pod[:_LONGEST_HOST_NAME].rstrip("-.") == host]
        able = [one for one in own or given if seen & one.ids]
        if len(able) == 1 or len({(one.namespace, one.pod) for one in own}) == 1:
            one = able[0] if len(able) == 1 else own[0]
            alone = len(able) == 1 or len(own) == 1
            return Container(one.container if alone else "", namespace=one.namespace, pod=one.pod)
        return None

    def _listed(self) -> list[_Device]:
        now = time.monotonic()
        if now - self._asked > self._AGE:
            answer = call(self._path, "/v1.PodResourcesLister/List", b"", self._deadline)
            self._given = [device for number, pod in _Message(answer).fields if number == 1 for device in _given(pod)]
            self._asked = now
        return self._given


def _given(message: bytes) -> list[_Device]:
    pod = _Message(message)
    found = []
    for container in map(_Message, pod.all(3)):
        devices = map(_Message, container.all(2))
        ids = frozenset(_REPLICA.sub("", one.decode("utf-8", "replace")) for each in devices for one in each.all(2))
        found.append(_Device(pod.text(1), pod.text(2), container.text(1), ids))
    return found


class _Message:
    """Fields of a message.

    Raises:
        NamesError: it is none.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self.fields = list(fields(content))
        except ValueError as error:
            raise NamesError(f"an answer is no message: {error}") from error

    def all(self, number: int) -> list[bytes]:
        return [content for at, content in self.fields if at == number]

    def bytes(self, number: int) -> bytes:
        return next((content for at, content in reversed(self.fields) if at == number), b"")

    def text(self, number: int) -> str:
        return self.bytes(number).decode("utf-8", "replace")

    def map(self, number: int) -> dict[str, str]:
        try:
            return mapping(self.all(number))
        except ValueError as error:
            raise NamesError(f"an answer is no message: {error}") from error


def _field(number: int, content: bytes) -> bytes:
    """An encoded string or message of up to 16,383 bytes."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])  # noqa: PLR2004
    return bytes([number << 3 | 2]) + length + content
