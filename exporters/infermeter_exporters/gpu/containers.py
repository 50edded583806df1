"""Names of containers, from Docker or Podman: by their API on a unix socket, or from Docker's files.

The answers come from foreign programs that may be gone, hang or talk nonsense: each question has one deadline for all
of it, and an answer a largest size.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from infermeter_exporters.gpu.cgroups import Place

DEADLINE = 2.0
LARGEST = 4 << 20
_OK, _NOT_FOUND = 200, 404


class Container(NamedTuple):
    """What a runtime says of a container; what it does not say is empty.

    Attributes:
        name: its name, in Kubernetes that in the pod's specification.
        image: as it was asked for.
        labels: of the container, and of its pod where the runtime tells them.
        namespace: of its pod.
        pod: its name.
    """

    name: str = ""
    image: str = ""
    labels: Mapping[str, str] = {}
    namespace: str = ""
    pod: str = ""


class NamesError(Exception):
    """A source of names cannot be used now; the message says why."""


class Names(Protocol):
    """One source of names.

    Attributes:
        name: its name in labels.
        needs: what must be there for it, for the landing page.
        gives: what it buys.
    """

    name: str
    needs: str
    gives: str

    def present(self) -> bool:
        """Whether what it needs is there, be it usable or not."""

    def find(self, place: Place, environment: Mapping[str, str]) -> Container | None:
        """The container of a process; None if this source does not know it.

        Args:
            place: where the process runs.
            environment: what may be read of its environment.

        Raises:
            NamesError: the source cannot be used.
        """


def described(name: str, image: str, labels: Mapping[str, str]) -> Container:
    """A container by what a runtime says of it; Kubernetes writes who it is into labels."""
    return Container(
        labels.get("io.kubernetes.container.name") or name.removeprefix("/"),
        image,
        labels,
        labels.get("io.kubernetes.pod.namespace", ""),
        labels.get("io.kubernetes.pod.name", ""),
    )


class DockerApi:
    """Docker, or Podman, which answers the same, on its socket.

    Args:
        name: its name in labels.
        paths: of the socket; the first that is there is used.
        deadline: seconds for one question.
    """

    gives = "names of containers, Compose services and labels"

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
            found = self._asked(f"/containers/{container}/json")
            if found is not None:
                return _inspected(found)
        return None

    def _asked(self, target: str) -> Any:
        path = next((path for path in self._paths if os.path.exists(path)), self._paths[0])  # noqa: PTH110
        status, body = get(path, target, self._deadline)
        if status == _NOT_FOUND:
            return None
        if status != _OK:
            raise NamesError(f"{path} answers with status {status}")
        return _decoded(body, path)


def get(path: str, target: str, deadline: float) -> tuple[int, bytes]:
    """Status and body of an answer of an HTTP server on a unix socket.

    It is asked in HTTP/1.0, which ends the answer with the connection and sends it in one piece. The `http` package
    would bring 8 MB of modules along, and its timeout begins anew with each byte.

    Raises:
        NamesError: there is none, it does not answer within `deadline` seconds, or with more than 4 MiB.
    """
    end = time.monotonic() + deadline
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline)
            connection.connect(path)
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while True:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError  # noqa: TRY301
                connection.settimeout(remaining)
                piece = connection.recv(1 << 16)
                if not piece:
                    break
                answer += piece
                if len(answer) > LARGEST:
                    raise NamesError(f"{path} answers with more than {LARGEST} bytes")
    except TimeoutError as error:
        raise NamesError(f"{path} does not answer within {deadline:g} s") from error
    except OSError as error:
        raise NamesError(f"{path}: {error.strerror or error}") from error
    head, blank, body = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(None, 2)
    if not blank or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():  # noqa: PLR2004
        raise NamesError(f"{path} does not speak HTTP")
    return int(words[1]), body


def _decoded(body: bytes, path: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NamesError(f"{path} does not answer in JSON") from error


def _inspected(found: Any) -> Container:
    """A container as the API and the files of Docker describe it: both have Name and Config."""
    if not isinstance(found, dict):
        raise NamesError(f"a container is described as {type(found).__name__}")
    config = found.get("Config")
    config = config if isinstance(config, dict) else {}
    labels = config.get("Labels")
    return described(
        _string(found.get("Name")),
        _string(config.get("Image")),
        {key: value for key, value in labels.items() if isinstance(value, str)} if isinstance(labels, dict) else {},
    )


def _string(found: Any) -> str:
    return found if isinstance(found, str) else ""


class DockerFiles:
    """The files that Docker keeps of its containers: enough without a socket, which would give power over the host.

    Args:
        folder: the folder `containers` of Docker's data.
    """

    name = "docker_files"
    gives = "names of Docker's containers, Compose services and labels"

    def __init__(self, folder: str) -> None:
        self.needs = f"the folder {folder}, read only"
        self._folder = folder

    def present(self) -> bool:
        """Whether the folder is there."""
        return os.path.isdir(self._folder)  # noqa: PTH112

    def find(self, place: Place, environment: Mapping[str, str]) -> Container | None:  # noqa: ARG002
        """The innermost container that has a file.

        Raises:
            NamesError: the folder may not be read, or a file is no JSON.
        """
        for container in place.containers:
            path = f"{self._folder}/{container}/config.v2.json"
            try:
                with open(path, "rb") as file:  # noqa: PTH123  (pathlib would be imported for this line)
                    body = file.read(LARGEST + 1)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise NamesError(f"{path}: {error.strerror}") from error
            if len(body) > LARGEST:
                raise NamesError(f"{path} has more than {LARGEST} bytes")
            return _inspected(_decoded(body, path))
        return None
