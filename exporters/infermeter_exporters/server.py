"""The HTTP server that all exporters share."""

import argparse
import asyncio
import base64
import contextlib
import gzip
import html
import inspect
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.server import Server

from infermeter_exporters import listening, logs, web_config
from infermeter_exporters.accept import CONTENT_TYPES, negotiate
from infermeter_exporters.connection import IDLE_TIMEOUT, Connection
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.families import Family, Samples
from infermeter_exporters.page import Page

log = logging.getLogger("infermeter.web")

_GZIP_LEVEL = 1  # a third of the size is what matters to a network
# Seconds that a scrape keeps back of what Prometheus gives it, and what it takes where nobody says.
_RESERVE, _USUAL = 0.25, 10.0
_UNAVAILABLE = 503
# Seconds after which a thread that collects has to let one that answers go on; Python's own 0.005 are seen in p99.
_SWITCH_INTERVAL = 0.0005


class Exporter(Protocol):
    """What is served.

    Attributes:
        name: as in the command.
        title: of the landing page.
        families: all that may be shown, in the order of the page.
        routes: pages of its own; they come before those that all exporters have.
    """

    name: str
    title: str

    @property
    def families(self) -> Mapping[str, Family]: ...  # noqa: D102

    @property
    def routes(self) -> Sequence[Route]: ...  # noqa: D102

    def start(self) -> None:
        """Begin to collect."""

    def stop(self) -> None:
        """End what was started."""

    def reload(self) -> None:
        """Read the configuration again; it may take its time.

        Raises:
            ConfigError: it cannot work; the one before holds on.
        """

    def samples(self, timeout: float) -> Samples | Awaitable[Samples]:
        """What is known now: at once, or where it has to be waited for, within so many seconds."""

    def ready(self) -> str:
        """Why there is nothing fresh to be shown; empty if there is."""

    def landing(self) -> Sequence[tuple[str, str]]:
        """What a visitor should know, as headings and sentences."""


class WebSettings(NamedTuple):
    """What the flags say, checked.

    Attributes:
        addresses: to listen on, "host:port".
        config: path of the file of `web_config`, "" without one.
        web: what it says.
        lifecycle: whether `POST /-/reload` is allowed.
        most: scrapes at the same time.
    """

    addresses: Sequence[str]
    config: str
    web: web_config.WebConfig
    lifecycle: bool
    most: int


