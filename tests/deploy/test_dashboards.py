"""Every dashboard keeps the rules that make it readable, and shows data of real services on every panel."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from infermeter.catalogue import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Json = dict[str, Any]
    Answer = Callable[..., Any]
    Check = Callable[[Json], Iterator[str]]

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
COLUMNS = 24
WINDOWS = {"__rate_interval": "1m", "__range": "15m"}
PATIENCE = 90
"""Seconds until every panel must have data: rates come with the second scrape, what is rare comes later."""


class Target(NamedTuple):
    """One query of a panel."""

    name: str
    """Of the panel and the query, for messages."""
    panel: str
    """The type of the panel."""
    expression: str
    instant: bool
    format: str

    @property
    def labels(self) -> list[str]:
        """What a series must have, beside a value, to be shown as it is meant to."""
        return {"heatmap": ["le"], "table": ["service", "model"]}.get(self.format, [])


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    """Each dashboard as a file."""
    path: Path = request.param
    return path


@pytest.fixture
def board(file: Path) -> Json:
    """Each dashboard."""
    found: Json = json.loads(file.read_text(encoding="utf-8"))
    return found


def everything(board: Json) -> Iterator[Json]:
    """Rows and panels, those of collapsed rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panels(board: Json) -> list[Json]:
    """The panels that show something."""
    return [panel for panel in everything(board) if panel["type"] != "row"]


def targets(board: Json) -> list[Target]:
    """The queries of all panels."""
    return [
        Target(
            f"{panel['title']}: {target.get('refId')}",
            panel["type"],
            target["expr"],
            target["instant"],
            target.get("format", "time_series"),
        )
        for panel in panels(board)
        for target in panel["targets"]
    ]


def variables(board: Json) -> dict[str, Json]:
    """The variables that limit what is shown, by name."""
    return {variable["name"]: variable for variable in board["templating"]["list"] if variable["type"] == "query"}


def filled(text: str, board: Json) -> str:
    """A query as Grafana sends it when everything is chosen."""
    values = WINDOWS | {name: variable["allValue"] for name, variable in variables(board).items()}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], text)


def under(key: str, node: Any) -> Iterator[Any]:
    """Every value that stands under a key anywhere in a dashboard."""
    if isinstance(node, dict):
        for name, child in node.items():
            if name == key:
                yield child
            yield from under(key, child)
    elif isinstance(node, list):
        for child in node:
            yield from under(key, child)


def place(panel: Json) -> tuple[range, range]:
    """The columns and lines that a panel covers."""
    grid = panel["gridPos"]
    return range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])


def overlap(one: range, other: range) -> bool:
    """Whether two ranges have something in common."""
    return one.start < other.stop and other.start < one.stop


# A check says what is wrong; nothing, if all is well.


def frame(board: Json) -> Iterator[str]:
    """It is found by its tag, leads to its neighbours, and is not edited where edits are lost."""
    if "infermeter" not in board["tags"] or board["editable"] or not board["description"]:
        yield "tag infermeter, read-only and a description are missing"
    wanted = {"type": "dashboards", "tags": ["infermeter"], "includeVars": True, "keepTime": True}
    if not any(wanted.items() <= link.items() for link in board["links"]):
        yield "no link to the other dashboards, for the same choice and time"
    notes = [note["target"]["expr"] for note in board["annotations"]["list"]]
    if not notes or not all(note.startswith('ALERTS{alertstate="firing"') for note in notes):
        yield f"alerts that fire are not what is annotated: {notes}"


def choice(board: Json) -> Iterator[str]:
    """A Prometheus can be chosen, and jobs, instances and more: several, or all."""
    first, *others = board["templating"]["list"]
    if (first["name"], first["type"], first["query"]) != ("datasource", "datasource", "prometheus"):
        yield "the first variable is not the data source"
    if not {"job", "instance"} <= {variable["name"] for variable in others}:
        yield "job or instance cannot be chosen"
    wanted = {"type": "query", "multi": True, "includeAll": True, "allValue": ".+", "refresh": 2}
    for variable in others:
        if not wanted.items() <= variable.items() or variable["label"].lower() != variable["name"]:
            yield f"variable {variable['name']} is not like the others"
        if variable["query"] != variable["definition"] or not variable["query"].startswith("label_values("):
            yield f"variable {variable['name']} does not choose the value of a label"


def datasource(board: Json) -> Iterator[str]:
    """Nothing asks any other Prometheus than the chosen one."""
    asking = [*panels(board), *under("target", board), *variables(board).values()]
    asking += [target for panel in panels(board) for target in panel["targets"]]
    found = [*under("datasource", board)]
    if len(found) < len(asking) or any(one != {"type": "prometheus", "uid": "${datasource}"} for one in found):
        yield f"of {len(asking)} data sources not all are the variable: {found}"


