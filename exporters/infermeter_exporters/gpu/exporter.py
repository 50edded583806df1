"""`infermeter gpu-exporter`: GPUs, and which service uses how much of them."""

import argparse
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from platform import python_version
from typing import TYPE_CHECKING, NamedTuple

from infermeter_exporters.errors import ConfigError
from infermeter_exporters.families import Family, Samples
from infermeter_exporters.gpu import config
from infermeter_exporters.gpu.board import Board, Limits, Owners
from infermeter_exporters.gpu.catalogue import FAMILIES
from infermeter_exporters.gpu.readings import Xid
from infermeter_exporters.gpu.watchdog import Watchdog
from infermeter_exporters.gpu.worker import Task

if TYPE_CHECKING:
    from infermeter_exporters.gpu.attribution import Attribution

PORT = 9835
SOURCES = ("nvml", "nvidia-smi", "dcgm", "sysfs")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    from infermeter_exporters.server import add_web_flags  # noqa: PLC0415  (the worker has no use for it)

    parser.description = "Serves the metrics of the GPUs of this host, and of the services that use them."
    collect = parser.add_argument_group("what is read, and how often")
    collect.add_argument(
        "--collect.sources",
        dest="sources",
        default=",".join(SOURCES),
        metavar="NAME,...",
        help="ways to learn about GPUs, the best first; the first that can be used is (default: %(default)s)",
    )
    collect.add_argument("--collect.nvidia-smi", dest="smi", default="nvidia-smi", metavar="PATH", help="the program")
    collect.add_argument(
        "--collect.dcgm-url", dest="dcgm", default="", metavar="URL", help="metrics of a dcgm-exporter, as a source"
    )
    collect.add_argument(
        "--collect.fast-interval",
        dest="fast",
        default="1s",
        metavar="TIME",
        help="utilisation, processes (default: 1s)",
    )
    collect.add_argument(
        "--collect.interval",
        dest="normal",
        default="5s",
        metavar="TIME",
        help="temperatures, clocks and the like (default: 5s)",
    )
    collect.add_argument(
        "--collect.slow-interval", dest="slow", default="60s", metavar="TIME", help="inventory, ECC, MIG (default: 60s)"
    )
    collect.add_argument(
        "--collect.max-age",
        dest="max_age",
        default="",
        metavar="TIME",
        help="what is older is not shown (default: two of --collect.interval)",
    )
    collect.add_argument(
        "--path.rootfs", dest="root", default="", metavar="PATH", help="where the host's /sys and /proc are"
    )
    collect.add_argument(
        "--simulate",
        default="",
        metavar="SPEC",
        help="show GPUs that do not exist instead, for example h100x8,shared; for demos",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--dcgm-names", action="store_true", help="show DCGM_FI_* as well, for dashboards made for dcgm-exporter"
    )
    shown.add_argument(
        "--attribution.max-services",
        dest="services",
        type=int,
        default=100,
        metavar="N",
        help="services on a GPU; more are _other (default: 100)",
    )
    shown.add_argument(
        "--attribution.keep",
        dest="keep",
        default="10m",
        metavar="TIME",
        help="how long a service that left is shown at 0 (default: 10m)",
    )
    shown.add_argument(
        "--attribution.top-processes",
        dest="processes",
        type=int,
        default=0,
        metavar="N",
        help="processes on a GPU that are shown by pid (default: 0)",
    )
    parser.add_argument(
        "--config.file", dest="config", default="", metavar="FILE", help="prices, and rules that name services"
    )
    parser.add_argument("--config.check", dest="check", action="store_true", help="check the configuration and end")
    add_web_flags(parser, PORT)


