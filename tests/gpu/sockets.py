"""A unix socket on which something answers as Docker, or as nothing that it should be."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Self


def answer(status: str, body: bytes) -> bytes:
    """A response of HTTP."""
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Socket:
    """A server on a real unix socket that says `says`, piece by piece, to everyone; `hold` keeps it from hanging up."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.says: list[bytes] | dict[str, bytes] = []
        self.hold = False
        self.asked: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._release = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        Path(self.path).unlink()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(4096).decode()
                target = head.split(" ")[1]
                self.asked.append(target)
                said = self.says
                pieces = [said.get(target, answer("404 Not Found", b"{}"))] if isinstance(said, dict) else said
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                except OSError:  # the one who asked has heard enough
                    continue
                if self.hold:
                    self._release.wait()