def explained(board: Json) -> Iterator[str]:
    """Every panel says what it shows, and in which unit."""
    for panel in panels(board):
        units = [panel["fieldConfig"]["defaults"].get("unit")]
        if panel["type"] == "heatmap":
            units += [panel["options"]["yAxis"].get("unit"), panel["options"]["cellValues"].get("unit")]
        if not panel["title"] or not panel["description"] or not all(units):
            yield f"{panel['title']}: title, description or unit is missing"
    titles = [panel["title"] for panel in panels(board)]
    if len(titles) != len(set(titles)):
        yield f"panels share a title: {titles}"


def identified(board: Json) -> Iterator[str]:
    """Every panel has an id of its own and asks something, every query has a letter of its own."""
    ids = [panel.get("id") for panel in everything(board)]
    if None in ids or len(ids) != len(set(ids)):
        yield f"ids are missing or used twice: {ids}"
    for panel in panels(board):
        letters = [target.get("refId") for target in panel["targets"]]
        if not letters or None in letters or len(letters) != len(set(letters)):
            yield f"{panel['title']}: letters of queries are missing or used twice: {letters}"


def laid_out(board: Json) -> Iterator[str]:
    """Panels stay inside the grid, and none covers another."""
    for panel in board["panels"]:
        if place(panel)[0].stop > COLUMNS:
            yield f"{panel['title']} is wider than the grid"
    for one, other in combinations(board["panels"], 2):
        if all(overlap(*pair) for pair in zip(place(one), place(other), strict=True)):
            yield f"{one['title']} and {other['title']} overlap"


def limited(board: Json) -> Iterator[str]:
    """Every series in every query is limited to what is chosen."""
    matchers = [f'{name}=~"${name}"' for name in variables(board)]
    for target in targets(board):
        selectors = re.findall(r"\{([^}]*)\}", target.expression)
        if not selectors or any(matcher not in selector for selector in selectors for matcher in matchers):
            yield f"{target.name} is not limited to {matchers}"


def windows(board: Json) -> Iterator[str]:
    """A line is as fine as the zoom allows; only what is asked of one moment has a window of its own."""
    for target in targets(board):
        found = set(re.findall(r"\[([^]]*)\]", target.expression))
        if not target.instant and found - {"$__rate_interval"}:
            yield f"{target.name} has a fixed window: {found}"


def counted(board: Json) -> Iterator[str]:
    """No counter is shown as it is: only how it grows, or the mean of all that a histogram ever observed."""
    parts = {"counter": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
    known = {name + part for name, family in FAMILIES.items() for part in parts.get(family.kind, ())}
    for target in targets(board):
        rest = re.sub(r"\b(rate|increase)\(\w+\{[^}]*\}\[[^]]*\]\)", "", target.expression)
        raw = set(re.findall(r"\b(\w+)\{", rest)) & known
        mean = {name.removesuffix("_sum") + part for name in raw for part in ("_sum", "_count") if "_sum" in name}
        if raw != mean:
            yield f"{target.name} shows counters: {raw}"


def tables(board: Json) -> Iterator[str]:
    """A table is about one moment, one line for each thing, and every column has a title and a unit."""
    for panel in panels(board):
        if panel["type"] != "table":
            continue
        if any(target["format"] != "table" or target["instant"] is not True for target in panel["targets"]):
            yield f"{panel['title']} is no table of one moment"
        steps = {step["id"]: step["options"] for step in panel["transformations"]}
        columns = [steps["organize"]["renameByName"][f"Value #{target['refId']}"] for target in panel["targets"]]
        united = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            for setting in override["properties"]
            if setting["id"] == "unit"
        }
        if "merge" not in steps or not all(columns) or set(columns) != united:
            yield f"{panel['title']}: columns {columns}, with a unit {united}"


def distributions(board: Json) -> Iterator[str]:
    """Buckets are asked for where they are shown and nowhere else, and Grafana is told to take them apart."""
    for target in targets(board):
        facts = target.panel in {"heatmap", "bargauge"}, "by (le)" in target.expression, target.format == "heatmap"
        if len(set(facts)) > 1:
            yield f"{target.name} is a {target.panel} of format {target.format}"


def judged(board: Json) -> Iterator[str]:
    """Every limit is one of an alert."""
    table = yaml.safe_load((ROOT / "rules" / "thresholds.yaml").read_text(encoding="utf-8"))
    found = {step["value"] for steps in under("steps", board) if isinstance(steps, list) for step in steps}
    if unknown := found - {None} - {row["value"] for row in table}:
        yield f"limits that no alert has: {unknown}"


CHECKS = (
    frame, choice, datasource, explained, identified, laid_out, limited, windows, counted, tables, distributions,
    judged,
)  # fmt: skip

