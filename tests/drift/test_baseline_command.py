"""`infermeter drift baseline`: references are made of what was sent, or of a file, listed and forgotten."""

from __future__ import annotations

import os
import re
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from infermeter_exporters.cli import main
from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.samples import Column
from infermeter_exporters.drift.slots import Rules, Slots
from infermeter_exporters.drift.store import opened
from tests.prometheus.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from infermeter_exporters.drift.baselines import Baseline

    Run = Callable[..., tuple[int, str, str]]

HOUR = 3600.0
A, B, WORD = (Key("vision", "yolo", name) for name in ("a", "b", "word"))
OTHER = Key("sound", "words", "a")
CONFIG = """
store: drift.sqlite
sources:
  - {type: push, baselines: [frozen, previous, seasonal], learn: 100}
  - {type: files, path: '*.parquet', baselines: [good]}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in a folder with a configuration; gives the exit code, and what it says where."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drift.yml").write_text(CONFIG)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["drift", "baseline", arguments[0], "--config.file=drift.yml", *arguments[1:]])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def send(columns: dict[Key, Any], ago: float) -> None:
    """Have values counted as of some time ago."""
    with closing(opened("drift.sqlite")) as store, store.transaction() as transaction:
        slots = Slots("push", Rules(300.0, learn=100))
        times = np.full(1, time.time() - ago)
        slots.add(
            transaction, [Column(key, np.repeat(times, len(values)), values) for key, values in columns.items()], 1.0
        )


def known(source: str = "push", name: str = "frozen") -> dict[Key, Baseline]:
    """The references of a name."""
    with closing(opened("drift.sqlite")) as store, store.transaction() as transaction:
        return baselines.read(transaction, source, name)


def test_of_what_was_sent(run: Run) -> None:
    """In the time that is asked for; it is the next version, and what tests use of its bins is cut anew."""
    send({A: np.arange(1000.0), OTHER: np.arange(1000.0)}, 10 * HOUR)
    send({A: np.arange(300.0)}, 3 * HOUR)
    send({A: np.arange(500.0), WORD: ["x", "y"] * 60}, 0)
    first = known()
    assert {key: (one.version, one.histogram.samples) for key, one in first.items()} == {
        A: (1, 1000),
        OTHER: (1, 1000),
        WORD: (1, 120),
    }
    answer = (0, "frozen version 2 of push: 2 features, 120 observations or more\n", "")
    assert run("create", "--last=4h") == answer
    found = known()
    assert {key: (one.version, one.histogram.samples) for key, one in found.items()} == {
        A: (2, 800),
        OTHER: (1, 1000),
        WORD: (2, 120),
    }
    assert found[A].ended - found[A].began == pytest.approx(4 * HOUR)
    before, after = (one[A].histogram.layout for one in (first, found))
    assert (after.edges, after.tested == before.tested) == (before.edges, False)
    begin, end = (datetime.fromtimestamp(time.time() - ago, UTC).isoformat() for ago in (4 * HOUR, 2 * HOUR))
    answer = (0, "good version 1 of push: 1 features, 300 observations or more\n", "")
    assert run("create", f"--from={begin}", f"--to={end}", "--name=good") == answer
    assert known(name="good")[A].histogram.samples == 300


def test_of_some_of_it(run: Run) -> None:
    """Of a service, a model or a feature."""
    send({A: np.arange(100.0), B: np.arange(200.0), OTHER: np.arange(300.0)}, 0)
    for place, (flag, keys) in enumerate(
        [("--service=sound", [OTHER]), ("--model=yolo", [A, B]), ("--feature=a", [A, OTHER])]
    ):
        assert run("create", flag, f"--name=n{place}")[0] == 0
        assert sorted(known(name=f"n{place}")) == sorted(keys)
    nothing = (2, "", "infermeter: drift baseline: nothing was observed of which a reference could be made\n")
    assert run("create", "--service=sound", "--model=yolo") == nothing


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_of_a_file(run: Run, tmp_path: Path, name: str) -> None:
    """With what its columns say, of which some may be chosen; what is empty for a model is left out."""
    number = 400
    table = pa.table(
        {
            "service": ["vision"] * number + ["sound"] * number,
            "model": ["yolo"] * number + ["words"] * number,
            "time": [0.0] * 2 * number,
            "a": np.arange(2.0 * number),
            "word": pa.array(["x", "y"] * (number // 2) + [None] * number),
        }
    )
    (csv.write_csv if name.endswith("csv") else parquet.write_table)(table, str(tmp_path / name))
    os.utime(name, (1e9, 1e9))
    assert run("create", f"--path={name}") == (
        0,
        "frozen version 1 of push: 3 features, 400 observations or more\n",
        "",
    )
    found = known()
    assert sorted(found) == sorted([A, OTHER, WORD])
    assert {(one.began, one.ended) for one in found.values()} == {(1e9, 1e9)}
    assert (found[A].histogram.layout.lowest, found[OTHER].histogram.layout.lowest) == (0, number)
    assert found[WORD].histogram.layout.names == ("x", "y")
    assert run("create", f"--path={name}", "--service=sound", "--source=files")[0] == 0
    assert list(known("files")) == [OTHER]


def test_of_a_file_that_does_not_say_whose_it_is(run: Run, tmp_path: Path) -> None:
    """It is said beside it."""
    parquet.write_table(pa.table({"a": np.arange(100.0), "b": np.arange(100.0)}), str(tmp_path / "a.parquet"))
    flags = ["--service=vision", "--model=yolo", "--feature=a"]
    assert run("create", "--path=a.parquet", *flags) == (
        0,
        "frozen version 1 of push: 1 features, 100 observations or more\n",
        "",
    )
    assert list(known()) == [A]
    sentence = "--path is 'a.parquet', of which no reference can be made: there is no column service, expected one"
    assert run("create", "--path=a.parquet") == (2, "", f"infermeter: {sentence}\n")


def test_list_and_delete(run: Run) -> None:
    """Each version, the oldest first; when one is forgotten, the one before it counts again."""
    assert run("list") == (0, "", "")
    send({A: np.arange(100.0), B: np.arange(100.0)}, 0)
    assert run("create", "--last=1h")[0] == 0
    assert run("create", "--last=1h", "--name=good", "--feature=a")[0] == 0
    code, out, _ = run("list")
    assert code == 0
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    expected = [
        r"push\tfrozen\tversion 1\t2 features\t",
        r"push\tfrozen\tversion 2\t2 features\t",
        r"push\tgood\tversion 1\t1 features\t",
    ]
    assert [
        bool(re.fullmatch(f"{line}{moment} to {moment}", said))
        for line, said in zip(expected, out.splitlines(), strict=True)
    ] == [True] * 3
    assert run("delete", "--source=push", "--version=2") == (
        0,
        "frozen version 2 of push: 2 features are forgotten\n",
        "",
    )
    assert {one.version for one in known().values()} == {1}
    gone = "infermeter: there is no version 2 of frozen of push\n"
    assert run("delete", "--source=push", "--version=2") == (2, "", gone)
    assert run("delete", "--source=push", "--name=good", "--version=1")[0] == 0
    assert len(run("list")[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--name=previous"], "--name is 'previous', which is a baseline that needs not be made"),
        (["--name=a b"], "--name is 'a b', expected letters, digits, '_', '.' and '-'"),
        (["--source=other"], "--source is 'other', expected one of push, files"),
        (["--last=1h", "--from=2026-01-01"], "more than one of --last, --from and --path is given, expected one"),
        (["--path=x", "--to=2026-01-01"], "--to is given for a --path, of which all rows are taken"),
        (["--last=day"], "--last is 'day', expected a time, for example 30s, 5m or 1w"),
        (["--from=yesterday"], "--from is 'yesterday', expected a time, for example 2026-01-31T12:00:00Z"),
        (["--from=2100-01-01"], "--from and --to are no time that has passed, expected one after the other"),
        (
            ["--from=2026-01-02", "--to=2026-01-01"],
            "--from and --to are no time that has passed, expected one after the other",
        ),
        (["--path=x.parquet"], "--path is 'x.parquet', of which no reference can be made: it is no table: "),
        (["--path=drift.yml"], "--path is 'drift.yml', of which no reference can be made: it is no table: "),
        (["--last=1h"], "drift baseline: nothing was observed of which a reference could be made"),
    ],
)
def test_what_cannot_be_made(run: Run, flags: list[str], sentence: str) -> None:
    """Is one sentence, and code 2."""
    code, out, said = run("create", *flags)
    assert (code, out) == (2, "")
    assert said.startswith(f"infermeter: {sentence}")
    assert said.count("\n") == 1
    assert known() == {}


def test_a_prometheus_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """The same."""
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "drift.yml").write_text(f"store: drift.sqlite\nsources: [{{type: prometheus, url: '{url}'}}]\n")
    code, out, said = run("create")
    assert (code, out) == (2, "")
    assert said.startswith("infermeter: drift baseline: ")
    assert said.count("\n") == 1


def test_who_counts_uses_it(run: Run) -> None:
    """The exporter that runs counts over the new bins from then on, without a restart."""
    send({A: np.arange(1000.0)}, 0)
    with closing(opened("drift.sqlite")) as store:
        slots = Slots("push", Rules(300.0, learn=100))
        parquet.write_table(pa.table({"a": np.arange(100.0) * 7}), "a.parquet")
        assert run("create", "--path=a.parquet", "--service=vision", "--model=yolo")[0] == 0
        with store.transaction() as transaction:
            slots.add(transaction, [Column(A, np.asarray([time.time()]), np.asarray([5.0]))], 1.0)
            layouts = {row[0] for row in transaction("SELECT layout FROM slots")}
    assert len(layouts) == 2
