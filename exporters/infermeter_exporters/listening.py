"""Addresses on which an exporter listens."""

import os
import re
import socket
from collections.abc import Sequence

from infermeter_exporters.errors import ConfigError

FLAG = "--web.listen-address"
_ADDRESS = re.compile(r"(?:\[(?P<six>[^]]*)\]|(?P<host>[^:\[\]/]*)):(?P<port>[0-9]{1,5})")
_HIGHEST = 65535
_WAITING = 128  # connections that the kernel keeps until they are accepted


def parse(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `:port` (all addresses) or `[::1]:port`.

    Raises:
        ConfigError: it is none of them.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > _HIGHEST:
        raise ConfigError(
            f"{FLAG} is {text!r}, expected host:port, :port or [address]:port, for example 127.0.0.1:9835"
        )
    return found["six"] or found["host"] or "", int(found["port"])


def listen(addresses: Sequence[str]) -> list[socket.socket]:
    """Sockets that listen, one for each address; all or none.

    Raises:
        ConfigError: on one of them nobody can listen, or somebody else does.
    """
    opened: list[socket.socket] = []
    try:
        for text in addresses:
            opened.append(_listening(text))  # noqa: PERF401  (what was opened before an error has to be closed)
    except ConfigError:
        for one in opened:
            one.close()
        raise
    return opened


def shown(listener: socket.socket) -> str:
    """Where a socket listens, as it stands in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listening(text: str) -> socket.socket:
    found = _bound(text)
    # Connections have it from the socket that takes them; without it, what answers on one that is kept alive waits for
    # an acknowledgement that is put off, 40 ms.
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _bound(text: str) -> socket.socket:
    host, port = parse(text)
    try:
        if not host:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, backlog=_WAITING, dualstack_ipv6=both)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # a name may have several
        return socket.create_server(address[:2], family=family, backlog=_WAITING)
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()
        raise ConfigError(f"{FLAG} is {text!r}, expected an address on which one can listen: {reason}") from error
