"""The configuration file of the drift exporter; everything in it has a default, and docs/drift.md shows all of it."""

import math
import re
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Pairs
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from infermeter_exporters.drift.baselines import FROZEN
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.prometheus import Access, Family
from infermeter_exporters.drift.samples import LONGEST
from infermeter_exporters.drift.slots import LEARN, MOST_SERIES
from infermeter_exporters.drift.triggers import Webhook
from infermeter_exporters.drift.watch import PREVIOUS, SEASONAL, Timing
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.yaml_file import Mapping, loaded

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
"""Of sources and references."""
_TYPES = ("prometheus", "push", "files", "sql")
_KEYS = ("store", "interval", "window", "delay", "season", "seasons", "gates", "trigger", "labels", "sources")
_MEBI = 1 << 20


class PrometheusSource(NamedTuple):
    """Histograms of a Prometheus.

    Attributes:
        learn: observations of a window that makes the first version of a named baseline; 0 if none is to.
    """

    name: str
    baselines: Sequence[str]
    access: Access
    families: Sequence[Family]
    learn: int = 0


class PushSource(NamedTuple):
    """Samples that are sent.

    Attributes:
        models: `service/model` of all that may be sent; empty for any.
        learn: values that make the first reference of a feature.
        features: that there may be.
        body: bytes of a message, before and after it is decompressed.
        samples: in a message.
        rate: samples a second, on average; 0 for any number.
        embeddings: whether features may be lists of numbers.
    """

    name: str = "push"
    baselines: Sequence[str] = (FROZEN, PREVIOUS)
    models: Sequence[str] = ()
    learn: int = LEARN
    features: int = MOST_SERIES
    body: int = 16 * _MEBI
    samples: int = 100_000
    rate: float = 0.0
    embeddings: bool = False


class FilesSource(NamedTuple):
    """Tables in files that come.

    Attributes:
        path: with wildcards.
        service: of all rows; empty where a column says it.
        model: the same.
        time: whether rows count when their file was written, or when their column `time` says.
        settle: seconds for which a file must not have changed.
    """

    name: str
    baselines: Sequence[str]
    path: str
    service: str
    model: str
    time: Literal["file", "column"]
    settle: float
    learn: int
    features: int
    embeddings: bool


class SqlSource(NamedTuple):
    """Rows of a database.

    Attributes:
        url: of PostgreSQL.
        url_file: has it instead.
        query: whose rows are samples.
        watermark: a column that grows, a timestamp or a number; what is above the last one that was seen is new.
        service: of all rows; empty where a column says it.
        model: the same.
        lag: seconds for which rows may still be written with a watermark of before.
        every: seconds between two queries.
    """

    name: str
    baselines: Sequence[str]
    url: str
    url_file: str
    query: str
    watermark: str
    service: str
    model: str
    lag: float
    every: float
    learn: int
    features: int
    embeddings: bool


SourceSettings = PrometheusSource | PushSource | FilesSource | SqlSource


class LabelSettings(NamedTuple):
    """How long what is waited for.

    Attributes:
        window: seconds of predictions of which `model_accuracy` is made.
        keep: seconds for which a prediction waits for its label.
        most: predictions that wait.
    """

    window: float = 86_400.0
    keep: float = 7 * 86_400.0
    most: int = 1_000_000


class Trigger(NamedTuple):
    """Who is told when a model drifts, and how often.

    Attributes:
        webhook: None for nobody.
        secret_file: has the secret that messages are signed with.
        cooldown: seconds between two automatic triggers of a model.
    """

    webhook: Webhook | None = None
    secret_file: str = ""
    cooldown: float = 86_400.0


class Config(NamedTuple):
    """What a file says, checked."""

    store: str = ""
    timing: Timing = Timing()
    gates: Gates = Gates()
    trigger: Trigger = Trigger()
    labels: LabelSettings = LabelSettings()
    sources: Sequence[SourceSettings] = (PushSource(),)


def load(path: str) -> Config:
    """Read a file; without a path, what holds without one.

    Raises:
        ConfigError: it cannot be read, or something in it cannot work.
    """
    return parsed(loaded(path), path) if path else Config()


