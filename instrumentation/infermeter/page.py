"""`/metrics`: one page for a recorder and for whatever else is in its registry.

What is ours is rendered here, from rows; what belongs to others by prometheus_client. One collector of theirs that
raises does not take the page with it: what came before it is shown, and all that is ours.
"""

import gzip
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from prometheus_client import REGISTRY, CollectorRegistry, Metric, values
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics

from infermeter.config import environment_peer_dir
from infermeter.negotiation import CONTENT_TYPES, Format, negotiate
from infermeter.registration import hidden

if TYPE_CHECKING:
    from infermeter.ledger import Ledger

log = logging.getLogger("infermeter")

Headers = list[tuple[str, str]]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Mapping[str, Any], Receive, Send], Coroutine[Any, Any, None]]
Wsgi = Callable[[Mapping[str, Any], Callable[[str, Headers], object]], Iterable[bytes]]

# Level 1: a third of the size is what matters to a network, the rest would be paid for by those who infer.
_GZIP_LEVEL = 1


class Page:
    """What a registry shows.

    Args:
        ledger: what is ours in it.
        registry: where it is found, beside the collectors of others.
    """

    def __init__(self, ledger: "Ledger", registry: CollectorRegistry) -> None:
        self._ledger = ledger
        self._registry = registry

    def text(self) -> bytes:
        """The page in the text format 0.0.4."""
        return self._ledger.text(generate_latest(self._others()), open_metrics=False)

    def open_metrics(self) -> bytes:
        """The page as OpenMetrics 1.0.0."""
        others: bytes = generate_open_metrics(self._others())  # type: ignore[no-untyped-call]
        return self._ledger.text(others, open_metrics=True)

    def protobuf(self, *, classic: bool = False) -> bytes:
        """The page as delimited `MetricFamily` messages; `classic` leaves native buckets out."""
        return self._ledger.protobuf(classic=classic) + _converted(self._others().collect())

    def answer(self, accept: str, encoding: str, query: Mapping[str, list[str]]) -> tuple[Headers, bytes]:
        """The headers and the body for somebody who asks.

        Args:
            accept: the header Accept.
            encoding: the header Accept-Encoding.
            query: `name[]` chooses samples by name; `histograms=classic` leaves native buckets out.
        """
        kind = negotiate(accept)
        if names := query.get("name[]"):
            body = self._chosen(kind, names)
        elif kind == "protobuf":
            body = self.protobuf(classic=query.get("histograms") == ["classic"])
        else:
            body = self.open_metrics() if kind == "openmetrics" else self.text()
        headers = [("Content-Type", CONTENT_TYPES[kind])]
        if "gzip" in encoding.lower():
            body = gzip.compress(body, _GZIP_LEVEL)
            headers.append(("Content-Encoding", "gzip"))
        return headers, body

    def asgi_app(self) -> Asgi:
        """The page as an ASGI application."""

        async def metrics(scope: Mapping[str, Any], _receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                raise ValueError(f"infermeter's page got the ASGI scope {scope['type']!r}, expected 'http'")
            status, headers, body = self._responded(
                scope["method"],
                scope["path"],
                scope.get("query_string", b"").decode("latin-1"),
                _header(scope["headers"], b"accept"),
                _header(scope["headers"], b"accept-encoding"),
            )
            encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
            await send({"type": "http.response.start", "status": int(status.split()[0]), "headers": encoded})
            await send({"type": "http.response.body", "body": body})

        return metrics

    def wsgi_app(self) -> Wsgi:
        """The page as a WSGI application."""

        def metrics(environ: Mapping[str, Any], start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
            status, headers, body = self._responded(
                environ["REQUEST_METHOD"],
                environ.get("PATH_INFO", ""),
                environ.get("QUERY_STRING", ""),
                environ.get("HTTP_ACCEPT", ""),
                environ.get("HTTP_ACCEPT_ENCODING", ""),
            )
            start_response(status, headers)
            return [body]

        return metrics

    def _responded(self, method: str, path: str, query: str, accept: str, encoding: str) -> tuple[str, Headers, bytes]:
        """Status, headers and body; every path is the page, as in prometheus_client, so that it can be mounted."""
        if method == "OPTIONS":
            status, headers, body = "200 OK", [("Allow", "GET,HEAD,OPTIONS")], b""
        elif method not in {"GET", "HEAD"}:
            status, headers, body = "405 Method Not Allowed", [("Allow", "GET,HEAD,OPTIONS")], b""
        elif path.endswith("/favicon.ico"):
            status, headers, body = "404 Not Found", [], b""
        else:
            headers, body = self.answer(accept, encoding, parse_qs(query))
            status = "200 OK"
        headers.append(("Content-Length", str(len(body))))
        return status, headers, b"" if method == "HEAD" else body

    def _chosen(self, kind: Format, names: list[str]) -> bytes:
        """Only samples of some names: rare, and not worth a way of our own."""
        chosen = []
        for metric in (*self._ledger.collect(), *self._others().collect()):
            some = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            some.samples = [sample for sample in metric.samples if sample.name in names]
            if some.samples:
                chosen.append(some)
        if kind == "protobuf":
            return _converted(chosen)
        body: bytes = (generate_open_metrics if kind == "openmetrics" else generate_latest)(_Collected(chosen))
        return body

    def _others(self) -> "_Collected":
        """What is in the registry beside us."""
        found: list[Metric] = []
        with hidden():
            try:
                found.extend(_whole(self._registry).collect())
            except Exception:  # foreign code, called for the user
                log.exception("a collector in the registry raised; /metrics goes on without it and those after it")
        return _Collected(found)


def _whole(registry: CollectorRegistry) -> CollectorRegistry:
    """`registry`, or in prometheus_client's multi-process mode, instead of its own, what it merges of all processes.

    A registry that somebody made for themselves has in it whatever they want to have in it.
    """
    folder = environment_peer_dir()
    if registry is not REGISTRY or not folder or not getattr(values.ValueClass, "_multiprocess", False):
        return registry
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415  (most services are one process)

    # One that is being made is empty for a moment, or for ever if its process was killed; their collector raises at it.
    files = [str(path) for path in Path(folder).glob("*.db") if path.stat().st_size]
    return _Collected(list(MultiProcessCollector.merge(files)))  # type: ignore[no-untyped-call]


class _Collected(CollectorRegistry):
    """Metrics that were collected already, as prometheus_client wants to be given them."""

    def __init__(self, metrics: list[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _converted(metrics: Iterable[Metric]) -> bytes:
    """Metrics of others as messages; one that cannot be converted is left out."""
    from infermeter.protobuf import convert  # noqa: PLC0415  (most scrapers never ask for it)

    parts = []
    for metric in metrics:
        try:
            parts.append(convert(metric))
        except Exception:  # what a foreign collector gives may be anything
            log.exception("the metric %r in the registry is no metric; /metrics goes on without it", metric)
    return b"".join(parts)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """All values of a header, whose name is in lower case, as one."""
    return ",".join(value.decode("latin-1") for key, value in headers if key.lower() == name)
