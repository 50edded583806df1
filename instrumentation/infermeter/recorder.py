"""The recorder: the verbs that users call, and what each of them makes."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar, Unpack

from prometheus_client import CollectorRegistry

from infermeter.cache import Cache
from infermeter.call import Call, current
from infermeter.config import Options, Settings, TrackOptions
from infermeter.errors import ConfigError
from infermeter.guard import encodable
from infermeter.info import Info
from infermeter.ledger import Ledger
from infermeter.load import Load
from infermeter.marks import Marks
from infermeter.meter import Meter, named
from infermeter.queue import Queue
from infermeter.registration import Registration
from infermeter.track import Track

if TYPE_CHECKING:
    from infermeter.asgi import App, AsgiMiddleware
    from infermeter.instruments import Instruments
    from infermeter.page import Asgi, Page, Wsgi
    from infermeter.server import Server
    from infermeter.wsgi import App as WsgiApp
    from infermeter.wsgi import WsgiMiddleware

T = TypeVar("T")

_MOST_TRACKS = 1024
_MOST_CACHES = 1024


class Recorder(Ledger):
    """Everything that one process records, and the verbs that users call.

    The module-level verbs of `infermeter` are those of one default recorder; a test or a library that wants
    metrics of its own makes another, with a registry of its own.

    Args:
        options: as for `configure`.

    Raises:
        ConfigError: an option that cannot work.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(Settings().replaced(options))
        self._tracks: dict[str, dict[str, Track]] = {}  # by version, then model: no tuple to make and hash
        self._known_caches: dict[str, Cache] = {}
        self._registration = Registration(self.collect)
        self.marks = Marks()
        self._instruments: Instruments | None = None

    def configure(self, **options: Unpack[Options]) -> None:
        """Set options, before the first inference is recorded; later calls add to earlier ones.

        Args:
            options:
                service: the fleet-unique name of the service (default: the environment variables
                    INFERMETER_SERVICE, then OTEL_SERVICE_NAME, then `unknown_service` with a warning).
                cost: a CostModel; without one `inference_cost` is absent.
                registry: the prometheus_client registry to be found in (default: REGISTRY).
                buckets: histogram name to edges, strictly rising.
                labels: constant labels for every series of the service (not for `infermeter_*`).
                max_label_values: distinct values per guarded label (see `guard.GUARDED`; default
                    100): one number or a mapping.
                max_series: series per family (default 1,000).
                histograms: "classic" (default), "native" or "both", for all or by family; to scrapers that ask for
                    protobuf (default: the environment variable INFERMETER_HISTOGRAMS).
                max_native_buckets: populated buckets of a native histogram before its resolution is halved
                    (default 160).
                multiprocess_dir: a folder that the processes of a service share, so that each shows what all counted;
                    made if it is not there (default: the environment variable INFERMETER_MULTIPROC_DIR, then the
                    folder `infermeter` in PROMETHEUS_MULTIPROC_DIR, else this process counts alone).
                gauges: "livesum" (default), "livemax", "livemin" or "mostrecent", for all or by family: how the
                    gauges of several processes become one.

        Raises:
            ConfigError: an unknown option, a value that cannot work, a registry that already has a family of ours,
                or a call after the first inference.
        """
        if self.began:
            names = ", ".join(options)
            raise ConfigError(f"configure({names}) came after the first inference was recorded, expected before it")
        settings = self.settings.replaced(options)
        self._registration.attach(settings.registry)
        self.reset(settings)

    def track(self, model: str, version: str = "", **options: Unpack[TrackOptions]) -> Track:
        """Watch inferences of `model`: a decorator, and a context manager that gives the open `Call`.

        Args:
            model: name of the model, the label `model`.
            version: its version, the label `version`.
            options:
                detections: how to read a result: a callable that returns confidences, a `Detections` or a list of
                    `Detections` (one a frame), or "auto" for the results of well-known libraries (see
                    `results.auto`). For a generator it is applied to each item.
                names: class index to class name, a mapping or a list.
                cost: prices of this model, everywhere it is tracked, instead of those of `configure`.
                stream: what one inference of a generator is: the whole "call" (default), or each "item".

        Raises:
            ConfigError: an option that cannot work, or a registry that already has a family of ours.
        """
        if not options:
            try:
                return self._tracks[version][model]
            except (KeyError, TypeError):
                pass
        self._registry()
        track = Track.checked(self, model, version, **options)
        if track.cost is not None:
            self.prices.set(model, version, track.cost)
        if not options and sum(map(len, list(self._tracks.values()))) < _MOST_TRACKS:
            track = self._tracks.setdefault(version, {}).setdefault(model, track)
        return track

    def load(self, model: str, version: str = "") -> Load:
        """Time the loading of `model`: a decorator, and a context manager; a load that raises is not recorded.

        Raises:
            ConfigError: a name that cannot be one, or a registry that already has a family of ours.
        """
        named("load", model, version)
        self._registry()
        return Load(self, model, version)

    def queue(self, model: str, version: str = "") -> Queue:
        """Watch what waits for `model`: `put` and `get`, or a `with` block around waiting; see `Queue`.

        Every queue of a model and version is the same one, and its length is exposed from now on.

        Raises:
            ConfigError: a name that cannot be one, or a registry that already has a family of ours.
        """
        named("queue", model, version)
        self._registry()
        return self.meter(Queue, model, version)

    def cache(self, name: str) -> Cache:
        """Count the hits and misses of a cache, which are exposed at 0 from now on.

        Raises:
            ConfigError: a name that cannot be one, or a registry that already has a family of ours.
        """
        given: object = name
        if not isinstance(given, str) or not given:
            raise ConfigError(f"cache({name!r}) is not a non-empty string")
        cache = self._known_caches.get(name)
        if cache is None:
            self._registry()
            cache = Cache(self, name)
            if len(self._known_caches) < _MOST_CACHES:
                self._known_caches[name] = cache
            cache.hit(0)
            cache.miss(0)
        return cache

    def model_info(
        self,
        model: str,
        version: str = "",
        *,
        device: str = "",
        provider: str = "",
        format: str = "",  # noqa: A002  (the label's name)
    ) -> None:
        """Tell what `model` runs on, in `model_info`; what is told last counts.

        Args:
            model: name of the model.
            version: its version.
            device: where it runs, for example "cuda:0" or "cpu".
            provider: what runs it, for example "CUDAExecutionProvider".
            format: how it is stored, for example "onnx".

        Raises:
            ConfigError: what is no text, or a registry that already has a family of ours.
        """
        named("model_info", model, version)
        for name, text in (("device", device), ("provider", provider), ("format", format)):
            if not isinstance(text, str):
                raise ConfigError(f"model_info({name}={text!r}) is not a string")
        self._registry()
        runs_on = (encodable(device), encodable(provider), encodable(format))
        self.declare(Info(self, model, version, runs_on))

    def model_memory(self, model: str, size: float, version: str = "", *, device: str = "") -> None:
        """Report the memory that `model` holds on a device now, in bytes; the last report of a device counts.

        Raises:
            ConfigError: a name that cannot be one, or a registry that already has a family of ours.
        """
        self._gauge("model_memory", "model_memory_usage_bytes", model, version, size, device)

    def model_accuracy(self, model: str, score: float, version: str = "") -> None:
        """Report how good `model` is, 0 to 1, by whatever measure it is judged; the last report counts.

        A score above 1 is refused and counted: it is a percentage, or no score.

        Raises:
            ConfigError: a name that cannot be one, or a registry that already has a family of ours.
        """
        self._gauge("model_accuracy", "model_accuracy_score", model, version, score)

    def instrument(self, *names: str, exclude: Iterable[str] = ()) -> None:
        """Watch libraries, without a change to the code that uses them: those that are imported, now or later.

        Their calls are inferences; inside an inference that is open already they are stages of it
        (`inference_stage_duration_seconds{stage}`, named for the library). What is watched already goes on.

        Args:
            names: of integrations, for example "onnxruntime"; by default every one that is installed.
            exclude: names of those that are left out.

        Raises:
            ConfigError: a name of no integration, one whose library is not installed, or a release of it that the
                integration does not know. Without names such libraries are left out, and named in the log.
        """
        self._instrumented().instrument(names, exclude)

    def uninstrument(self, *names: str) -> None:
        """Give back what `instrument` replaced, by default all of it; calls that run now are still recorded.

        Raises:
            ConfigError: a name of no integration.
        """
        self._instrumented().uninstrument(names)

    def watch(self, subject: T, model: str = "", version: str = "", **options: Unpack[TrackOptions]) -> T:
        """Watch one object of a library, under a name of its own: a `torch.nn.Module`, an `InferenceSession`.

        Args:
            subject: watched as long as it lives; it is neither kept alive nor replaced.
            model: name of the model, by default that of its class.
            version: its version.
            options: as for `track`.

        Returns:
            `subject`.

        Raises:
            ConfigError: an option that cannot work, or an object that no integration knows.
        """
        track = Track.checked(self, model or type(subject).__name__, version, **options)
        self._registry()
        if track.cost is not None:
            self.prices.set(track.model, track.version, track.cost)
        self._instrumented().watch(subject, track)
        return subject

    def current(self) -> Call:
        """As `infermeter.current`."""
        return current()

    def serve(self, port: int, addr: str = "0.0.0.0") -> "Server":  # noqa: S104  (scrapers come from other hosts)
        """Serve `/metrics` from a background thread.

        Args:
            port: 0 to 65535; 0 takes a free one (`Server.port` tells which).
            addr: address to listen on, by default every one of this host.

        Raises:
            ConfigError: a port that is none or in use, or an address of another host.
        """
        from infermeter.server import serve  # noqa: PLC0415  (an HTTP server is not part of recording)

        return serve(self._page(), port, addr)

    def asgi_app(self) -> "Asgi":
        """`/metrics` as an ASGI application, to mount in a service of your own."""
        return self._page().asgi_app()

    def wsgi_app(self) -> "Wsgi":
        """`/metrics` as a WSGI application, to mount in a service of your own."""
        return self._page().wsgi_app()

    def asgi_middleware(self, app: "App", *, exclude: Iterable[str] = ()) -> "AsgiMiddleware":
        """Record the HTTP requests and WebSocket connections of an ASGI application: FastAPI, Starlette, any other.

        `app = infermeter.asgi_middleware(app)`, or `app.add_middleware(infermeter.asgi_middleware)`. A request is
        counted once, however many applications around and inside are watched.

        Args:
            app: the application.
            exclude: endpoints that are left out, as the label `endpoint` would name them, for example "/healthz".

        Raises:
            ConfigError: `exclude` is no list of endpoints, or a registry that already has a family of ours.
        """
        from infermeter.asgi import AsgiMiddleware  # noqa: PLC0415  (most services are watched without)

        middleware = AsgiMiddleware(self, app, exclude)
        self._registry()
        return middleware

    def wsgi_middleware(self, app: "WsgiApp", *, exclude: Iterable[str] = ()) -> "WsgiMiddleware":
        """Record the HTTP requests of a WSGI application: `app.wsgi_app = infermeter.wsgi_middleware(app.wsgi_app)`.

        Args and errors are those of `asgi_middleware`.
        """
        from infermeter.wsgi import WsgiMiddleware  # noqa: PLC0415  (as above)

        middleware = WsgiMiddleware(self, app, exclude)
        self._registry()
        return middleware

    def write_textfile(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, for the textfile collector of node_exporter; readers see all of it or the old one.

        Args:
            path: ends in `.prom` by the convention of node_exporter.

        Raises:
            OSError: the file cannot be written; the old one stays.
        """
        from infermeter.textfile import write  # noqa: PLC0415  (not part of recording)

        write(self._page(), os.fspath(path))

    def push(self, gateway: str, job: str, grouping_key: Mapping[str, str] | None = None) -> None:
        """Push everything in the registry to a Pushgateway, for jobs that end before anybody scrapes them.

        Args:
            gateway: its address, for example "pushgateway:9091".
            job: the label `job` there.
            grouping_key: further labels of the group that is replaced.

        Raises:
            OSError: the gateway does not answer, or refuses.
        """
        from prometheus_client import push_to_gateway  # noqa: PLC0415  (not part of recording)

        push_to_gateway(gateway, job, self._registry(), dict(grouping_key or {}))

    def register(self, registry: CollectorRegistry) -> None:
        """Be found in another registry too, for pages that are made from a registry of their own.

        Raises:
            ConfigError: the registry already has a family of ours.
        """
        if registry is not self._registry():
            self._registration.add(registry)

    def _gauge(self, verb: str, family: str, model: str, version: str, value: float, own: str = "") -> None:
        named(verb, model, version)
        given: object = own
        if not isinstance(given, str):
            raise ConfigError(f"{verb}(device={own!r}) is not a string")
        valid = self.valid(value)
        if valid is None:
            return
        if family.endswith("_score") and valid > 1:
            self.drop("above_one", ValueError(f"{verb}(model={model!r}) got {value!r}"))
            return
        self._registry()
        self.note(self.meter(Meter, model, version), family, own, valid)

    def _page(self) -> "Page":
        from infermeter.page import Page  # noqa: PLC0415  (not part of recording)

        return Page(self, self._registry())

    def _instrumented(self) -> "Instruments":
        from infermeter.instruments import Instruments  # noqa: PLC0415  (not part of recording)

        if self._instruments is None:
            self._instruments = Instruments(self)
        return self._instruments

    def _registry(self) -> CollectorRegistry:
        """The registry that we are found in, from the first use on."""
        return self._registration.attach(self.settings.registry)
