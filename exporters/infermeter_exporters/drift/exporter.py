"""`infermeter drift-exporter`: whether what models see and say is still what it was."""

import argparse
import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from infermeter_exporters.drift import config, report, triggers
from infermeter_exporters.drift.catalogue import FAMILIES
from infermeter_exporters.drift.config import Config
from infermeter_exporters.drift.setup import Setup
from infermeter_exporters.drift.store import StoreError
from infermeter_exporters.drift.verdicts import NEW
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.families import Samples, Series
from infermeter_exporters.server import WebSettings, add_web_flags, serve, web_settings

log = logging.getLogger("infermeter.drift")

PORT = 9837
STORE = "infermeter-drift.sqlite"
_UPKEEP = 15.0
_HELD = ("drift_active", "drift_detected_total", "drift_evidence")
"""Of what is known of a source that cannot be asked any more."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.description = "Finds drift in the histograms of a Prometheus, and in samples that it is sent."
    add_source_flags(parser)
    parser.add_argument("--config.check", dest="check", action="store_true", help="check the configuration and end")
    add_web_flags(parser, PORT)


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where observations are."""
    parser.add_argument("--config.file", dest="config", default="", metavar="FILE", help="sources, limits, triggers")
    parser.add_argument(
        "--prometheus", default="", metavar="URL", help="instead of a file: compare histograms of this Prometheus"
    )
    parser.add_argument(
        "--histogram",
        dest="histograms",
        action="append",
        metavar="NAME",
        help="one of them, may be given again (default: detection_confidence)",
    )
    parser.add_argument(
        "--store",
        default="",
        metavar="PATH|URL",
        help=f"a file of SQLite, or postgresql://... (default: {STORE} in $STATE_DIRECTORY or here)",
    )