def main(parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Serve until a signal ends it."""
    if rest:
        parser.error(f"gpu-exporter takes no {rest[0]!r}")
    exporter = GpuExporter(settings(options))
    from infermeter_exporters.server import serve, web_settings  # noqa: PLC0415

    web = web_settings(options)
    if options.check:
        print(f"{options.config or 'the configuration'} is fine", file=sys.stderr)  # noqa: T201
        return 0
    return serve(exporter, web)


class Settings(NamedTuple):
    """What the flags say, checked.

    Attributes:
        tasks: of workers, one for each source.
        limits: how long and how many.
        config: path of the configuration file, "" without one.
        simulate: specification of GPUs that do not exist, "" for those that do.
        dcgm_names: whether `DCGM_FI_*` are shown too.
        root: where `/sys` and `/proc` of the host are, "" if here.
    """

    tasks: Sequence[Task]
    limits: Limits
    config: str
    simulate: str
    dcgm_names: bool
    root: str


def settings(options: argparse.Namespace) -> Settings:
    """Check flags.

    Raises:
        ConfigError: one of them cannot work.
    """
    fast, normal, slow = (_seconds(getattr(options, name), flag) for name, flag in _INTERVALS)
    max_age = _seconds(options.max_age, "--collect.max-age") if options.max_age else 2 * max(fast, normal)
    if max_age < 2 * fast:
        raise ConfigError(f"--collect.max-age is {options.max_age}, expected at least two of --collect.fast-interval")
    for flag, number, least in (
        ("--attribution.max-services", options.services, 1),
        ("--attribution.top-processes", options.processes, 0),
    ):
        if number < least:
            raise ConfigError(f"{flag} is {number}, expected {least} or more")
    names = [name.strip() for name in options.sources.split(",") if name.strip()]
    for name in names:
        if name not in SOURCES:
            raise ConfigError(f"--collect.sources names {name!r}, expected some of {', '.join(SOURCES)}")
    if options.simulate:
        names = ["simulated"]
    elif not options.dcgm:
        names = [name for name in names if name != "dcgm"]
    if not names:
        raise ConfigError("--collect.sources names no source that can be used, dcgm needs --collect.dcgm-url")
    if options.dcgm_names and names == ["dcgm"]:
        raise ConfigError("--dcgm-names would show twice what a dcgm-exporter, the only source, shows already")
    given = {
        "nvidia-smi": {"path": options.smi},
        "dcgm": {"url": options.dcgm},
        "simulated": {"spec": options.simulate},
    }
    periods = (fast, normal, slow)
    return Settings(
        [Task(name, given.get(name, {}), periods=periods, root=options.root) for name in names],
        Limits(
            max_age,
            2 * slow + max_age,
            _seconds(options.keep, "--attribution.keep"),
            options.services,
            options.processes,
        ),
        options.config,
        options.simulate,
        options.dcgm_names,
        options.root,
    )


_INTERVALS = (
    ("fast", "--collect.fast-interval"),
    ("normal", "--collect.interval"),
    ("slow", "--collect.slow-interval"),
)


def _seconds(text: str, flag: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or not float(found[1]):
        raise ConfigError(f"{flag} is {text!r}, expected a time, for example 5s, 500ms or 1m")
    return float(found[1]) * _UNITS[found[2]]


class GpuExporter:
    """What the HTTP kernel serves; see `server.Exporter`.

    Args:
        settings: what the flags say.

    Raises:
        ConfigError: the configuration file, or the specification of simulated GPUs, cannot work.
    """

    name = "gpu-exporter"
    title = "infermeter GPU exporter"
    routes = ()  # the pages that all exporters have are enough

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = config.load(settings.config)
        self._attribution: Attribution | None = None
        self._owners: Owners = self._made_owners()
        self._board = Board(self._owners, self._config.price(), settings.limits)
        self._watchdog = Watchdog(self._board, settings.tasks, self._kernel_errors())
        self._build: Samples = {"nvidia_gpu_exporter_build_info": {(version("infermeter"), python_version()): 1.0}}
        self._reloaded = True
        self._lock = threading.Lock()

    @property
    def families(self) -> dict[str, Family]:
        """All that may be shown, in the order of the page."""
        if not self._settings.dcgm_names:
            return FAMILIES
        from infermeter_exporters.gpu.dcgm_names import FAMILIES as DCGM  # noqa: PLC0415

        return FAMILIES | DCGM

    def start(self) -> None:
        """Begin to read."""
        if self._attribution is not None:
            self._attribution.start()
        self._watchdog.start()

    def stop(self) -> None:
        """End what was started."""
        self._watchdog.stop()
        if self._attribution is not None:
            self._attribution.stop()

    def reload(self) -> None:
        """Read the configuration file again.

        Raises:
            ConfigError: it cannot work; the one before holds on.
        """
        with self._lock:
            self._reloaded = False
            self._config = config.load(self._settings.config)
            self._reloaded = True
            if self._attribution is not None:
                self._attribution.set_rules(self._config.rules)
            self._board.set_up(self._owners, self._config.price(), self._settings.limits)

    def samples(self, timeout: float) -> Samples:  # noqa: ARG002  (nothing is waited for)
        """All that is known now; nothing is asked of a driver for it."""
        found: Samples = self._board.samples(time.monotonic())
        found.update(self._watchdog.samples())
        found.update(self._build)
        found["nvidia_gpu_exporter_config_last_reload_successful"] = {(): float(self._reloaded)}
        if self._attribution is not None:
            found["nvidia_gpu_exporter_attribution_up"] = {
                (name,): float(up) for name, up in self._attribution.status().items()
            }
        if self._settings.dcgm_names:
            from infermeter_exporters.gpu.dcgm_names import dcgm  # noqa: PLC0415

            if self._watchdog.source != "dcgm":
                found.update(dcgm(found))
        return found

    def ready(self) -> str:
        """Why there are no fresh readings; empty if there are."""
        if self._board.fresh(time.monotonic()):
            return ""
        if not self._watchdog.source:
            reasons = [f"{name}: {reason}" for name, reason in self._watchdog.reasons().items() if reason]
            return "no source of readings could be used yet" + "".join(f"; {one}" for one in reasons)
        return f"no GPU was read from {self._watchdog.source} lately"

    def landing(self) -> list[tuple[str, str]]:
        """What a visitor should know, as headings and sentences."""
        source = self._watchdog.source
        lines = [("Source", f"GPUs are read from {source}." if source else "No source can be used.")]
        if self._settings.simulate:
            lines.append(("Simulated", f"These GPUs do not exist: they are simulated ({self._settings.simulate})."))
        for name, reason in self._watchdog.reasons().items():
            if reason:
                lines.append(("Not used", f"{name}: {reason}."))
        if self._attribution is not None:
            lines += [("Missing", sentence) for sentence in self._attribution.missing()]
        return lines

    def _made_owners(self) -> Owners:
        if self._settings.simulate:
            from infermeter_exporters.gpu.simulated import Simulated  # noqa: PLC0415

            try:
                return Simulated(self._settings.simulate)
            except ValueError as error:
                raise ConfigError(f"--simulate is {self._settings.simulate!r}: {error}") from error
        from infermeter_exporters.gpu.attribution import Attribution  # noqa: PLC0415

        root = self._settings.root
        self._attribution = Attribution(self._config.rules, proc=root + "/proc", root=root or "/")
        return self._attribution

    def _kernel_errors(self) -> Callable[[], Sequence[Xid]]:
        from infermeter_exporters.gpu.kmsg import Kmsg  # noqa: PLC0415

        return Kmsg().poll if not self._settings.simulate else lambda: ()
