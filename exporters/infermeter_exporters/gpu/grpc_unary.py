"""One question by gRPC over a unix socket, and as much of protobuf as the answers need.

The `h2` package speaks HTTP/2, and is imported at the first question: it brings 6 MB along, httpx would bring 20.
"""

import socket
import struct
import time
from collections.abc import Iterator

from infermeter_exporters.gpu.containers import NamesError

LARGEST = 16 << 20
_PREFIX = struct.Struct(">BI")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def call(path: str, method: str, request: bytes, deadline: float) -> bytes:
    """The answer to a request.

    Args:
        path: of the socket.
        method: `/package.Service/Method`.
        request: an encoded message.
        deadline: seconds for all of it.

    Raises:
        NamesError: nobody answers in time, the answer is more than 16 MiB, or says that something is wrong.
    """
    try:
        from h2.exceptions import H2Error  # noqa: PLC0415
    except ImportError as error:
        raise NamesError("the package h2 is missing: pip install 'infermeter[gpu]'") from error

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline)
            connection.connect(path)
            return _answer(connection, path, method, request, time.monotonic() + deadline)
    except TimeoutError as error:
        raise NamesError(f"{path} does not answer within {deadline:g} s") from error
    except OSError as error:
        raise NamesError(f"{path}: {error.strerror or error}") from error
    except H2Error as error:
        raise NamesError(f"{path} does not speak HTTP/2: {error}") from error


def _answer(connection: socket.socket, path: str, method: str, request: bytes, end: float) -> bytes:
    from h2 import events  # noqa: PLC0415
    from h2.config import H2Configuration  # noqa: PLC0415
    from h2.connection import H2Connection  # noqa: PLC0415

    state = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    state.initiate_connection()
    state.increment_flow_control_window(LARGEST)
    stream = state.get_next_available_stream_id()
    state.send_headers(
        stream,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", method),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ],
    )
    state.send_data(stream, _PREFIX.pack(0, len(request)) + request, end_stream=True)
    headers: dict[str, str] = {}
    body = bytearray()
    ended = False
    while not ended:
        connection.sendall(state.data_to_send())
        remaining = end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        piece = connection.recv(1 << 16)
        if not piece:
            raise NamesError(f"{path} hung up")
        for event in state.receive_data(piece):
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                headers.update((str(key), str(value)) for key, value in event.headers or ())
            elif isinstance(event, events.DataReceived):
                body += event.data or b""
                if len(body) > LARGEST:
                    raise NamesError(f"{path} answers with more than {LARGEST} bytes")
                state.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            elif isinstance(event, events.StreamEnded):
                ended = True
            elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                raise NamesError(f"{path} broke off")
    return _message(path, headers, bytes(body))


def _message(path: str, headers: dict[str, str], body: bytes) -> bytes:
    status = headers.get("grpc-status", "")
    if status != "0":
        raise NamesError(f"{path}: {headers.get('grpc-message', '') or 'gRPC status ' + (status or 'is missing')}")
    if len(body) < _PREFIX.size:
        raise NamesError(f"{path} answers without a message")
    compressed, length = _PREFIX.unpack_from(body)
    if compressed or length != len(body) - _PREFIX.size:
        raise NamesError(f"{path} answers with a message that is cut or compressed")
    return body[_PREFIX.size :]


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and content of the fields of a message that are strings, bytes or messages; others are passed over.

    Raises:
        ValueError: it is no message.
    """
    place, size = 0, len(message)
    while place < size:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _BYTES:
            length, place = _varint(message, place)
            if length > size - place:
                raise ValueError("a field is longer than its message")
            yield key >> 3, message[place : place + length]
            place += length
        elif kind in {_FIXED64, _FIXED32}:
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"{kind} is no type of a field")
    if place != size:
        raise ValueError("a message ends within a field")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:  # noqa: PLR2004  (ten bytes hold 64 bits)
            raise ValueError("a number does not end")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, place
        shift += 7


def mapping(entries: list[bytes]) -> dict[str, str]:
    """A map of strings, by its entries.

    Raises:
        ValueError: one is none.
    """
    found = {}
    for entry in entries:
        parts = dict(fields(entry))
        found[parts.get(1, b"").decode("utf-8", "replace")] = parts.get(2, b"").decode("utf-8", "replace")
    return found
