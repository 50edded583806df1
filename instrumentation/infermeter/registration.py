"""Being found in prometheus_client registries."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prometheus_client import REGISTRY, CollectorRegistry, Metric

from infermeter.errors import ConfigError
from infermeter.exposition import describe

_HIDDEN: ContextVar[bool] = ContextVar("infermeter_hidden", default=False)


@contextmanager
def hidden() -> Iterator[None]:
    """Show nothing of ours in any registry meanwhile, in this thread or task."""
    token = _HIDDEN.set(True)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


class Registration:
    """The registries in which one recorder is found: one that belongs to it, and any that were added.

    Args:
        collect: gives every family with its samples.
    """

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collector = _Collector(collect)
        self._registry: CollectorRegistry | None = None
        self._registries: dict[CollectorRegistry, object] = {}

    def attach(self, registry: CollectorRegistry | None) -> CollectorRegistry:
        """Be found in `registry`, by default where we are or in `prometheus_client.REGISTRY`, and gives it.

        Raises:
            ConfigError: it already has a family of ours; then we stay where we are.
        """
        before = self._registry
        registry = registry or before or REGISTRY
        if registry is not before:
            self.add(registry)
            self._registry = registry
            if before is not None:
                before.unregister(self._collector)
                del self._registries[before]
        return registry

    def add(self, registry: CollectorRegistry) -> None:
        """Be found in `registry` too.

        Raises:
            ConfigError: it already has a family of ours.
        """
        # Threads may meet at the first use: one registers, without a lock that a signal handler could wait for.
        if self._registries.setdefault(registry, mine := object()) is not mine:
            return
        try:
            registry.register(self._collector)
        except ValueError as error:
            del self._registries[registry]
            raise ConfigError(
                f"the registry already holds a metric of a name that infermeter uses ({error}); expected one without: "
                "infermeter.configure(registry=CollectorRegistry()), or rename the other metric"
            ) from None


class _Collector:
    """A recorder as prometheus_client sees it."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """Every family with its samples."""
        return () if _HIDDEN.get() else self._collect()

    def describe(self) -> Iterable[Metric]:
        """Families without samples: a registry that finds no such method collects them when we register."""
        return describe()
