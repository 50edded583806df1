"""The image of the demo holds what its services need and nothing else, and they run where they may do nothing."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pytest

import infermeter
from demo.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.images.conftest import Container, Engine

ADDED = 500e6
"""Bytes that the image may add to its base; scipy, onnxruntime and numpy are two thirds of them."""
TOOLS = {"cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cmake", "cargo", "pip", "pip3", "curl", "wget", "git"}
SECONDS = 5
"""What a service may take to end; it finishes the frame it is at."""

services = pytest.mark.parametrize("name", [service.name for service in SERVICES])


def test_the_image_is_nobody_and_hears_the_signal(image: dict[str, Any]) -> None:
    """A user by number, no shell between a signal and Python, and whatever looks for a home finds /tmp."""
    config = image["Config"]
    environment = dict(line.split("=", 1) for line in config["Env"])
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python", "-m"]
    assert config["Cmd"][0] == SERVICES[0].module
    assert config["StopSignal"] in {"SIGTERM", "15"}
    assert environment["HOME"] == "/tmp"  # noqa: S108 - the container's own
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert [name for name in environment if name.startswith(("PIP", "INFERMETER"))] == []
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_adds_packages_and_the_demo(files: dict[str, int]) -> None:
    """Nothing else: no compiler, no pip, no cache, no wheel that has been installed, nothing in anybody's home."""
    assert {"/".join(name.split("/")[:3]) for name in files if not name.startswith("/app/")} == {"/opt/infermeter"}
    assert {name.split("/")[2] for name in files if name.startswith("/app/")} == {"demo"}
    assert {PurePath(name).name for name in files if "/bin/" in name} & TOOLS == set()
    assert [name for name in files if name.endswith((".whl", ".tar.gz")) or "/site-packages/pip/" in name] == []
    assert [name for name in files if name.startswith("/app/") and "__pycache__" in name] == []


def test_the_image_is_no_larger_than_it_must_be(files: dict[str, int], image: dict[str, Any]) -> None:
    """What it adds to the base, in bytes."""
    added = sum(files.values())
    print(f"the image has {image['Size'] / 1e6:.0f} MB, {added / 1e6:.0f} MB more than its base")
    assert 0 < added < ADDED


@services
def test_a_service_works_in_a_container_that_may_do_nothing(
    started: Callable[[str], Container], compose: dict[str, Any], name: str
) -> None:
    """As in compose.yaml, and without a network: healthy, measured, read-only, and gone with code 0 when told to."""
    container = started(name)
    page = container.page()
    assert re.search(rf'^inference_duration_bucket{{.*le="\+Inf".*service="{name}"', page, re.MULTILINE)
    assert re.search(rf'^detections_total{{.*service="{name}"', page, re.MULTILINE)
    assert [other for other, service in compose.items() if not container.check(service).returncode] == [name]
    assert container.python("import os; print(os.getuid(), os.listdir('/tmp'))").split("\n")[0] == "65532 []"
    assert writable(container) == ["/dev/shm", "/tmp"]  # noqa: S108 - the container's own

    code, seconds = container.stop()
    assert (code, container.state("OOMKilled")) == (0, "false")
    assert seconds < SECONDS


def writable(container: Container) -> list[str]:
    """The folders in which the service could make a file."""
    program = """
import os
for folder, _, _ in os.walk("/"):
    if folder.startswith(("/proc/", "/sys/")):
        continue
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
        print(folder)
    except OSError:
        pass
"""
    return sorted(container.python(program).split())


def test_the_image_holds_this_library(engine: Engine, started: Callable[[str], Container]) -> None:
    """The wheel, of the version that is here, installed like any package."""
    container = started(SERVICES[0].name)
    version, file = container.python("import infermeter as i; print(i.__version__, i.__file__)").split()
    assert version == infermeter.__version__
    assert re.fullmatch(r"/opt/infermeter/lib/python3\.\d+/site-packages/infermeter/__init__\.py", file)