def main(parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Serve until a signal ends it."""
    if rest:
        parser.error(f"drift-exporter takes no {rest[0]!r}")
    settings = source_settings(options)
    web = web_settings(options)
    loaded = load(settings)
    if options.check:
        print(f"{options.config or 'the configuration'} is fine", file=sys.stderr)  # noqa: T201
        return 0
    return serve(DriftExporter(settings, loaded, web), web)


class Settings(NamedTuple):
    """What the flags say, checked.

    Attributes:
        config: path of the configuration file, "" without one.
        prometheus: URL of the one source instead of a file, "" for none.
        histograms: of it.
        store: path or URL, "" for what the file says.
    """

    config: str
    prometheus: str
    histograms: Sequence[str]
    store: str


def source_settings(options: argparse.Namespace) -> Settings:
    """Check flags.

    Raises:
        ConfigError: one of them cannot work.
    """
    if options.prometheus and options.config:
        raise ConfigError("--prometheus and --config.file are both given, expected one of them")
    if options.histograms and not options.prometheus:
        raise ConfigError("--histogram is given, but no --prometheus that has it")
    return Settings(options.config, options.prometheus, options.histograms or (), options.store)


def load(settings: Settings) -> Config:
    """The configuration, its store never empty.

    Raises:
        ConfigError: it cannot work.
    """
    found = config.load(settings.config)
    if settings.prometheus:
        histograms: dict[str, object] = {"histograms": list(settings.histograms)} if settings.histograms else {}
        source = {"type": "prometheus", "url": settings.prometheus, **histograms}
        found = config.parsed({"sources": [source, {"type": "push"}]}, "the flags")
    store = settings.store or found.store or str(Path(os.environ.get("STATE_DIRECTORY", ""), STORE))
    return found._replace(store=store)


class DriftExporter:
    """What the HTTP kernel serves; see `server.Exporter`.

    Args:
        settings: what the flags say.
        config: what the file says.
        web: what the flags of the page say.

    Raises:
        ConfigError: the configuration cannot work.
    """

    name = "drift-exporter"
    title = "infermeter drift exporter"
    families = FAMILIES

    def __init__(self, settings: Settings, config: Config, web: WebSettings) -> None:
        self._settings = settings
        self._web = web
        self._setup = Setup(config)
        self._reloaded = True
        self._known: Samples = {}
        self._end = threading.Event()
        self._upkeep = threading.Thread(target=self._keep_up, name="upkeep", daemon=True)
        self._lock = threading.Lock()
        self._build: Samples = {"drift_exporter_build_info": {(version("infermeter"), python_version()): 1.0}}

    @property
    def routes(self) -> list[Route]:
        """Pages besides those of the kernel."""
        return [
            Route("/", self._report),
            Route("/v1/drift", self._json),
            *(Route(path, self._sent, methods=["POST"]) for path in ("/v1/samples", "/v1/labels", "/v1/trigger")),
        ]

    def start(self) -> None:
        """Begin to evaluate."""
        self._setup.start()
        self._upkeep.start()

    def stop(self) -> None:
        """End what was started."""
        self._end.set()
        self._setup.stop()

    def reload(self) -> None:
        """Read the configuration file again; verdicts and counts go on where they were.

        Raises:
            ConfigError: it cannot work; the one before holds on.
        """
        with self._lock:
            self._reloaded = False
            fresh = Setup(load(self._settings))
            before, self._setup = self._setup, fresh
            before.stop()
            fresh.start()
            self._reloaded = True

    def samples(self, timeout: float) -> Samples:  # noqa: ARG002  (nothing is waited for)
        """All that is known now; nothing is asked for it."""
        now, setup = time.time(), self._setup
        found: dict[str, Series] = {}
        for watch in setup.watches:
            shown, fresh = watch.shown.samples, watch.fresh(now)
            for name, series in shown.items():
                if fresh or name in _HELD:
                    into = found.setdefault(name, {})
                    # Of two sources that have the same feature, the first one counts.
                    into.update(series if not into else {key: one for key, one in series.items() if key not in into})
            for name, series in watch.status().items():
                found.setdefault(name, {}).update(series)
        found |= {**self._known, **setup.counts(), **self._build}
        fired = dict(found.get("finetuning_triggers_total", {}))
        for service, model, *_ in found.get("drift_active", {}):
            for kind in triggers.KINDS:
                fired.setdefault((service, model, kind), 0.0)
        found["finetuning_triggers_total"] = fired
        found["drift_exporter_config_last_reload_successful"] = {(): float(self._reloaded)}
        return found

    def ready(self) -> str:
        """Why there is nothing fresh to be shown; empty if there is."""
        now = time.time()
        for watch in self._setup.watches:
            if watch.error:
                return watch.error
            if not watch.fresh(now):
                return f"{watch.source.name} was not evaluated yet"
        return ""

    def landing(self) -> list[tuple[str, str]]:
        """What a visitor should know, as headings and sentences."""
        setup = self._setup
        timing, gates = setup.config.timing, setup.config.gates
        lines = [
            ("Windows", f"Of {timing.window:g} s, each {timing.interval:g} s, as of {timing.delay:g} s ago."),
            (
                "Drift",
                f"An index of at least {gates.effect:g}, a p-value below {gates.alpha:g} after adjustment, and at least"
                f" {gates.least} observations, in {gates.agreeing} of {gates.windows} windows.",
            ),
        ]
        for watch in setup.watches:
            against = ", ".join(watch.source.baselines)
            state = f"cannot be asked: {watch.error}" if watch.error else "answers"
            lines.append(("Source", f"{watch.source.name}, against {against}, {state}."))
        return lines

    def _rows(self) -> list[report.Row]:
        return [
            (finding, watch.shown.verdicts.get((finding.comparison.key, finding.comparison.baseline), NEW))
            for watch in self._setup.watches
            for finding in watch.shown.findings
        ]

    async def _report(self, _: Request) -> Response:
        reason = self.ready()
        lines = [("State", f"Not ready: {reason}." if reason else "Ready."), *self.landing()]
        gates = self._setup.config.gates
        return HTMLResponse(await asyncio.to_thread(report.page, self.title, lines, self._rows(), gates))

    async def _json(self, request: Request) -> Response:
        wanted = {
            name: request.query_params[name] for name in ("service", "model", "feature") if name in request.query_params
        }
        rows = [
            row
            for row in self._rows()
            if all(getattr(row[0].comparison.key, name) == one for name, one in wanted.items())
        ]
        gates = self._setup.config.gates
        return JSONResponse({"drift": await asyncio.to_thread(report.as_json, rows, gates)})

    async def _sent(self, request: Request) -> Response:
        push = self._setup.push
        if push is None:
            return PlainTextResponse("the configuration has no source of the type push\n", 404)
        return await push.answer(request)

    def _keep_up(self) -> None:
        while True:
            try:
                self._known = self._setup.look_up(time.time())
            except StoreError as error:
                log.warning("what is in the store is not shown anew: %s", error)
            except Exception:  # or nothing would be forgotten any more
                log.exception("the store could not be tidied")
            if self._end.wait(min(_UPKEEP, self._setup.config.timing.interval)):
                return
