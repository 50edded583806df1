"""`/metrics` over HTTP from a background thread."""

import errno
import threading
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, start_http_server

from infermeter.errors import ConfigError

_LAST_PORT = 65535


class Server:
    """A running metrics server; ends with the process, with `close`, or at the end of a `with` block.

    Attributes:
        port: the port it listens on.
    """

    def __init__(self, httpd: Any, thread: threading.Thread) -> None:
        self._httpd = httpd
        self._thread = thread
        self.port: int = httpd.server_address[1]

    def close(self) -> None:
        """Stop listening; closing twice is harmless."""
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve(registry: CollectorRegistry, port: int, addr: str) -> Server:
    """Serve `registry` on `addr` and `port`; see `Recorder.serve`."""
    if type(port) is not int or not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"serve({port!r}) is not a port number of 0 to 65535")
    if not isinstance(addr, str):
        raise ConfigError(f"serve(addr={addr!r}) is not a string, for example '127.0.0.1'")
    try:
        httpd, thread = start_http_server(port, addr, registry)
    except UnicodeError as error:
        raise ConfigError(f"serve(addr={addr!r}) is not an address or the name of a host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {addr} is in use, expected a free one: stop what listens there or serve another"
        else:
            message = f"cannot serve on {addr!r} port {port}: {error.strerror or error}"
        raise ConfigError(message) from error
    return Server(httpd, thread)
