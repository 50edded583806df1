"""Options: what `configure` takes, checked where it is given, and the environment behind it."""

import dataclasses
import difflib
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypedDict

from prometheus_client import CollectorRegistry

from infermeter.catalogue import FAMILIES
from infermeter.cost import CostModel
from infermeter.errors import ConfigError
from infermeter.guard import DEFAULT_SERIES, GUARDED
from infermeter.native import MAX_BUCKETS
from infermeter.observation import Names
from infermeter.sharing import GAUGE_MODES, GaugeMode

log = logging.getLogger("infermeter")

UNKNOWN_SERVICE = "unknown_service"
_SERVICE_VARIABLES = ("INFERMETER_SERVICE", "OTEL_SERVICE_NAME")
_HISTOGRAMS_VARIABLE = "INFERMETER_HISTOGRAMS"
_TORCH_MODULES_VARIABLE = "INFERMETER_TORCH_MODULES"
_MODES = ("classic", "native", "both")
_MULTIPROCESS_VARIABLE = "INFERMETER_MULTIPROC_DIR"
_PEER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# The folder of `infermeter run`, in the environment of what it started.
RUN_VARIABLE = "INFERMETER_RUN"
# Queries average its bare name, which a native histogram would take.
_ALWAYS_CLASSIC = "objects_per_frame"
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OWN_LABELS = {label for family in FAMILIES.values() for label in family.labels} | {"le", "quantile"}


Mode = Literal["classic", "native", "both"]


class Options(TypedDict, total=False):
    """The keyword arguments of `configure` and of `Recorder`."""

    service: str
    cost: CostModel | None
    registry: CollectorRegistry
    buckets: Mapping[str, Iterable[float]]
    labels: Mapping[str, str]
    max_label_values: int | Mapping[str, int]
    max_series: int
    histograms: Mode | Mapping[str, Mode]
    max_native_buckets: int
    multiprocess_dir: str | os.PathLike[str]
    gauges: GaugeMode | Mapping[str, GaugeMode]


class TrackOptions(TypedDict, total=False):
    """The keyword arguments of `track` beside model and version."""

    detections: Callable[[Any], Any] | Literal["auto"] | None
    names: Names
    cost: CostModel | None
    stream: Literal["call", "item"]


@dataclass(frozen=True)
class Settings:
    """Validated options; the defaults are those of a process that configured nothing.

    Attributes:
        service: the fleet-unique name of the service; None asks the environment.
        cost: prices of every model that has none of its own; None leaves `inference_cost` absent.
        registry: where the families are exposed; None is `prometheus_client.REGISTRY`.
        edges: bucket edges by histogram family.
        labels: constant labels on every family of a service.
        max_label_values: limit of distinct values by label name.
        max_series: limit of series per family.
        histograms: how histogram families are exposed where not classic; None asks the environment.
        max_native_buckets: populated buckets of a native histogram before its resolution is halved.
        multiprocess_dir: the folder that the processes of a service share; None asks the environment.
        gauges: how gauges of several processes become one, by family.
    """

    service: str | None = None
    cost: CostModel | None = None
    registry: CollectorRegistry | None = None
    edges: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {name: family.edges for name, family in FAMILIES.items() if family.edges}
    )
    labels: dict[str, str] = field(default_factory=dict)
    max_label_values: dict[str, int] = field(default_factory=dict)
    max_series: int = DEFAULT_SERIES
    histograms: dict[str, str] | None = None
    max_native_buckets: int = MAX_BUCKETS
    multiprocess_dir: Path | None = None
    gauges: dict[str, str] = field(default_factory=dict)

    def folder(self) -> Path | None:
        """The folder that processes share, if they do."""
        return self.multiprocess_dir or environment_multiprocess_dir()

    def modes(self) -> dict[str, str]:
        """How histogram families are exposed where not classic."""
        return environment_histograms() if self.histograms is None else self.histograms

    def replaced(self, options: Mapping[str, Any]) -> "Settings":
        """These settings with `options` over them.

        Raises:
            ConfigError: an unknown option or a value that cannot work.
        """
        changes: dict[str, Any] = {}
        for name, value in options.items():
            if name not in _READERS:
                raise ConfigError(f"configure() has no option {name!r}{_guess(name, _READERS)}")
            key, reader = _READERS[name]
            changes[key] = reader(value)
        for name in ("edges", "labels", "max_label_values", "gauges"):
            if name in changes:
                changes[name] = getattr(self, name) | changes[name]
        return dataclasses.replace(self, **changes)


