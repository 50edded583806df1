"""Who is told of an alert by the Alertmanager of deploy/compose, and which alerts say what another one has said."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from rules.rule import table
from tests.deploy.programs import COMPOSE, LOOPBACK, PATIENCE, program, read, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def amtool() -> str:
    """What checks Alertmanager's configuration."""
    return program("amtool", package="apt-get install --no-install-recommends prometheus-alertmanager")


def test_alertmanager_accepts_its_configuration(amtool: str) -> None:
    """`amtool check-config` on the file as it is, which notifies nobody."""
    assert run(amtool, "check-config", COMPOSE / "alertmanager.yml").returncode == 0
    receivers = read(COMPOSE / "alertmanager.yml")["receivers"]
    assert [sorted(receiver) for receiver in receivers] == [["name"], ["name"]]


def test_the_receivers_to_uncomment_are_right(amtool: str, tmp_path: Path) -> None:
    """With their `# ` taken away, both receivers notify Slack, and Alertmanager accepts the file."""
    text = (COMPOSE / "alertmanager.yml").read_text(encoding="utf-8")
    file = tmp_path / "alertmanager.yml"
    file.write_text(re.sub(r"^    # ", "    ", text, flags=re.MULTILINE), encoding="utf-8")
    assert [sorted(receiver) for receiver in read(file)["receivers"]] == [["name", "slack_configs"]] * 2
    found = run(amtool, "check-config", file)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "ticket"), ("info", "ticket")])
def test_an_alert_goes_where_its_severity_says(amtool: str, severity: str, receiver: str) -> None:
    """`amtool config routes test` names one receiver."""
    config = f"--config.file={COMPOSE / 'alertmanager.yml'}"
    labels = ["alertname=InferenceLatencyHigh", "service=face-detection", f"severity={severity}"]
    found = run(amtool, "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels)
    assert (found.returncode, found.stdout.strip()) == (0, receiver)


@contextmanager
def alertmanager(folder: Path) -> Iterator[httpx.Client]:
    """A running Alertmanager with the configuration of the stack."""
    package = "apt-get install --no-install-recommends prometheus-alertmanager"
    found = program("prometheus-alertmanager", "alertmanager", package=package)
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        address = f"{LOOPBACK}:{probe.getsockname()[1]}"
    command = [
        found, f"--config.file={COMPOSE / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}", "--cluster.listen-address=",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10) as client:
            deadline = time.monotonic() + PATIENCE
            while not ready(client):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"Alertmanager did not get ready, having said:\n{log.read_text()}")
                time.sleep(0.02)
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ready(client: httpx.Client) -> bool:
    """Whether a server says that it is."""
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


Labels = tuple[tuple[str, str], ...]


def states(folder: Path, expected: dict[Labels, str]) -> dict[Labels, str]:
    """What a real Alertmanager makes of alerts, by their labels: those that are expected, as soon as it is so."""
    now = datetime.now(UTC).isoformat()
    seen: dict[Labels, str] = {}
    with alertmanager(folder) as client:
        alerts = [{"labels": dict(labels), "startsAt": now} for labels in expected]
        assert client.post("/api/v2/alerts", json=alerts).is_success
        deadline = time.monotonic() + PATIENCE
        while seen != expected and time.monotonic() < deadline:
            answer = client.get("/api/v2/alerts").json()
            found = {tuple(sorted(alert["labels"].items())): alert["status"]["state"] for alert in answer}
            seen = {labels: found.get(tuple(sorted(labels)), "") for labels in expected}
            time.sleep(0.02)
    return seen


def test_a_critical_alert_silences_its_warning_and_no_other(tmp_path: Path) -> None:
    """The same alert of the same service and model is inhibited, that of another model is not."""
    firing = {
        ("critical", "face-detection", "centerface"): "active",
        ("warning", "face-detection", "centerface"): "suppressed",
        ("warning", "face-detection", "retinaface"): "active",
        ("warning", "object-detection", "centerface"): "active",
    }
    expected: dict[Labels, str] = {
        (("alertname", "InferenceLatencyHigh"), ("severity", severity), ("service", service), ("model", model)): state
        for (severity, service, model), state in firing.items()
    }
    assert states(tmp_path, expected) == expected


def test_drift_of_a_feature_is_told_by_one_alert(tmp_path: Path) -> None:
    """By the one that says most of it; what is inhibited inhibits still, and another feature is another matter."""
    firing = {
        ("DriftDetected", "warning", "confidence"): "suppressed",
        ("DriftPsiWarning", "warning", "confidence"): "suppressed",
        ("DriftPsiWarning", "critical", "confidence"): "suppressed",
        ("DriftKlCritical", "critical", "confidence"): "active",
        ("ModelDrift", "warning", "confidence"): "suppressed",
        ("DriftDetected", "warning", "prediction"): "suppressed",
        ("DriftPsiWarning", "warning", "prediction"): "active",
        ("DriftDetected", "warning", "brightness"): "active",
        ("DriftUnknown", "info", "brightness"): "active",
        ("DriftUnknown", "info", "sharpness"): "suppressed",
        ("DriftUnknown", "warning", "sharpness"): "active",
        ("ModelDrift", "warning", "sharpness"): "active",
    }
    owner = (("service", "gate"), ("model", "yolo"), ("baseline", "seasonal"))
    expected: dict[Labels, str] = {
        (("alertname", name), ("severity", severity), ("feature", feature), *owner): state
        for (name, severity, feature), state in firing.items()
    }
    assert states(tmp_path, expected) == expected


def test_only_alerts_that_there_are_inhibit() -> None:
    """No rule of inhibition names an alert that is gone."""
    rules = read(COMPOSE / "alertmanager.yml")["inhibit_rules"]
    matchers = [one for rule in rules for kind in ("source_matchers", "target_matchers") for one in rule[kind]]
    names = {name for one in matchers if one.startswith("alertname") for name in one.split('"')[1].split("|")}
    assert names - set(table()) == set()
