"""Flags and the configuration file of the GPU exporter: what works, and one sentence for what cannot."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

import pytest

from infermeter_exporters.errors import ConfigError
from infermeter_exporters.gpu import config
from infermeter_exporters.gpu.accounts import Price
from infermeter_exporters.gpu.exporter import add_flags, settings

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, text: str) -> str:
    """The path of a file with this text."""
    path = folder / "gpu.yml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_prices(tmp_path: Path) -> None:
    """By the whole name; the first pattern that fits counts."""
    text = """
prices:
  - {gpu: NVIDIA H100.*, usd_per_gpu_hour: 2.5}
  - {gpu: .*, usd_per_gpu_hour: 1}
usd_per_kwh: 0.25
"""
    price = config.load(written(tmp_path, text)).price()
    assert price("NVIDIA H100 80GB HBM3") == Price(2.5, 0.25)
    assert price("The NVIDIA H100") == Price(1.0, 0.25)
    assert config.Config().price()("NVIDIA T4") == Price(0.0, 0.0)


def test_nothing_is_needed(tmp_path: Path) -> None:
    """Without a file, or with an empty one, there are neither prices nor rules."""
    assert config.load("") == config.load(written(tmp_path, "")) == config.Config()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1]", "is [1], expected a mapping with prices, usd_per_kwh, attribution"),
        ("price: 1", "has the key 'price', expected prices, usd_per_kwh, attribution"),
        ("usd_per_kwh: cheap", ": usd_per_kwh is 'cheap', expected an amount of USD, 0 or more"),
        ("usd_per_kwh: -1", ": usd_per_kwh is -1, expected an amount of USD, 0 or more"),
        ("usd_per_kwh: .nan", ": usd_per_kwh is nan, expected an amount of USD, 0 or more"),
        ("usd_per_kwh: true", ": usd_per_kwh is True, expected an amount of USD, 0 or more"),
        ("prices: 3", ": prices is 3, expected a list of gpu and usd_per_gpu_hour"),
        ("prices: [3]", ": prices[0] is 3, expected a mapping with gpu, usd_per_gpu_hour"),
        ("prices: [{gpu: a}]", ": prices[0] has no usd_per_gpu_hour, expected a gpu"),
        ("prices: [{gpu: '(', usd_per_gpu_hour: 1}]", ": prices[0].gpu is '(', expected a regular expression: "),
        ("prices: [{gpu: 3, usd_per_gpu_hour: 1}]", ": prices[0].gpu is 3, expected a regular expression: "),
        ("prices: [{gpu: a, usd_per_gpu_hour: x}]", ": prices[0].usd_per_gpu_hour is 'x', expected an amount"),
        ("a: [", "is not YAML: "),
        ("\x00", "is not YAML: "),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """With the file, the key, the value and what was expected."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as raised:
        config.load(path)
    assert str(raised.value).startswith(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It was asked for."""
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        config.load(str(tmp_path / "none.yml"))


def given(*flags: str) -> Any:
    """What these flags set."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return settings(parser.parse_args(flags))


def test_what_holds_without_flags() -> None:
    """NVML first; two collection periods until a value is too old."""
    found = given()
    assert [task.source for task in found.tasks] == ["nvml", "nvidia-smi", "sysfs"]
    assert found.tasks[0].periods == (1, 5, 60)
    assert found.limits == (10, 130, 600, 100, 0)


def test_sources() -> None:
    """Those that are named, in that order, dcgm only with its address; simulated GPUs are alone."""
    sources = lambda *flags: [(task.source, task.options) for task in given(*flags).tasks]  # noqa: E731
    assert sources("--collect.sources", "dcgm,nvml", "--collect.dcgm-url", "http://host:9400/metrics") == [
        ("dcgm", {"url": "http://host:9400/metrics"}),
        ("nvml", {}),
    ]
    assert sources("--simulate", "h100x8") == [("simulated", {"spec": "h100x8"})]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--collect.interval", "5"), "--collect.interval is '5', expected a time, for example 5s, 500ms or 1m"),
        (("--collect.fast-interval", "0s"), "--collect.fast-interval is '0s', expected a time"),
        (("--collect.max-age", "1s"), "--collect.max-age is 1s, expected at least two of --collect.fast-interval"),
        (
            ("--collect.sources", "cuda"),
            "--collect.sources names 'cuda', expected some of nvml, nvidia-smi, dcgm, sysfs",
        ),
        (
            ("--collect.sources", "dcgm"),
            "--collect.sources names no source that can be used, dcgm needs --collect.dcgm-url",
        ),
        (("--attribution.max-services", "0"), "--attribution.max-services is 0, expected 1 or more"),
        (("--attribution.top-processes", "-1"), "--attribution.top-processes is -1, expected 0 or more"),
        (
            ("--dcgm-names", "--collect.sources", "dcgm", "--collect.dcgm-url", "http://host:9400/metrics"),
            "--dcgm-names would show twice what a dcgm-exporter, the only source, shows already",
        ),
    ],
)
def test_flags_that_cannot_work(flags: tuple[str, ...], sentence: str) -> None:
    """One sentence with the flag, the value and what was expected."""
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        given(*flags)