SPOILT = (
    (frame, '"keepTime": true', '"keepTime": false'),
    (frame, r"ALERTS{alertstate=\"firing\"", r"ALERTS{alertstate=\"pending\""),
    (choice, '"refresh": 2', '"refresh": 1'),
    (choice, '"query": "prometheus"', '"query": "loki"'),
    (datasource, '"uid": "${datasource}"', '"uid": "prometheus"'),
    (explained, '"unit": "reqps"', '"unit": ""'),
    (explained, '"title": "In flight"', '"title": "Inferences per second"'),
    (identified, '"id": 102', '"id": 101'),
    (identified, '"refId": "C"', '"refId": "A"'),
    (laid_out, '"x": 8', '"x": 7'),
    (laid_out, '"w": 24', '"w": 25'),
    (limited, r"{job=~\"$job\", ", "{"),
    (windows, "[$__rate_interval]", "[5m]"),
    (counted, "sum(rate(", "sum(ceil("),
    (tables, '"format": "table"', '"format": "time_series"'),
    (tables, '"id": "unit"', '"id": "decimals"'),
    (distributions, '"format": "heatmap"', '"format": "time_series"'),
    (judged, '"value": 10', '"value": 11'),
)
"""What is exchanged in ai-performance.json, once, and the check that must see it."""


@pytest.mark.parametrize("check", CHECKS)
def test_a_dashboard_keeps_the_rules(board: Json, check: Check) -> None:
    """No check finds anything."""
    assert list(check(board)) == []


@pytest.mark.parametrize(("check", "old", "new"), SPOILT)
def test_a_spoilt_dashboard_is_caught(check: Check, old: str, new: str) -> None:
    """Every check finds the one thing that was made wrong."""
    text = (ROOT / "deploy" / "grafana" / "ai-performance.json").read_text(encoding="utf-8")
    assert old in text
    assert list(check(json.loads(text.replace(old, new, 1)))) != []


def test_every_check_is_proven() -> None:
    """There is a spoilt dashboard for each."""
    assert {check for check, _, _ in SPOILT} == set(CHECKS)


def test_a_dashboard_is_known_by_the_name_of_its_file(file: Path, board: Json) -> None:
    """The uid, which links and bookmarks hold, is that of the file and never changes."""
    assert board["uid"] == f"infermeter-{file.stem}"


def test_dashboards_ask_for_nothing_that_does_not_exist(
    board: Json, metrics: Callable[[str], set[str]], exposed: set[str]
) -> None:
    """Every metric is in the catalogue or recorded by the rules, and none stands without matchers."""
    rules = yaml.safe_load((ROOT / "rules" / "inference.rules.yml").read_text(encoding="utf-8"))
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    expressions = [target.expression for target in targets(board)]
    expressions += [re.sub(r"label_values\((.*), \w+\)", r"\1", one["query"]) for one in variables(board).values()]
    assert {name for expression in expressions for name in metrics(expression)} - exposed - recorded == set()
    bare = [re.sub(r"\w+\{[^}]*\}", "", target.expression) for target in targets(board)]
    assert {name for expression in bare for name in metrics(expression)} == set()


@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")  # which Grafana 12 alone reads
def test_the_sdk_reads_what_it_has_written(board: Json) -> None:
    """Decoded and encoded again it is the same: no key that Grafana would not know."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


def test_prometheus_reads_every_query(promtool: str, board: Json, tmp_path: Path) -> None:
    """`promtool check rules` takes each as a recording rule, those of annotations too."""
    asked = [target.expression for target in targets(board)]
    asked += [note["target"]["expr"] for note in board["annotations"]["list"]]
    rules = [{"record": f"query_{number}", "expr": filled(query, board)} for number, query in enumerate(asked)]
    rules_file = tmp_path / "queries.yml"
    rules_file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    found = subprocess.run(
        [promtool, "check", "rules", rules_file], capture_output=True, text=True, check=False, timeout=60
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert f"SUCCESS: {len(rules)} rules found" in found.stdout


def test_every_panel_shows_data(board: Json, answer: Answer) -> None:
    """Each query of each panel has numbers from services that really run, in the shape that its panel needs."""
    deadline = time.monotonic() + PATIENCE
    while empty := [target.name for target in targets(board) if not shows(target, board, answer)]:
        if time.monotonic() > deadline:
            pytest.fail("no data:\n" + "\n".join(empty))
        time.sleep(1)


def test_every_variable_offers_what_runs(board: Json, answer: Answer) -> None:
    """The services of the demo, what scrapes them, and nothing else."""
    from demo.services import SERVICES

    offered = {}
    for name, variable in variables(board).items():
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        assert match is not None
        offered[name] = answer(f"label/{match[2]}/values", **{"match[]": filled(match[1], board)})
    assert offered["job"] == ["infermeter-demo"]
    assert offered["service"] == sorted(service.name for service in SERVICES)
    assert len(offered["instance"]) == len(SERVICES)
    assert all(offered.values())


def shows(target: Target, board: Json, answer: Answer) -> bool:
    """Whether Prometheus has numbers for a query, in the shape that its panel needs."""
    query = filled(target.expression, board)
    if target.instant:
        data = answer("query", query=query)
        assert data["resultType"] == "vector", target.name
    else:
        now = time.time()
        data = answer("query_range", query=query, start=str(now - 60), end=str(now), step="2")
        assert data["resultType"] == "matrix", target.name
    series = [
        one["metric"]
        for one in data["result"]
        if any(not math.isnan(float(value)) for _, value in one.get("values", [one.get("value")]))
    ]
    return bool(series) and all(name in labels for labels in series for name in target.labels)
