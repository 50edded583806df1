"""A meter: what watches one thing about one model, and the series that it records in."""

from typing import TYPE_CHECKING

from infermeter.errors import ConfigError

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.series import Series


class Meter:
    """One verb of one model.

    Attributes:
        series: where it records; bound at the first record, so that `configure` may come after it was made.
        shown: the series in which what it is known to report is visible already.
    """

    __slots__ = ("__weakref__", "model", "recorder", "series", "shown", "version")

    def __init__(self, recorder: "Ledger", model: str, version: str) -> None:
        self.recorder = recorder
        self.model = model
        self.version = version
        self.series: Series | None = None
        self.shown: Series | None = None

    def bind(self) -> "Series":
        """The series to record in, found at the first record."""
        series = self.series = self.recorder.bind(self)
        return series

    def announce(self, series: "Series") -> None:
        """Make visible in `series`, before it happens, what this is known to report."""


def named(verb: str, model: object, version: object) -> tuple[str, str]:
    """The name and version of a model, if that is what they are.

    Raises:
        ConfigError: a model that is no text or empty, a version that is no text.
    """
    if not isinstance(model, str) or not model:
        raise ConfigError(f"{verb}(model={model!r}) is not a non-empty string")
    if not isinstance(version, str):
        raise ConfigError(f"{verb}(version={version!r}) is not a string")
    return model, version
