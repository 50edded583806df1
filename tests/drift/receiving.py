"""A receiver of webhooks."""

from __future__ import annotations

import http.server
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Message(NamedTuple):
    """What was received."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A server that answers as it is told, and 204 from then on.

    Attributes:
        answers: statuses; 0 cuts the connection off after the message was read, a function is called first.
        messages: what was received.
    """

    def __init__(self, port: int = 0) -> None:
        self.answers: deque[int | Callable[[], int]] = deque()
        self.messages: list[Message] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append(Message(self.path, dict(self.headers), body))
                status = receiver.answers.popleft() if receiver.answers else 204
                if callable(status):
                    status = status()
                if not status:
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.messages.append(Message(f"GET {self.path}", {}, b""))
                self.send_error(404)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *arguments: object) -> None:
                """Connections that we close ourselves."""

        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?x=1"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