def _guess(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f", did you mean {close[0]!r}?" if close else f", expected one of {', '.join(sorted(known))}"


def service_name(value: object) -> str:
    """`value` as a service name.

    Raises:
        ConfigError: not a string, empty, or beginning with an underscore (those names are reserved).
    """
    if not isinstance(value, str) or not value.strip() or value.startswith("_"):
        raise ConfigError(f"service={value!r} is not a non-empty string that begins with anything but an underscore")
    return value


def environment_service() -> str:
    """The service that the environment names; what is wrong there is logged, because it must not stop a service."""
    for variable in _SERVICE_VARIABLES:
        value = os.environ.get(variable)
        if value:
            try:
                return service_name(value)
            except ConfigError as error:
                log.warning("ignoring the environment variable %s: %s", variable, error)
    log.warning(
        "no service name: set INFERMETER_SERVICE or call infermeter.configure(service=...); using %r", UNKNOWN_SERVICE
    )
    return UNKNOWN_SERVICE


def environment_histograms() -> dict[str, str]:
    """How the environment wants histogram families exposed; what is wrong there is logged."""
    value = os.environ.get(_HISTOGRAMS_VARIABLE)
    if value:
        try:
            return _histograms(value)
        except ConfigError as error:
            log.warning("ignoring the environment variable %s: %s", _HISTOGRAMS_VARIABLE, error)
    return {}


def environment_peer_dir() -> str | None:
    """The folder that prometheus_client's processes share."""
    return os.environ.get(_PEER_VARIABLE) or os.environ.get(_PEER_VARIABLE.lower())


def environment_multiprocess_dir() -> Path | None:
    """The folder that the environment tells processes to share; what is wrong there is logged."""
    value = os.environ.get(_MULTIPROCESS_VARIABLE)
    variable = _MULTIPROCESS_VARIABLE
    if not value:
        variable, peer = _PEER_VARIABLE, environment_peer_dir()
        # In it, under a name that prometheus_client does not look at.
        value = str(Path(peer) / "infermeter") if peer else None
    if value:
        try:
            return _multiprocess_dir(value)
        except ConfigError as error:
            log.warning("this process counts for itself alone, because of the variable %s: %s", variable, error)
    return None


def environment_run_folder() -> Path | None:
    """The folder of the `infermeter run` that started this process, or one above it."""
    value = os.environ.get(RUN_VARIABLE)
    return Path(value) if value else None


def environment_torch_modules() -> list[tuple[str, str]]:
    """The classes of modules that the environment names, as `package.module:Class` with commas between.

    Returns:
        module and class of each; what is no such name is logged, because it must not stop a service.
    """
    found = []
    for entry in os.environ.get(_TORCH_MODULES_VARIABLE, "").split(","):
        module, _, name = entry.strip().partition(":")
        if all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            found.append((module, name))
        elif entry.strip():
            log.warning(
                "ignoring %r in the environment variable %s, expected package.module:Class",
                entry.strip(),
                _TORCH_MODULES_VARIABLE,
            )
    return found


def strict() -> bool:
    """Whether mistakes during a call are raised instead of counted (`INFERMETER_STRICT=1`, for tests)."""
    return os.environ.get("INFERMETER_STRICT", "") not in ("", "0")


def cost_model(value: object) -> CostModel | None:
    """`value` as a cost model.

    Raises:
        ConfigError: anything but a CostModel or None.
    """
    if value is None or isinstance(value, CostModel):
        return value
    raise ConfigError(f"cost={value!r} is not a CostModel, for example CostModel(usd_per_hour=2.10)")


def _registry(value: object) -> CollectorRegistry:
    if isinstance(value, CollectorRegistry):
        return value
    raise ConfigError(f"registry={value!r} is not a prometheus_client.CollectorRegistry")


def _buckets(value: object) -> dict[str, tuple[float, ...]]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"buckets={value!r} is not a mapping of histogram name to edges")
    histograms = [name for name, family in FAMILIES.items() if family.kind == "histogram"]
    checked = {}
    for name, edges in value.items():
        if name not in histograms:
            raise ConfigError(f"buckets={{{name!r}: ...}} names no histogram{_guess(str(name), histograms)}")
        try:
            numbers = tuple(float(edge) for edge in edges)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"buckets={{{name!r}: {edges!r}}} is not a sequence of numbers") from None
        if numbers and numbers[-1] == math.inf:
            numbers = numbers[:-1]
        rising = all(low < high for low, high in pairwise(numbers))
        if not numbers or not rising or not all(map(math.isfinite, numbers)):
            raise ConfigError(f"buckets={{{name!r}: {edges!r}}} are not finite edges in strictly rising order")
        checked[name] = numbers
    return checked


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"labels={value!r} is not a mapping of label name to value")
    for name, text in value.items():
        if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
            raise ConfigError(
                f"labels={{{name!r}: ...}} is not a label name: letters, digits and underscores, no digit first, "
                "no two underscores first"
            )
        if name in _OWN_LABELS:
            raise ConfigError(f"labels={{{name!r}: ...}} is a label that the library sets itself, expected another")
        if not isinstance(text, str) or not _encodable(text):
            raise ConfigError(f"labels={{{name!r}: {text!r}}} is not a string that UTF-8 can hold")
    return dict(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _max_label_values(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        value = dict.fromkeys(GUARDED, value)
    for name, limit in value.items():
        if name not in GUARDED:
            raise ConfigError(f"max_label_values={{{name!r}: ...}} limits no label{_guess(str(name), GUARDED)}")
        _limit(f"max_label_values={{{name!r}: {limit!r}}}", limit)
    return dict(value)


def _max_series(value: object) -> int:
    return _limit(f"max_series={value!r}", value)


def _histograms(value: object) -> dict[str, str]:
    """Modes by family, `objects_per_frame` left out, as it is always classic."""
    families = [name for name, family in FAMILIES.items() if family.kind == "histogram" and name != _ALWAYS_CLASSIC]
    given = value if isinstance(value, Mapping) else dict.fromkeys(families, value)
    for name, mode in given.items():
        if name not in families:
            if name == _ALWAYS_CLASSIC:
                raise ConfigError(f"histograms={{{name!r}: ...}} is always classic, expected another family")
            raise ConfigError(f"histograms={{{name!r}: ...}} names no histogram{_guess(str(name), families)}")
        if mode not in _MODES:
            what = f"{{{name!r}: {mode!r}}}" if isinstance(value, Mapping) else repr(value)
            raise ConfigError(f'histograms={what} is none of "classic", "native" and "both"')
    return dict(given)


def _max_native_buckets(value: object) -> int:
    return _limit(f"max_native_buckets={value!r}", value)


def _multiprocess_dir(value: object) -> Path:
    """The folder, made if it is not there yet."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ConfigError(f"multiprocess_dir={value!r} is not the path of a folder")
    if sys.platform != "linux":
        raise ConfigError(f"multiprocess_dir={str(value)!r} needs the file locks of Linux, this is {sys.platform}")
    path = Path(os.fspath(value)).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"multiprocess_dir={str(path)!r} cannot be made a folder: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK | os.R_OK):
        raise ConfigError(f"multiprocess_dir={str(path)!r} is a folder that this process may not write to")
    return path


def _gauges(value: object) -> dict[str, str]:
    families = [name for name, family in FAMILIES.items() if family.kind == "gauge" and family.labels]
    given = value if isinstance(value, Mapping) else dict.fromkeys(families, value)
    for name, mode in given.items():
        if name not in families:
            raise ConfigError(f"gauges={{{name!r}: ...}} names no gauge{_guess(str(name), families)}")
        if mode not in GAUGE_MODES:
            what = f"{{{name!r}: {mode!r}}}" if isinstance(value, Mapping) else repr(value)
            raise ConfigError(f"gauges={what} is none of {', '.join(map(repr, GAUGE_MODES))}")
    return dict(given)


def _limit(given: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{given} is not a whole number of 1 or more")
    return value


_READERS: dict[str, tuple[str, Any]] = {
    "service": ("service", service_name),
    "cost": ("cost", cost_model),
    "registry": ("registry", _registry),
    "buckets": ("edges", _buckets),
    "labels": ("labels", _labels),
    "max_label_values": ("max_label_values", _max_label_values),
    "max_series": ("max_series", _max_series),
    "histograms": ("histograms", _histograms),
    "max_native_buckets": ("max_native_buckets", _max_native_buckets),
    "multiprocess_dir": ("multiprocess_dir", _multiprocess_dir),
    "gauges": ("gauges", _gauges),
}