def add_web_flags(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the flags that all exporters have, to listen on `port` of loopback unless told otherwise."""
    web = parser.add_argument_group("the page")
    web.add_argument(
        "--web.listen-address",
        dest="listen",
        action="append",
        metavar="[HOST]:PORT",
        help=f"where it is, may be given again; without a host on every address (default: 127.0.0.1:{port})",
    )
    web.add_argument(
        "--web.config.file", dest="web_config", default="", metavar="FILE", help="TLS and users, as Prometheus has it"
    )
    web.add_argument("--web.enable-lifecycle", dest="lifecycle", action="store_true", help="allow POST /-/reload")
    web.add_argument(
        "--web.max-requests", dest="most", type=int, default=40, metavar="N", help="scrapes at a time (default: 40)"
    )
    web.add_argument("--log.level", dest="log_level", default="info", choices=logs.LEVELS, help="(default: info)")
    web.add_argument(
        "--log.format", dest="log_format", default="logfmt", choices=logs.FORMATS, help="(default: logfmt)"
    )
    parser.set_defaults(default_listen=f"127.0.0.1:{port}")


def web_settings(options: argparse.Namespace) -> WebSettings:
    """Check flags, and set up the log.

    Raises:
        ConfigError: one of them cannot work.
    """
    logs.set_up(options.log_level, options.log_format)
    addresses = options.listen or [options.default_listen]
    for text in addresses:
        listening.parse(text)
    if options.most < 1:
        raise ConfigError(f"--web.max-requests is {options.most}, expected 1 or more")
    return WebSettings(
        addresses, options.web_config, web_config.load(options.web_config), options.lifecycle, options.most
    )


def serve(exporter: Exporter, settings: WebSettings) -> int:
    """Serve until a signal ends it; gives the exit code.

    Raises:
        ConfigError: an address cannot be listened on. Nothing is started then.
    """
    sockets = listening.listen(settings.addresses)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    exporter.start()
    try:
        asyncio.run(_serve(exporter, settings, sockets))
    finally:
        exporter.stop()
    return 0


async def _serve(exporter: Exporter, settings: WebSettings, sockets: Sequence[socket.socket]) -> None:
    application = Application(exporter, settings)
    config = Config(
        application,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_TIMEOUT,
        timeout_graceful_shutdown=2,
    )
    config.load()
    if settings.web.tls is not None:
        config.ssl = web_config.renewed(settings.web.tls)
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.end)
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(application.reload_now())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    scheme = "https" if settings.web.tls is not None else "http"
    for one in sockets:
        log.info("metrics are on %s://%s/metrics", scheme, listening.shown(one))
    await server.serve(sockets=list(sockets))


class _Server(Server):
    """Leaves signals to us: it would raise them again at its end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def end(self) -> None:
        """End soon."""
        self.should_exit = True


class Application:
    """The pages of an exporter, as an ASGI application.

    Args:
        exporter: what is served.
        settings: how.
    """

    def __init__(self, exporter: Exporter, settings: WebSettings) -> None:
        self._exporter = exporter
        self._settings = settings
        self._page = Page(exporter.families)
        self._passwords = web_config.Passwords(settings.web.users)
        self._web = settings.web
        self._running = 0
        self._reloading = asyncio.Lock()
        routes = [
            *exporter.routes,
            Route("/", self._landing),
            Route("/metrics", self._metrics),
            Route("/-/healthy", self._healthy),
            Route("/-/ready", self._ready),
        ]
        if settings.lifecycle:
            routes.append(Route("/-/reload", self._reload, methods=["POST", "PUT"]))
        self._app = Starlette(routes=routes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, if who asks may ask."""
        if scope["type"] != "http":
            return
        added = [(name.lower().encode(), value.encode()) for name, value in self._web.headers.items()]

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if self._web.users and not await self._may(Request(scope)):
            headers = {"WWW-Authenticate": 'Basic realm="infermeter"'}
            await PlainTextResponse("Unauthorized\n", 401, headers)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    async def reload_now(self) -> None:
        """Read all configuration again; what is wrong with it is logged, and holds on as it was."""
        try:
            await self._reloaded()
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)  # noqa: TRY400  (a sentence says it all)
        else:
            log.info("the configuration was read again")

    async def _reloaded(self) -> None:
        async with self._reloading:
            web = await asyncio.to_thread(web_config.load, self._settings.config)
            await asyncio.to_thread(self._exporter.reload)
            # Files of TLS are read when they change; whether there is TLS is decided at the start.
            self._passwords = web_config.Passwords(web.users)
            self._web = web

    async def _may(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:
            return False
        if scheme.lower() != "basic":
            return False
        known = self._passwords.remembered(user, password)
        return await asyncio.to_thread(self._passwords.fit, user, password) if known is None else known

    async def _metrics(self, request: Request) -> Response:
        if self._running >= self._settings.most:
            text = f"{self._running} scrapes run already, which is the most that --web.max-requests allows\n"
            return PlainTextResponse(text, _UNAVAILABLE)
        self._running += 1
        try:
            samples = self._exporter.samples(_timeout(request))
            if inspect.isawaitable(samples):
                samples = await samples
        except asyncio.CancelledError:  # by the server, which waits for no scrape for longer than a moment
            return PlainTextResponse(f"{self._exporter.name} ends\n", _UNAVAILABLE)
        finally:
            self._running -= 1
        format_ = negotiate(",".join(request.headers.getlist("accept")))
        content = self._page.write(samples, format_)
        headers = {"Content-Type": CONTENT_TYPES[format_], "Vary": "Accept, Accept-Encoding"}
        if _takes_gzip(request):
            content = gzip.compress(content, _GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(content, headers=headers)

    async def _healthy(self, _: Request) -> Response:
        return PlainTextResponse(f"{self._exporter.name} is healthy\n")

    async def _ready(self, _: Request) -> Response:
        reason = self._exporter.ready()
        if reason:
            return PlainTextResponse(f"not ready: {reason}\n", 503)
        return PlainTextResponse(f"{self._exporter.name} is ready\n")

    async def _reload(self, _: Request) -> Response:
        try:
            await self._reloaded()
        except ConfigError as error:
            return PlainTextResponse(f"{error}\n", 500)
        return PlainTextResponse("reloaded\n")

    async def _landing(self, _: Request) -> Response:
        title = html.escape(self._exporter.title)
        reason = self._exporter.ready()
        lines = [("State", f"Not ready: {reason}." if reason else "Ready."), *self._exporter.landing()]
        rows = "".join(f"<tr><th>{html.escape(head)}</th><td>{html.escape(text)}</td></tr>\n" for head, text in lines)
        return HTMLResponse(_LANDING.format(title=title, rows=rows))


_LANDING = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 50rem; padding: 0 1rem }}
th {{ text-align: left; vertical-align: top; padding-right: 1.5rem; white-space: nowrap }}
</style>
<h1>{title}</h1>
<p><a href="/metrics">Metrics</a> · <a href="/-/healthy">healthy</a> · <a href="/-/ready">ready</a></p>
<table>
{rows}</table>
</html>
"""


def _timeout(request: Request) -> float:
    """Seconds that a scrape may take, by what Prometheus says of its own patience."""
    try:
        given = float(request.headers.get("x-prometheus-scrape-timeout-seconds", ""))
    except ValueError:
        return _USUAL
    return max(given - _RESERVE, given / 2) if 0 < given < float("inf") else _USUAL


def _takes_gzip(request: Request) -> bool:
    for written in request.headers.get("accept-encoding", "").split(","):
        kind, *parameters = (part.strip().lower() for part in written.split(";"))
        if kind in {"gzip", "*"}:
            return not any(one.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for one in parameters)
    return False
