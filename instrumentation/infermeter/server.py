"""`/metrics` over HTTP from a background thread."""

import errno
import logging
import os
import socket
import threading
import weakref
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from infermeter.config import environment_run_folder
from infermeter.errors import ConfigError
from infermeter.page import Page

log = logging.getLogger("infermeter")

_LAST_PORT = 65535


class Server:
    """A running metrics server; ends with the process, with `close`, or at the end of a `with` block.

    Attributes:
        port: the port it listens on; 0 if it does not listen.
    """

    def __init__(self, httpd: WSGIServer | None = None) -> None:
        self._httpd = httpd
        self.port: int = 0
        if httpd is not None:
            self.port = httpd.server_port
            self._thread = threading.Thread(target=httpd.serve_forever, name="infermeter-metrics", daemon=True)
            self._thread.start()
            _listening.add(self)

    def close(self) -> None:
        """Stop listening; closing twice is harmless."""
        httpd, self._httpd = self._httpd, None
        if httpd is not None:
            httpd.shutdown()
            httpd.server_close()
            self._thread.join()

    def leave(self) -> None:
        """Forget the port, which is another process's: that of which this one is a fork."""
        httpd, self._httpd = self._httpd, None
        if httpd is not None:
            httpd.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(page: Page, port: int, addr: str) -> Server:
    """Serve `page` on `addr` and `port`; see `Recorder.serve`."""
    if type(port) is not int or not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"serve({port!r}) is not a port number of 0 to 65535")
    if not isinstance(addr, str):
        raise ConfigError(f"serve(addr={addr!r}) is not a string, for example '127.0.0.1'")
    if environment_run_folder() is not None:
        log.info("port %d is not served: infermeter run serves the metrics of all its processes", port)
        return Server()
    try:
        httpd = _Httpd(page, port, addr)
    except UnicodeError as error:
        raise ConfigError(f"serve(addr={addr!r}) is not an address or the name of a host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {addr} is in use, expected a free one: stop what listens there or serve another"
        else:
            message = f"cannot serve on {addr!r} port {port}: {error.strerror or error}"
        raise ConfigError(message) from error
    return Server(httpd)


_listening: weakref.WeakSet[Server] = weakref.WeakSet()


def _leave_all() -> None:
    for server in list(_listening):
        server.leave()


# A worker that kept the port open would keep it from who comes after its parent, and answer nobody.
os.register_at_fork(after_in_child=_leave_all)


class _Httpd(ThreadingMixIn, WSGIServer):
    """A thread for each scrape, so that one slow reader does not keep another waiting."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, page: Page, port: int, addr: str) -> None:
        family, *_, address = socket.getaddrinfo(addr, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__((str(address[0]), port), _Handler)
        self.set_app(page.wsgi_app())

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a reader that went away."""


class _Handler(WSGIRequestHandler):
    """Writes no line for each scrape."""

    timeout = 30  # seconds that a reader may be silent before its thread is given back

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class calls it so)
        """Say nothing."""
