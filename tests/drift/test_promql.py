"""Rules for Prometheus say of buckets what the statistics say of counts; evaluated by the real promtool."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from infermeter_exporters.drift.chi_square import psi_test
from infermeter_exporters.drift.promql import MEANINGS, Histogram, checked, rules
from infermeter_exporters.drift.promql_check import check, expected

if TYPE_CHECKING:
    from pathlib import Path

METRIC = "detection_confidence"
EDGES = (0.1, 0.5, 0.9, 1.0)
# Observations in five minutes, in each bin, the last one above all bounds.
USUAL, SHIFTED = (1, 4, 20, 30, 0), (2, 10, 25, 12, 1)
RUNBOOKS: tuple[tuple[str, ...], ...] = ((), ("--runbook-url=https://example.org/drift",))
STEPS = 12  # of five minutes in a window
WEEK = 7 * 24 * STEPS


def written(instance: str, before: tuple[int, ...], now: tuple[int, ...]) -> list[dict[str, Any]]:
    """The buckets of one instance: a week of one distribution, a restart after which counters begin again, another."""
    found = []
    ways = ("0.1", "0.5", "0.9", "1", "+Inf") if instance == "a" else ("0.1", "0.5", "0.9", "1.0", "+Inf")
    for place, le in enumerate(ways):
        first, then = sum(before[: place + 1]), sum(now[: place + 1])
        found.append(
            {
                "series": f'{METRIC}_bucket{{service="vision",model="yolo",instance="{instance}",le="{le}"}}',
                "values": f"0+{first}x{WEEK - 1} {then}+{then}x{24 * STEPS}",
            }
        )
    return found


def evaluated(
    promtool: str, folder: Path, series: list[dict[str, Any]], values: dict[str, float], alerts: int, minutes: int
) -> None:
    """Ask promtool whether expressions have these values, and how many alerts there are."""
    (folder / "drift.rules.yml").write_text(yaml.safe_dump(rules(Histogram(METRIC, EDGES, weeks=1))))
    test = {
        "rule_files": ["drift.rules.yml"],
        "evaluation_interval": "1h",
        "tests": [
            {
                "interval": "5m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f"sum by (service) (abs({rule} - {value!r}) <= bool {1e-6 * abs(value)!r})",
                        "eval_time": f"{minutes}m",
                        "exp_samples": [{"labels": '{service="vision"}', "value": 1}],
                    }
                    for rule, value in values.items()
                ]
                + [
                    {
                        "expr": 'count(ALERTS{alertname="ModelDrift"}) or vector(0)',
                        "eval_time": f"{minutes}m",
                        "exp_samples": [{"labels": "{}", "value": alerts}],
                    }
                ],
            }
        ],
    }
    (folder / "drift.test.yml").write_text(yaml.safe_dump(test))
    found = subprocess.run(
        [promtool, "test", "rules", str(folder / "drift.test.yml")], capture_output=True, text=True, check=False
    )
    assert not found.returncode, found.stdout + found.stderr


def named(reference: np.ndarray, current: np.ndarray) -> dict[str, float]:
    """What the statistics say, by the names of rules."""
    return {f"service_model:{name}:1h": value for name, value in expected(reference, current).items()}


def test_drift_of_two_instances(promtool: str, tmp_path: Path) -> None:
    """Which write a bound differently, and were restarted; both windows are found, and one alert."""
    series = written("a", USUAL, SHIFTED) + written("b", USUAL, SHIFTED)
    reference, current = (2.0 * STEPS * np.array(counts) for counts in (USUAL, SHIFTED))
    assert float(psi_test(reference, current).pvalue) < 1e-9
    evaluated(promtool, tmp_path, series, named(reference, current), 1, 5 * (WEEK + 3 * STEPS))


def test_no_drift(promtool: str, tmp_path: Path) -> None:
    """No alert; the z of exactly the same is as low as it can be."""
    series = written("a", USUAL, USUAL)
    counts = float(STEPS) * np.array(USUAL)
    same = {name: value for name, value in named(counts, counts).items() if value}
    evaluated(promtool, tmp_path, series, same, 0, 5 * (WEEK + 3 * STEPS))


def test_too_few_observations(promtool: str, tmp_path: Path) -> None:
    """However different, 192 observations are no alert."""
    before, now = (0, 0, 1, 15, 0), (0, 15, 1, 0, 0)
    series = written("a", before, now)
    evaluated(promtool, tmp_path, series, {"service_model:drift_samples:1h": 192.0}, 0, 5 * (WEEK + 3 * STEPS))


def test_one_window_is_not_enough(promtool: str, tmp_path: Path) -> None:
    """In the first hour of drift there is no alert yet."""
    series = written("a", USUAL, SHIFTED)
    evaluated(promtool, tmp_path, series, {"service_model:drift_vote:1h": 1.0}, 0, 5 * (WEEK + STEPS))


def test_chance_is_no_drift(promtool: str, tmp_path: Path) -> None:
    """Of 204 observations an index of 0.1 and more is no news."""
    before, now = (2, 3, 4, 4, 4), (1, 2, 4, 4, 6)
    reference, current = (float(STEPS) * np.array(counts) for counts in (before, now))
    values = expected(reference, current)
    assert values["drift_psi"] >= 0.1
    series = written("a", before, now)
    evaluated(promtool, tmp_path, series, named(reference, current), 0, 5 * (WEEK + 3 * STEPS))


def command(*given: str) -> subprocess.CompletedProcess[str]:
    """What `infermeter drift rules` writes."""
    line = [sys.executable, "-m", "infermeter_exporters", "drift", "rules", *given]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "given",
    [
        ("--runbook-url=https://example.org/drift", "--weeks=2"),
        ("--metric=seconds", "--le=1e-2,1,2.5,1e3", "--by=job", "--window=30m", '--match=env="prod"', "--weeks=1"),
        ("--metric=x", "--le=1", "--effect=100", '--match=env="prod", zone!="x"', "--weeks=1"),  # nothing is that much
    ],
)
def test_rules_pass_their_own_test(promtool: str, tmp_path: Path, given: tuple[str, ...]) -> None:
    """Prometheus reads them with nothing to complain about; the test beside them is one that can fail."""
    written = command(*given).stdout
    (tmp_path / "x.rules.yml").write_text(written)
    (tmp_path / "x.test.yml").write_text(command(*given, "--test=x.rules.yml").stdout)
    read = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "x.rules.yml")], capture_output=True, text=True, check=False
    )
    assert (read.returncode, read.stderr) == (0, "")
    tested = [promtool, "test", "rules", str(tmp_path / "x.test.yml")]
    found = subprocess.run(tested, capture_output=True, text=True, check=False)
    assert not found.returncode, found.stdout + found.stderr
    (tmp_path / "x.rules.yml").write_text(written.replace("+ 0.5", "+ 0.6"))
    assert subprocess.run(tested, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("window", ["5h", "1w"])
def test_a_window_that_no_week_is_made_of(window: str) -> None:
    """Can be watched, not tested; nor one that is so long that an alert takes more than a week."""
    assert checked(Histogram("x", EDGES, window=window)).window == window
    with pytest.raises(ValueError, match="expected one of which a week has a whole number, more than 3"):
        check(Histogram("x", EDGES, window=window), "x.rules.yml")


def test_a_short_window_is_evaluated_as_often_as_it_ends() -> None:
    """Otherwise there would be no vote of the window before."""
    groups = [rules(Histogram("x", EDGES, window=window))["groups"][0] for window in ("1m", "1h")]
    assert [group["interval"] for group in groups] == ["1m", "5m"]


def test_every_rule_has_a_meaning() -> None:
    """What is recorded is what is listed."""
    (group,) = rules(Histogram("x", EDGES))["groups"]
    assert {rule["record"].split(":")[1] for rule in group["rules"] if "record" in rule} == set(MEANINGS)


def test_the_alert_says_where_to_read_on() -> None:
    """If that was said."""
    notes = [yaml.safe_load(command(*given).stdout)["groups"][0]["rules"][-1]["annotations"] for given in RUNBOOKS]
    assert [note.get("runbook_url") for note in notes] == [None, "https://example.org/drift"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Histogram("x_bucket", EDGES), "expected the name of a histogram without _bucket"),
        (Histogram("x y", EDGES), "expected the name of a histogram"),
        (Histogram("x", ()), "no finite bound"),
        (Histogram("x", (math.nan, 1)), "no finite bound"),
        (Histogram("x", (1, 1)), "expected growing ones"),
        (Histogram("x", EDGES, window="1 hour"), "expected a time"),
        (Histogram("x", EDGES, by=()), "expected some"),
        (Histogram("x", EDGES, by=("le",)), "none of them le"),
        (Histogram("x", EDGES, weeks=5), "expected 1 to 4"),
    ],
)
def test_what_cannot_work(given: Histogram, sentence: str) -> None:
    """Is one sentence."""
    with pytest.raises(ValueError, match=sentence):
        checked(given)


def test_the_command_says_what_is_wrong() -> None:
    """And ends with the code of a mistake."""
    found = command("--le", "1,x")
    assert (found.returncode, found.stderr) == (
        2,
        "infermeter: drift rules: could not convert string to float: 'x'\n",
    )
