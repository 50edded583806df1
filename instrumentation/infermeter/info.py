"""`model_info`: what a model runs on."""

from typing import TYPE_CHECKING

from infermeter.meter import Meter

if TYPE_CHECKING:
    from infermeter.ledger import Ledger
    from infermeter.series import Series


class Info(Meter):
    """Device, provider and format of one model; what was told last counts."""

    __slots__ = ("runs_on",)

    def __init__(self, recorder: "Ledger", model: str, version: str, runs_on: tuple[str, str, str]) -> None:
        super().__init__(recorder, model, version)
        self.runs_on = runs_on

    def announce(self, series: "Series") -> None:
        """Show it in `series`, instead of what was told before."""
        series.totals.tell(self.runs_on)