def parsed(content: object, where: str) -> Config:
    """What the content of a file means.

    Raises:
        ConfigError: something in it cannot work.
    """
    found = Mapping(content, where, _KEYS)
    sources = [_source(one, here) for one, here in found.items("sources")] or Config().sources
    names = [one.name for one in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{found.at('sources')} has {name!r} more than once, expected different names")
    if sum(isinstance(one, PushSource) for one in sources) > 1:
        raise ConfigError(f"{found.at('sources')} has the type 'push' more than once, expected one that is sent to")
    timing = _timing(found)
    return Config(found.text("store"), timing, _gates(found), _trigger(found), _labels(found, timing), sources)


def _timing(found: Mapping) -> Timing:
    usual = Timing()
    made = Timing(
        found.seconds("interval", usual.interval),
        found.seconds("window", usual.window),
        found.seconds("delay", usual.delay),
        found.seconds("season", usual.season),
        found.whole("seasons", usual.seasons, 1, 52),
    )
    intervals = made.window / made.interval
    if intervals < 1 or not math.isclose(intervals, round(intervals), rel_tol=1e-9):
        raise ConfigError(f"{found.at('window')} is {made.window:g} s, expected a whole number of intervals")
    if made.season < made.window:
        raise ConfigError(f"{found.at('season')} is {made.season:g} s, expected at least a window")
    return made


def _gates(found: Mapping) -> Gates:
    keys = ("psi", "alpha", "samples", "samples_per_bin", "windows", "agreeing", "hysteresis", "mmd")
    gates = found.mapping("gates", keys)
    usual = Gates()
    windows = gates.whole("windows", usual.windows, 1, 100)
    return Gates(
        gates.number("psi", usual.effect),
        gates.number("alpha", usual.alpha, 0, 1),
        gates.whole("samples", usual.least, 1),
        gates.whole("samples_per_bin", usual.least_per_bin, 0),
        windows,
        gates.whole("agreeing", min(usual.agreeing, windows), 1, windows),
        gates.number("hysteresis", usual.hysteresis, 0, 1),
        gates.number("mmd", usual.mmd),
    )


def _trigger(found: Mapping) -> Trigger:
    trigger = found.mapping("trigger", ("url", "secret_file", "timeout", "cooldown"))
    cooldown = trigger.seconds("cooldown", Trigger().cooldown)
    timeout, secret = trigger.seconds("timeout", Webhook("").timeout), trigger.text("secret_file")
    if trigger.has("url"):
        return Trigger(Webhook(_url(trigger, "url", _HTTP), timeout=timeout), secret, cooldown)
    if secret:
        raise ConfigError(f"{trigger.at('secret_file')} is {secret!r}, expected it together with url")
    return Trigger(None, "", cooldown)


def _labels(found: Mapping, timing: Timing) -> LabelSettings:
    labels = found.mapping("labels", ("window", "keep", "most"))
    usual = LabelSettings()
    made = LabelSettings(
        # Predictions are counted by windows of the exporter: a shorter time would have none of them at times.
        labels.seconds("window", max(usual.window, timing.window)),
        labels.seconds("keep", usual.keep),
        labels.whole("most", usual.most, 1),
    )
    if made.window < timing.window:
        raise ConfigError(f"{labels.at('window')} is {made.window:g} s, expected at least a window")
    return made


def _source(content: object, where: str) -> SourceSettings:
    kind = Mapping(content, where, _ALL_KEYS).choice("type", _TYPES)
    return _PARSERS[kind](Mapping(content, where, ("type", "name", "baselines", *_OWN_KEYS[kind])))


def _prometheus(found: Mapping) -> PrometheusSource:
    families = [_family(one, where) for one, where in found.items("histograms")]
    access = Access(
        _url(found, "url", _HTTP),
        found.seconds("timeout", Access("").timeout),
        found.text("user"),
        found.text("password_file"),
        found.text("bearer_token_file"),
        found.text("ca_file"),
        found.pairs("headers"),
    )
    if bool(access.user) != bool(access.password_file):
        raise ConfigError(f"{found.where} has one of user and password_file, expected both or none")
    name, baselines = _common(found, "prometheus", (SEASONAL,))
    learn = found.whole("learn", 0)
    return PrometheusSource(name, baselines, access, families or [Family("detection_confidence")], learn)


def _family(content: object, where: str) -> Family:
    if isinstance(content, str):
        content = {"metric": content}
    found = Mapping(content, where, ("metric", "kind", "service", "model", "match"))
    metric = found.text("metric", None)
    if not _METRIC.fullmatch(metric) or metric.endswith("_bucket"):
        raise ConfigError(f"{found.at('metric')} is {metric!r}, expected the name of a histogram without _bucket")
    kind: Literal["classic", "native"] = "native" if found.choice("kind", _KINDS, "classic") == "native" else "classic"
    return Family(metric, kind, found.text("service", "service"), found.text("model", "model"), found.text("match"))


def _push(found: Mapping) -> PushSource:
    usual = PushSource()
    models = found.texts("models")
    for one in models:
        service, slash, model = one.partition("/")
        if not (slash and model) or not _owns(service):
            raise ConfigError(f"{found.at('models')} has {one!r}, expected a service, a slash and a model")
    return PushSource(
        *_common(found, "push", usual.baselines),
        models,
        found.whole("learn", usual.learn, 100),
        found.whole("features", usual.features, 1),
        found.whole("body", usual.body, 1),
        found.whole("samples", usual.samples, 1),
        found.number("rate", usual.rate),
        found.truth("embeddings", usual.embeddings),
    )


def _files(found: Mapping) -> FilesSource:
    time: Literal["file", "column"] = (
        "column" if found.choice("time", ("file", "column"), "file") == "column" else "file"
    )
    return FilesSource(
        *_common(found, "files", (FROZEN, PREVIOUS)),
        found.text("path", None),
        _owner(found, "service"),
        _owner(found, "model"),
        time,
        found.seconds("settle", 5.0),
        found.whole("learn", LEARN, 100),
        found.whole("features", MOST_SERIES, 1),
        found.truth("embeddings", False),
    )


def _sql(found: Mapping) -> SqlSource:
    if found.has("url") == found.has("url_file"):
        raise ConfigError(f"{found.where} has url and url_file both or neither, expected one of them")
    url = _url(found, "url", ("postgresql://", "postgres://")) if found.has("url") else ""
    return SqlSource(
        *_common(found, "sql", (FROZEN, PREVIOUS)),
        url,
        found.text("url_file"),
        found.text("query", None),
        found.text("watermark", None),
        _owner(found, "service"),
        _owner(found, "model"),
        found.seconds("lag", 10.0),
        found.seconds("every", 30.0),
        found.whole("learn", LEARN, 100),
        found.whole("features", MOST_SERIES, 1),
        found.truth("embeddings", False),
    )


def _common(found: Mapping, name: str, baselines: Sequence[str]) -> tuple[str, Sequence[str]]:
    name = found.text("name", name)
    if not NAME.fullmatch(name):
        raise ConfigError(f"{found.at('name')} is {name!r}, expected letters, digits, '_', '.' and '-'")
    asked = found.texts("baselines", baselines)
    for one in asked:
        if not NAME.fullmatch(one):
            raise ConfigError(f"{found.at('baselines')} has {one!r}, expected seasonal, previous, or a name")
    if not asked or len(set(asked)) != len(asked):
        raise ConfigError(f"{found.at('baselines')} is {asked!r}, expected some, each once")
    return name, asked


def _owner(found: Mapping, key: str) -> str:
    owner = found.text(key)
    if owner and (len(owner) > LONGEST or (key == "service" and not _owns(owner))):
        raise ConfigError(f"{found.at(key)} is {owner!r}, expected at most {LONGEST} characters, and no _ at first")
    return owner


def _owns(service: str) -> bool:
    """Whether it is the name of a service; those that begin with _ are ours."""
    return service != "" and not service.startswith("_")


def _url(found: Mapping, key: str, begins: tuple[str, ...]) -> str:
    url = found.text(key, None)
    if not url.startswith(begins):
        raise ConfigError(f"{found.at(key)} is {url!r}, expected one that begins with {' or '.join(begins)}")
    try:
        host = begins is not _HTTP or urlsplit(url).hostname
    except ValueError:  # of an address of IPv6 that is none
        host = None
    if not host:
        raise ConfigError(f"{found.at(key)} is {url!r}, expected one with a host")
    return url


_HTTP = ("http://", "https://")
_KINDS = ("classic", "native")
_OWN_KEYS: Pairs[str, Sequence[str]] = {
    "prometheus": (
        "url", "histograms", "timeout", "user", "password_file", "bearer_token_file", "ca_file", "headers", "learn",
    ),
    "push": ("models", "learn", "features", "body", "samples", "rate", "embeddings"),
    "files": ("path", "service", "model", "time", "settle", "learn", "features", "embeddings"),
    "sql": (
        "url", "url_file", "query", "watermark", "service", "model", "lag", "every", "learn", "features", "embeddings",
    ),
}  # fmt: skip
_ALL_KEYS = ("type", "name", "baselines", *dict.fromkeys(key for keys in _OWN_KEYS.values() for key in keys))
_PARSERS: Pairs[str, Callable[[Mapping], SourceSettings]] = {
    "prometheus": _prometheus,
    "push": _push,
    "files": _files,
    "sql": _sql,
}
