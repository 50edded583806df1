"""The configuration file of the drift exporter: all of it works, and each mistake is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infermeter_exporters.drift import config
from infermeter_exporters.drift.config import (
    Config,
    FilesSource,
    LabelSettings,
    PrometheusSource,
    PushSource,
    SqlSource,
    Trigger,
)
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.prometheus import Access, Family
from infermeter_exporters.drift.slots import LEARN, MOST_SERIES
from infermeter_exporters.drift.triggers import Webhook
from infermeter_exporters.drift.watch import Timing
from infermeter_exporters.errors import ConfigError

INVALID = sorted(Path(__file__).with_name("invalid").glob("*.yml"))
COMPLETE = """
store: postgresql://drift@db/drift
interval: 1m
window: 30m
delay: 500ms
season: 1d
seasons: 7
gates: {psi: 0.2, alpha: 1.0e-4, samples: 500, samples_per_bin: 10, windows: 5, agreeing: 4, hysteresis: 0.5, mmd: 0.3}
trigger: {url: 'https://ci.example/hook?x=1', secret_file: /run/secret, timeout: 5s, cooldown: 12h}
labels: {window: 2d, keep: 2w, most: 1000}
sources:
  - type: prometheus
    url: http://prometheus:9090/prefix
    baselines: [seasonal, previous, good]
    timeout: 10s
    user: me
    password_file: /run/password
    ca_file: ca.pem
    headers: {X-Scope-OrgID: team}
    learn: 1000
    histograms:
      - detection_confidence
      - {metric: 'job:latency', kind: native, service: app, model: '', match: 'env="prod"'}
  - type: push
    name: sent
    baselines: [reference]
    models: [vision/yolo, text/org/model]
    learn: 1000
    features: 100
    body: 1000000
    samples: 1000
    rate: 1.0e+4
    embeddings: true
  - {type: files, path: '/in/**/*.parquet', service: vision, model: yolo, time: column, settle: 1m, learn: 100}
  - type: sql
    url_file: /run/url
    query: SELECT * FROM predictions
    watermark: created_at
    service: text
    lag: 1m
    every: 5m
    features: 5
