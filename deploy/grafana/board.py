"""What every dashboard has around its panels: variables, annotations, links, and the grid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import COLOURS, DATASOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Panel, VariableModel

    from deploy.grafana.selection import Selection

TAG = "infermeter"
"""On all our dashboards, which link to each other by it."""
EVERYTHING = ".+"
"""What the choice of all values means to Prometheus; a list of all of them may be too long for it."""


class Row(NamedTuple):
    """Panels under one heading, which fill lines of 24 columns."""

    title: str
    panels: Sequence[Builder[Panel]]


def board(
    uid: str, title: str, description: str, tags: Sequence[str], selection: Selection, rows: Sequence[Row]
) -> str:
    """A dashboard as Grafana reads it.

    The id of a panel, which links and alerts name, is a hundred for its row and its place in it: a panel that is added
    at the end of a row changes no other's.
    """
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG, *tags])
        .readonly()  # what is changed in the browser is lost at the next update
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables(_variables(selection))
        .annotations([_annotation(selection, severity) for severity in ("critical", "warning")])
        .link(_link())
    )
    for number, row in enumerate(rows, start=1):
        made.with_row(build.Row(row.title).id(100 * number))
        for place, panel in enumerate(row.panels, start=1):
            panel.build().id_val = 100 * number + place
            made.with_panel(panel)
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables(selection: Selection) -> list[Builder[VariableModel]]:
    """The Prometheus to ask, and what to choose of it."""
    prometheus = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    found: list[Builder[VariableModel]] = [prometheus]
    for label in selection.labels:
        query = selection.query(label)
        found.append(
            build.QueryVariable(label)
            .label(label.capitalize())
            .datasource(DATASOURCE)
            .query(query)
            .definition(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(EVERYTHING)
            .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
    return found


def _annotation(selection: Selection, severity: str) -> build.AnnotationQuery:
    """A region on every panel while an alert of that severity fires."""
    target = prometheus.Dataquery().ref_id("Alerts").datasource(DATASOURCE).expr(selection.alerts(severity))
    return (
        build.AnnotationQuery()
        .name(f"Alerts: {severity}")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(COLOURS[severity])
        .target(target.range())
        .title_format("{{alertname}}")
        .text_format("{{service}} {{model}}")
        .tag_keys("severity")
    )


def _link() -> build.DashboardLink:
    """A menu of our other dashboards, which open with the same choice and time."""
    return (
        build.DashboardLink(TAG)
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
        .target_blank(False)
        .icon("external link")
        .tooltip("Other dashboards, for the same choice and time")
        .url("")
    )
