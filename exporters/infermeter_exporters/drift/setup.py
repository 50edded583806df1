"""All that a configuration makes, wired: the store, sources, those that watch them, and who is told of drift."""

import math
from pathlib import Path

from infermeter_exporters.drift import config, labels, triggers
from infermeter_exporters.drift.baselines import FROZEN
from infermeter_exporters.drift.config import Config, FilesSource, PrometheusSource, PushSource
from infermeter_exporters.drift.files import Files
from infermeter_exporters.drift.intake import Intake, Kept
from infermeter_exporters.drift.prometheus import Prometheus
from infermeter_exporters.drift.push import Limits, Push
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.source import Source
from infermeter_exporters.drift.sql import Sql
from infermeter_exporters.drift.store import Store, opened
from infermeter_exporters.drift.triggers import Sender
from infermeter_exporters.drift.verdicts import Policy
from infermeter_exporters.drift.watch import BUILT_IN, Watch
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.families import Samples

_OUTCOMES_KEPT = 28 * 86_400.0
_OUTCOMES = ("accepted", "repeated", "malformed", "invalid", "dtype", "too_large", "too_many_series", "late", "clock",
             "unknown_model", "busy", "rate", "store", "unreachable", "changed")  # fmt: skip
_OF_LABELS = ("joined", "unknown", "duplicate", "malformed", "invalid", "dtype", "too_large", "clock", "busy", "store")


class Setup:
    """All that a configuration makes, until another one takes its place.

    Args:
        config: what it says.

    Raises:
        ConfigError: the store, or the secret of the webhook, cannot work.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store: Store = opened(config.store)
        webhook = config.trigger.webhook
        if webhook is not None and config.trigger.secret_file:
            webhook = webhook._replace(secret=_secret(config.trigger.secret_file))
        self.sender = Sender(self.store, webhook) if webhook is not None else None
        self.policy = Policy(config.gates, config.trigger.cooldown, webhook is not None)
        self.intakes: dict[str, Intake] = {}
        self.slots: dict[str, tuple[Slots, float]] = {}
        self.push: Push | None = None
        self.sources = [self._source(one) for one in config.sources]
        self.watches = [Watch(one, self.store, config.timing, self.policy) for one in self.sources]

    def start(self) -> None:
        """Begin."""
        for intake in self.intakes.values():
            intake.start()
        for watch in self.watches:
            watch.start()
        if self.sender is not None:
            self.sender.start()

    def stop(self) -> None:
        """End; what waits to be kept is kept."""
        for watch in self.watches:
            watch.stop()
        for intake in self.intakes.values():
            intake.stop()
        if self.sender is not None:
            self.sender.stop()
        self.store.close()

    def counts(self) -> Samples:
        """What became of all that was sent, as metrics."""
        found: Samples = {"drift_received_samples_total": {}, "drift_labels_total": {}}
        for name, intake in self.intakes.items():
            for outcome in _OUTCOMES:
                found["drift_received_samples_total"][name, outcome] = float(intake.counts[f"samples {outcome}"])
            for outcome in _OF_LABELS:
                before = found["drift_labels_total"].get((outcome,), 0.0)
                found["drift_labels_total"][outcome,] = before + intake.counts[f"labels {outcome}"]
        return found

    def look_up(self, now: float) -> Samples:
        """What only the store knows, as metrics; and what nobody needs any more is forgotten.

        Raises:
            StoreError: the store does not answer.
        """
        settings, window = self.config.labels, self.config.timing.window
        with self.store.transaction() as transaction:
            for slots, keep in self.slots.values():
                slots.prune(transaction, now - keep)
            for intake in self.intakes.values():
                intake.prune(transaction)
            labels.prune(transaction, now - settings.keep, settings.most)
            labels.prune_outcomes(transaction, now - max(_OUTCOMES_KEPT, settings.window))
            # Outcomes are counted by window, so that the one that goes on is part of each.
            begun = math.floor(now / window) * window
            lately = labels.accuracies(transaction, now - settings.window, now)
            current = labels.accuracies(transaction, begun - window, now)
            fired, states = triggers.counted(transaction), triggers.by_state(transaction)
        found: Samples = {
            "finetuning_triggers_total": fired,
            "drift_triggers": {(state,): number for state, number in states.items()},
        }
        for (service, model), one in lately.items():
            values = {
                "model_accuracy": one.ratio,
                "model_accuracy_lower": one.lower,
                "model_accuracy_upper": one.upper,
                "model_accuracy_labels": one.labels,
                "model_label_coverage_ratio": one.coverage,
                "model_label_lag_seconds": one.lag,
            }
            for name, value in values.items():
                if not math.isnan(value):
                    found.setdefault(name, {})[service, model] = value
        for (service, model), one in current.items():
            for method, value in (("labels", one.ratio), ("estimate", one.estimated)):
                if not math.isnan(value):
                    found.setdefault("drift_current_accuracy", {})[service, model, method] = value
        return found

    def _source(self, settings: config.SourceSettings) -> Source:
        if isinstance(settings, PrometheusSource):
            return Prometheus(settings.name, settings.access, settings.families, settings.baselines, settings.learn)
        timing = self.config.timing
        keep = timing.longest(settings.baselines) + timing.window
        named = next((one for one in settings.baselines if one not in BUILT_IN), FROZEN)
        slots = Slots(
            settings.name, Rules(timing.interval, named, settings.learn, settings.features, settings.embeddings)
        )
        intake = Intake(self.store, slots, timing.window)
        self.intakes[settings.name] = intake
        self.slots[settings.name] = slots, keep
        if isinstance(settings, PushSource):
            self.push = Push(intake, Limits(settings, keep), self.store, told=self.policy.told)
            return Kept(self.store, slots, settings.baselines)
        feeder = (
            Files(settings, intake, self.store, keep)
            if isinstance(settings, FilesSource)
            else Sql(settings, intake, self.store, keep)
        )
        return Kept(self.store, slots, settings.baselines, feeder)


def _secret(path: str) -> bytes:
    try:
        found = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"trigger.secret_file {path} cannot be read: {error.strerror}") from error
    if not found:
        raise ConfigError(f"trigger.secret_file {path} is empty, expected a secret")
    return found