"""


def test_all_of_it(tmp_path: Path) -> None:
    """Everything that may be said is understood as it is meant."""
    path = tmp_path / "drift.yml"
    path.write_text(COMPLETE)
    families = [
        Family("detection_confidence"),
        Family("job:latency", "native", service="app", model="", match='env="prod"'),
    ]
    access = Access(
        "http://prometheus:9090/prefix",
        timeout=10,
        user="me",
        password_file="/run/password",
        ca_file="ca.pem",
        headers={"X-Scope-OrgID": "team"},
    )
    assert config.load(str(path)) == Config(
        store="postgresql://drift@db/drift",
        timing=Timing(interval=60, window=1800, delay=0.5, season=86_400, seasons=7),
        gates=Gates(
            effect=0.2, alpha=1e-4, least=500, least_per_bin=10, windows=5, agreeing=4, hysteresis=0.5, mmd=0.3
        ),
        trigger=Trigger(Webhook("https://ci.example/hook?x=1", timeout=5), "/run/secret", cooldown=43_200),
        labels=LabelSettings(window=2 * 86_400, keep=14 * 86_400, most=1000),
        sources=[
            PrometheusSource("prometheus", ["seasonal", "previous", "good"], access, families, 1000),
            PushSource(
                "sent",
                baselines=["reference"],
                models=["vision/yolo", "text/org/model"],
                learn=1000,
                features=100,
                body=1_000_000,
                samples=1000,
                rate=10_000,
                embeddings=True,
            ),
            FilesSource(
                "files",
                baselines=["frozen", "previous"],
                path="/in/**/*.parquet",
                service="vision",
                model="yolo",
                time="column",
                settle=60,
                learn=100,
                features=MOST_SERIES,
                embeddings=False,
            ),
            SqlSource(
                "sql",
                baselines=["frozen", "previous"],
                url="",
                url_file="/run/url",
                query="SELECT * FROM predictions",
                watermark="created_at",
                service="text",
                model="",
                lag=60,
                every=300,
                learn=LEARN,
                features=5,
                embeddings=False,
            ),
        ],
    )


@pytest.mark.parametrize(
    "text", ["", "{}", "# nothing", "store:\ngates: {psi:, samples:}\nsources:\ninterval:\nlabels:\n"]
)
def test_nothing_is_needed(tmp_path: Path, text: str) -> None:
    """Without a file, with an empty one, and where a key is without a value, there is one source: what is sent."""
    path = tmp_path / "drift.yml"
    path.write_text(text)
    found = config.load(str(path))
    assert found == config.load("") == Config()
    assert [type(source) for source in found.sources] == [PushSource]


@pytest.mark.parametrize("path", INVALID, ids=[path.stem for path in INVALID])
def test_what_cannot_work(path: Path) -> None:
    """Is one sentence with the file, the key, the value, and what was expected: the first line of each file."""
    expected = path.read_text().splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as caught:
        config.load(str(path))
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).removeprefix(str(path)).lstrip(": ").startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"store: \xff\n", b"\x00", b"a: &a [*a]\n" + b"x" * 10])
def test_what_is_no_text(tmp_path: Path, content: bytes) -> None:
    """Is said in one sentence as well."""
    path = tmp_path / "drift.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"drift\.yml is not YAML: .+") as caught:
        config.load(str(path))
    assert "\n" not in str(caught.value)


def test_files_of_any_name(tmp_path: Path) -> None:
    """A sentence says where a key is, whatever the file is called."""
    path = tmp_path / "drift.conf"
    path.write_text("gates: {psi: x}\n")
    with pytest.raises(ConfigError, match=r"drift\.conf: gates\.psi is 'x', expected a number"):
        config.load(str(path))
    with pytest.raises(ConfigError, match=r"none\.yml cannot be read: No such file or directory"):
        config.load(str(tmp_path / "none.yml"))


def test_windows_of_parts_of_a_second(tmp_path: Path) -> None:
    """Are whole numbers of intervals as well, though a computer does not divide them exactly."""
    path = tmp_path / "drift.yml"
    path.write_text("interval: 100ms\nwindow: 300ms\n")
    timing = config.load(str(path)).timing
    assert (timing.interval, timing.window) == pytest.approx((0.1, 0.3))


def test_a_long_window(tmp_path: Path) -> None:
    """Accuracy is shown over one of them at least."""
    path = tmp_path / "drift.yml"
    path.write_text("window: 2d\n")
    assert config.load(str(path)).labels.window == 2 * 86_400


def run(*flags: str, folder: Path) -> tuple[int, str, str]:
    """The exit code of the real command, and what it says."""
    command = [sys.executable, "-m", "infermeter_exporters", "drift-exporter", *flags]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return found.returncode, found.stdout, found.stderr


def test_the_command_line(tmp_path: Path) -> None:
    """`--config.check` says whether it would start, and leaves nothing; what cannot work ends it with code 2."""
    (tmp_path / "good.yml").write_text(COMPLETE)
    assert run("--config.file=good.yml", "--config.check", folder=tmp_path) == (0, "", "good.yml is fine\n")
    (tmp_path / "bad.yml").write_text("window: 7m\n")
    sentence = "infermeter: bad.yml: window is 420 s, expected a whole number of intervals\n"
    for flags in (["--config.check"], []):
        assert run("--config.file=bad.yml", *flags, folder=tmp_path) == (2, "", sentence)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yml", "good.yml"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--prometheus=host:9090"], "the flags: sources[0].url is 'host:9090', expected one that begins with http://"),
        (["--prometheus=http://x", "--config.file=x"], "--prometheus and --config.file are both given, expected one"),
        (["--histogram=a"], "--histogram is given, but no --prometheus that has it"),
        (["--store=/proc/nothing/store"], "store is '/proc/nothing/store', expected a file of SQLite or where one can"),
    ],
)
def test_flags_that_cannot_work(tmp_path: Path, flags: list[str], sentence: str) -> None:
    """The same."""
    code, out, said = run(*flags, folder=tmp_path)
    assert (code, out) == (2, "")
    assert said.startswith(f"infermeter: {sentence}")
    assert said.count("\n") == 1
