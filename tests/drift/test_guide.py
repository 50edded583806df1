"""docs/drift.md says what is so: its examples work, and it leaves out nothing that can be said or answered."""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import time
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infermeter_exporters.drift import config, push, triggers
from infermeter_exporters.drift.catalogue import FAMILIES
from infermeter_exporters.drift.config import Config, FilesSource, PrometheusSource, PushSource, SqlSource
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.exporter import DriftExporter, Settings
from infermeter_exporters.drift.source import REASONS
from infermeter_exporters.drift.triggers import headers
from infermeter_exporters.drift.watch import Timing
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.server import Application, WebSettings
from infermeter_exporters.web_config import WebConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "drift.md").read_text(encoding="utf-8")
RUNBOOKS = ROOT / "docs" / "runbooks"


def block(kind: str, before: str) -> str:
    """The text of the block of code after a comment."""
    found = re.search(rf"<!-- {before}: tested -->\n```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def commands(begin: str) -> list[list[str]]:
    """The commands of the page that begin so, in words; a line that ends within quotes goes on in the next one."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    plain = [text for kind, text in blocks if not kind]
    lines = [line for text in plain for line in re.split(r"\n(?=\w)", text) if line.startswith(begin)]
    return [shlex.split(line, comments=True) for line in lines]


def keys(content: object) -> list[str]:
    """The keys that there may be, as the sentence about one too many names them."""
    with pytest.raises(ConfigError) as raised:
        config.parsed(content, "drift.yml")
    return str(raised.value).rpartition("expected ")[2].split(", ")


@pytest.fixture(scope="module")
def example() -> Config:
    """What the example of a configuration means."""
    return config.parsed(yaml.safe_load(block("yaml", "configuration")), "drift.yml")


def test_the_example_of_a_configuration_is_one(example: Config) -> None:
    """It has a source of each type."""
    assert [type(one) for one in example.sources] == [PrometheusSource, PushSource, FilesSource, SqlSource]


def test_defaults_are_what_the_example_says(example: Config) -> None:
    """Where the page shows numbers, they are those that hold without a file."""
    usual = Config()
    assert (example.timing, example.gates, example.labels) == (Timing(), Gates(), usual.labels)
    assert example.trigger.cooldown == usual.trigger.cooldown
    (pushed,) = (one for one in example.sources if isinstance(one, PushSource))
    assert pushed._replace(models=(), baselines=tuple(pushed.baselines)) == PushSource()


@pytest.mark.parametrize(
    "content",
    [
        {"?": 1},
        {"gates": {"?": 1}},
        {"trigger": {"?": 1}},
        {"labels": {"?": 1}},
        {"sources": [{"type": "prometheus", "?": 1}]},
        {"sources": [{"type": "prometheus", "url": "http://a", "histograms": [{"?": 1}]}]},
        {"sources": [{"type": "push", "?": 1}]},
        {"sources": [{"type": "files", "?": 1}]},
        {"sources": [{"type": "sql", "?": 1}]},
    ],
    ids=str,
)
def test_every_key_is_in_the_example(content: object) -> None:
    """Also those that exclude each other: one of them stands in a comment."""
    text = block("yaml", "configuration")
    expected = keys(content)
    assert len(expected) > 2
    assert [key for key in expected if not re.search(rf"^[ #-]*{key}:", text, re.MULTILINE)] == []


def test_every_command_is_one() -> None:
    """Commands of the page are understood by the parsers of flags."""
    seen = set()
    for words in commands("infermeter drift"):
        name, module = words[1], {"drift-exporter": "exporter", "drift": "command"}[words[1]]
        parser = argparse.ArgumentParser(exit_on_error=False)
        import_module(f"infermeter_exporters.drift.{module}").add_flags(parser)
        parser.parse_args(words[2 : words.index(">") if ">" in words else None])
        seen.add((name, *words[2:4]) if name == "drift" else name)
    assert {("drift", "baseline", what) for what in ("create", "list", "delete")} | {"drift-exporter"} <= seen


def test_what_is_sent_is_accepted(tmp_path: Path) -> None:
    """The examples with curl, one after the other; their answers are those of the page."""
    web = WebSettings((), "", WebConfig(), lifecycle=False, most=40)
    exporter = DriftExporter(Settings("", "", (), ""), Config(store=str(tmp_path / "store.sqlite")), web)
    for intake in exporter._setup.intakes.values():
        intake.start()

    async def sent() -> list[Any]:
        transport = httpx.ASGITransport(app=Application(exporter, web))
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.post(f"http://{url}", content=body, headers=given) for url, body, given in messages()]

    try:
        answers = asyncio.run(sent())
    finally:
        exporter.stop()
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    accepted, joined, trigger = (answer.json() for answer in answers)
    for answer in (accepted, joined):
        assert f"`{answer}`".replace("'", '"') in PAGE
    assert list(trigger) == ["id"]


def messages() -> list[tuple[str, str, dict[str, str]]]:
    """Address, body and headers of each message that is sent with curl."""
    found = []
    for _, *words in commands("curl -H"):
        flags = dict(pairwise(words))
        name, _, value = flags["-H"].partition(": ")
        (url,) = (word for word in words if word.startswith("localhost"))
        found.append((url, flags["-d"], {name: value}))
    assert [url for url, _, _ in found] == [f"localhost:9837/v1/{one}" for one in ("samples", "labels", "trigger")]
    return found


def test_every_status_is_in_the_table() -> None:
    """Reasons for which a message is refused, and their statuses."""
    rows = dict(re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE))
    table = {
        reason: int(status)
        for status, reasons in re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
        for reason in re.findall(r"`(\w+)`", reasons)
    }
    assert table == push._STATUS | {"malformed": 400, "invalid": 400, "busy": 429, "rate": 429, "store": 503}
    assert {"200", "404"} < set(rows)


def test_a_receiver_can_tell_who_sends() -> None:
    """The example for receivers takes what the exporter sends, and nothing that was changed, is old, or has no sign."""
    names: dict[str, Any] = {}
    exec(block("python", "signature"), names)  # noqa: S102  (it is what people copy)
    now, body = int(time.time()), b'{"id": "1"}'
    sent = headers(b"secret", "1", body, now)
    assert names["is_ours"](b"secret", sent, body)
    assert not names["is_ours"](b"secret", sent, body + b" ")
    assert not names["is_ours"](b"other", sent, body)
    assert not names["is_ours"](b"secret", headers(b"secret", "1", body, now - 301), body)
    assert not names["is_ours"](b"secret", sent | {"X-Infermeter-Timestamp": str(now + 1)}, body)
    assert not names["is_ours"](b"secret", headers(b"", "1", body, now), body)
    assert not names["is_ours"](b"secret", {}, body)


def test_every_state_and_reason_is_explained() -> None:
    """States of triggers in the guide, states of windows and reasons of sources in the runbooks."""
    assert [state for state in triggers.STATES if f"`{state}`" not in PAGE] == []
    source = (RUNBOOKS / "DriftSourceDown.md").read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"| `{reason}` |" not in source] == []
    unknown = (RUNBOOKS / "DriftUnknown.md").read_text(encoding="utf-8")
    assert [one for one in ("insufficient", "no_baseline", "layout_mismatch") if f"| `{one}` |" not in unknown] == []


def test_every_metric_is_in_the_changelog() -> None:
    """Metric names are API: none comes without being told."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [name for name in FAMILIES if f"`{name}`" not in text] == []
