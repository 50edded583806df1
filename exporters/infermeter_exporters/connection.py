"""A connection to an exporter that takes no more of it than a scrape needs."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 512
"""At most; what comes beyond is closed at once."""
REQUEST_TIMEOUT = 10.0
"""Seconds in which a request has to arrive, all of it, from the first byte or the begin of the connection."""
WRITE_TIMEOUT = 30.0
"""Seconds for which a client may take nothing of an answer."""
IDLE_TIMEOUT = 180
"""Seconds for which a connection may idle: longer than scrapes are apart, lest each begins with a handshake."""


class Connection(H11Protocol):
    """Adds to uvicorn's what it has no limits for: how slowly one may ask and listen, and how many may."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """A connection as uvicorn makes it, whose arguments these are."""
        super().__init__(*given, **named)
        self._asking: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody came."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._asking = self.loop.call_later(REQUEST_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Some of a request came."""
        super().data_received(data)
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._asking = _cancelled(self._asking)
        elif self._asking is None and not self.transport.is_closing():
            self._asking = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)

    def on_response_complete(self) -> None:
        """The answer is written: now the connection idles, if the request has come in full."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None and self.conn.their_state is h11.IDLE:
            self._asking = _cancelled(self._asking)

    def pause_writing(self) -> None:
        """The client takes less than we have for it."""
        super().pause_writing()
        _cancelled(self._telling)
        self._telling = self.loop.call_later(WRITE_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        """The client took it."""
        super().resume_writing()
        self._telling = _cancelled(self._telling)

    def timeout_keep_alive_handler(self) -> None:
        """The connection idled; one that has not even taken its answer is not closed politely."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._asking, self._telling = _cancelled(self._asking), _cancelled(self._telling)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, in the place of a timer that is not wanted any more."""
    if timer is not None:
        timer.cancel()
    return None
