"""The kinds of panels, with our defaults: what is said of a kind here holds on every dashboard.

A function returns a builder of grafana-foundation-sdk, so a dashboard chains on what is special about one panel. Every
panel has a title, a description and a unit, since nobody can read a number without them. Limits come from the table of
thresholds that the alerts are made of.
"""

from __future__ import annotations

from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeVar

import yaml
from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeNamePlacement,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TableAutoCellOptions,
    TableCellHeight,
    TableColorTextCellOptions,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
COLOURS = {"info": "blue", "warning": "orange", "critical": "red"}
"""Of a value that is beyond a limit, by the severity of the alert."""


class Query(NamedTuple):
    """What is asked, and what its series are called."""

    expression: str
    legend: str


class Column(NamedTuple):
    """One column of a table, of which every row is one service and model."""

    title: str
    unit: str
    expression: str
    alert: str = ""
    """The alert whose limits colour the values."""


class _Panel(Protocol):
    """What the builders of all kinds have in common; they have no base class that says so."""

    def title(self, title: str, /) -> Self: ...
    def description(self, description: str, /) -> Self: ...
    def unit(self, unit: str, /) -> Self: ...
    def datasource(self, datasource: DataSourceRef, /) -> Self: ...
    def thresholds(self, thresholds: build.ThresholdsConfig, /) -> Self: ...
    def color_scheme(self, color: build.FieldColor, /) -> Self: ...
    def span(self, w: int, /) -> Self: ...
    def height(self, h: int, /) -> Self: ...
    def with_target(self, target: prometheus.Dataquery, /) -> Self: ...


P = TypeVar("P", bound=_Panel)


def time_series(title: str, description: str, unit: str, *queries: Query, alert: str = "") -> timeseries.Panel:
    """Lines over time; with an alert, a dashed line at each of its limits. A name has one colour on all panels."""
    panel = _framed(timeseries.Panel(), title, description, unit, alert)
    for query, ref in zip(queries, ascii_uppercase, strict=False):
        panel.with_target(_asked(query, ref).range())
    if alert:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return (
        panel.span(12)
        .height(9)
        .color_scheme(build.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .draw_style(GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(5)
        .show_points(VisibilityMode.AUTO)  # a value between two gaps is a point: no line would show it
        .span_nulls(False)
        .axis_soft_min(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )


def number(title: str, description: str, unit: str, query: Query, alert: str = "") -> stat.Panel:
    """One number now, or one for each series; with an alert, in the colour that its limits give it."""
    panel = _framed(stat.Panel(), title, description, unit, alert)
    colour = FieldColorModeId.THRESHOLDS if alert else FieldColorModeId.FIXED
    return (
        panel.with_target(_asked(query, "A").instant())
        .span(4)
        .height(5)
        .color_scheme(build.FieldColor().mode(colour).fixed_color("text"))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME if query.legend else BigValueTextMode.VALUE)
        .reduce_options(_last())
    )


def distribution_over_time(title: str, description: str, unit: str, expression: str) -> heatmap.Panel:
    """The buckets of a histogram over time: the colour is how many observations a second fell into one.

    `expression` is the rate of the cumulative buckets by `le`, which Grafana takes apart.
    """
    panel = _framed(heatmap.Panel(), title, description, unit, "")
    return (
        panel.with_target(_asked(Query(expression, "{{le}}"), "A").range().format(PromQueryFormat.HEATMAP))
        .span(12)
        .height(9)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_values(heatmap.CellValues().unit("cps"))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").exponent(0.5).steps(64))
        .filter_values(heatmap.FilterValueRange().le(1e-9))  # an empty cell has no colour
        .tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.SINGLE).y_histogram(True))
        .show_legend()
    )


def distribution(title: str, description: str, unit: str, expression: str) -> bargauge.Panel:
    """The buckets of a histogram now, each a bar under its upper edge.

    `expression` is the increase of the cumulative buckets by `le`, which Grafana takes apart.
    """
    panel = _framed(bargauge.Panel(), title, description, unit, "")
    return (
        panel.with_target(_asked(Query(expression, "{{le}}"), "A").instant().format(PromQueryFormat.HEATMAP))
        .span(12)
        .height(9)
        .min(0)
        .decimals(0)
        .color_scheme(build.FieldColor().mode(FieldColorModeId.FIXED).fixed_color("orange"))
        .orientation(VizOrientation.VERTICAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .name_placement(BarGaugeNamePlacement.AUTO)
        .show_unfilled(False)
        .reduce_options(_last())
    )


def comparison(title: str, description: str, *columns: Column) -> table.Panel:
    """A table of what there is now, one row for each service and model, most of the first column on top."""
    panel = _framed(table.Panel(), title, description, "short", "")
    names = {"service": "Service", "model": "Model"}
    for column, ref in zip(columns, ascii_uppercase, strict=False):
        panel.with_target(_asked(Query(column.expression, ""), ref).instant().format(PromQueryFormat.TABLE))
        panel.override_by_name(column.title, list(_looks(column)))
        names[f"Value #{ref}"] = column.title
    places = {name: place for place, name in enumerate(names)}
    # Without the time, rows of one service and model are one row, whatever the moments at which they were asked.
    steps: dict[str, object] = {
        "filterFieldsByName": {"exclude": {"names": ["Time"]}},
        "merge": {},
        "organize": {"renameByName": names, "indexByName": places},
    }
    for step, options in steps.items():
        panel.with_transformation(DataTransformerConfig(id_val=step, options=options))
    return (
        panel.span(24)
        .height(8)
        .filterable(True)
        .cell_options(TableAutoCellOptions())
        .cell_height(TableCellHeight.SM)
        .show_header(True)
        .sort_by([common.TableSortByFieldState().display_name(columns[0].title).desc(True)])
    )


def limits(alert: str) -> build.ThresholdsConfig:
    """Green, and from each limit of the alert on the colour of its severity; without an alert no colour but one.

    Raises `LookupError` if the table of thresholds does not know the alert.
    """
    rows = yaml.safe_load((ROOT / "rules" / "thresholds.yaml").read_text(encoding="utf-8"))
    found = sorted((row["value"], COLOURS[row["severity"]]) for row in rows if row["name"] == alert)
    if alert and not found:
        message = f"rules/thresholds.yaml has no alert {alert}"
        raise LookupError(message)
    # Grafana would otherwise colour everything above 80 red.
    base = Threshold(value=None, color="green" if alert else "text")
    steps = [base, *(Threshold(value=value, color=colour) for value, colour in found)]
    return build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _framed(panel: P, title: str, description: str, unit: str, alert: str) -> P:
    """What every panel has."""
    if alert:
        description = f"{description} Limits: those of the alert {alert}."
    panel = panel.title(title).description(description).unit(unit)
    return panel.datasource(DATASOURCE).thresholds(limits(alert))


def _asked(query: Query, ref: str) -> prometheus.Dataquery:
    """A query of a panel."""
    target = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(query.expression)
    return target.legend_format(query.legend) if query.legend else target


def _last() -> common.ReduceDataOptions:
    """The newest value; an instant query has no other."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _looks(column: Column) -> Iterable[DynamicConfigValue]:
    """The unit of a column, and its colours."""
    yield DynamicConfigValue("unit", column.unit)
    if column.alert:
        yield DynamicConfigValue("custom.cellOptions", TableColorTextCellOptions())
        yield DynamicConfigValue("color", {"mode": FieldColorModeId.THRESHOLDS})
        yield DynamicConfigValue("thresholds", limits(column.alert).build())
