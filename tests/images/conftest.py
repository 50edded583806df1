"""The image of the demo, built by buildah from the Dockerfile as it is, and run by podman as compose.yaml says.

Neither a Docker engine nor a registry of images is needed: the base is a Debian that debootstrap makes once, and that
stays, like everything else that is written here, under .cache/images. The tests are heavy, so they run only when
INFERMETER_IMAGES is set, and take root.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "images"
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
PROGRAMS = ("buildah", "podman", "runc", "debootstrap", "unshare", "tar")

SUITE = ["--variant=minbase", "--include=ca-certificates,python3,python3-venv", "bookworm"]
BASE = f"localhost/infermeter-base:{sha256(' '.join(SUITE).encode()).hexdigest()[:12]}"
IMAGE = "localhost/infermeter-demo:test"

MINUTES = 60.0
PATIENCE = 60.0
"""Seconds for what takes a few."""


class Engine:
    """What buildah and podman do with a storage of their own; one that no other program on this machine looks into."""

    def __init__(self) -> None:
        """Take the overlay file system if it works here; vfs, which copies everything each time, works everywhere."""
        CACHE.mkdir(parents=True, exist_ok=True)
        self._driver = "overlay"
        if self._ran(["podman", *self._podman(), "info"], PATIENCE).returncode:
            self._driver = "vfs"

    def podman(self, *arguments: str | Path, seconds: float = PATIENCE) -> str:
        """What podman answers; the test fails if it does."""
        return self.said(self._ran(["podman", *self._podman(), *arguments], seconds))

    def tried(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """How podman ends, and what it says."""
        return self._ran(["podman", *self._podman(), *arguments], PATIENCE)

    def build(self, *arguments: str | Path) -> None:
        """Have buildah build an image; in a chroot, which needs nothing from the machine but root."""
        command = ["buildah", *self._storage(), "bud", "--isolation=chroot", "--format=docker"]
        self.said(self._ran([*command, *arguments], 15 * MINUTES))

    def clean(self) -> None:
        """End what an earlier run left behind, and forget it, all but the base."""
        self.podman("rm", "--all", "--force", "--time=0")
        self.said(self._ran(["buildah", *self._storage(), "rm", "--all"], PATIENCE))
        listed = self.podman("images", "--all", "--no-trunc", "--format={{.Id}} {{.Repository}}:{{.Tag}}").splitlines()
        others = {line.split()[0] for line in listed if line.split()[1] != BASE}
        if others:
            self.podman("rmi", "--force", *others)

    @staticmethod
    def said(ended: subprocess.CompletedProcess[str]) -> str:
        """What a program said; the test fails with its last words if it failed."""
        if ended.returncode:
            pytest.fail(f"{' '.join(map(str, ended.args))}\nended with {ended.returncode}:\n{ended.stdout[-6000:]}")
        return ended.stdout

    @staticmethod
    def _ran(command: list[str | Path], seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT, env={**os.environ, "PATH": PATH}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=seconds,
        )  # fmt: skip

    def _storage(self) -> list[str | Path]:
        folder = CACHE / self._driver
        return ["--root", folder / "storage", "--runroot", folder / "run", f"--storage-driver={self._driver}"]

    def _podman(self) -> list[str | Path]:
        return [*self._storage(), "--cgroup-manager=cgroupfs", "--runtime=runc", "--log-level=error"]


@dataclass(frozen=True)
class Container:
    """A service of compose.yaml that runs as it would there, but without any network."""

    engine: Engine
    name: str
    service: dict[str, Any]

    @property
    def port(self) -> str:
        """Where it listens."""
        return str(self.service["ports"][0]).rsplit(":", maxsplit=1)[-1]

    def start(self) -> None:
        """Start it with everything that compose.yaml takes away from it."""
        limits = self.service["deploy"]["resources"]["limits"]
        self.engine.podman(
            "run", "--detach", f"--name={self.name}", "--network=none",
            f"--read-only={self.service['read_only']}", "--read-only-tmpfs=false",
            *(f"--tmpfs={folder}" for folder in self.service["tmpfs"]),
            *(f"--cap-drop={capability}" for capability in self.service["cap_drop"]),
            *(f"--security-opt={option.replace(':true', '')}" for option in self.service["security_opt"]),
            f"--cpus={limits['cpus']}", f"--memory={limits['memory']}", f"--pids-limit={limits['pids']}",
            # Those that podman chooses by itself are higher than a process without CAP_SYS_RESOURCE may set.
            "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
            IMAGE, *self.service["command"],
        )  # fmt: skip

    def wait_until_healthy(self) -> None:
        """Return when its health check succeeds."""
        deadline = time.monotonic() + PATIENCE
        while (checked := self.check(self.service)).returncode:
            if time.monotonic() > deadline or self.state("Running") != "true":
                said = self.engine.podman("logs", self.name)
                pytest.fail(f"{self.name} did not get well, having said:\n{said}\nIts health check:\n{checked.stdout}")
            time.sleep(0.2)

    def check(self, service: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """How the health check of a service ends in this container."""
        return self.engine.tried("exec", self.name, *service["healthcheck"]["test"][1:])

    def python(self, program: str) -> str:
        """What a program says that runs beside the service."""
        return self.engine.podman("exec", self.name, "python", "-c", program)

    def page(self) -> str:
        """Its metrics, asked for at another address than the one that only the container itself can ask."""
        url = f"http://127.0.0.2:{self.port}/metrics"
        return self.python(f"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())")

    def state(self, field: str) -> str:
        """What podman knows of it."""
        return self.engine.podman("inspect", f"--format={{{{.State.{field}}}}}", self.name).strip()

    def stop(self) -> tuple[int, float]:
        """End it as Docker would; its exit code, and the seconds that it took."""
        started = time.monotonic()
        self.engine.podman("stop", "--time=30", self.name)
        return int(self.state("ExitCode")), time.monotonic() - started


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """The services of compose.yaml that are built here."""
    text = (ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8")
    return {name: service for name, service in yaml.safe_load(text)["services"].items() if "build" in service}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Something that builds and runs images, with a base in it."""
    if "INFERMETER_IMAGES" not in os.environ:
        pytest.skip("INFERMETER_IMAGES is not set: building images takes minutes; make test-images does")
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing or os.geteuid() != 0:
        reason = f"images are built as root, with what .ci/images installs; missing: {', '.join(missing) or 'root'}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    running = Engine()
    if running.tried("image", "exists", BASE).returncode:
        make_base(running)
    running.clean()
    yield running
    running.clean()


def make_base(engine: Engine) -> None:
    """Make a Debian with Python, to build on in place of an image from a registry."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        system, archive = Path(folder, "system"), Path(folder, "base.tar")
        # In mounts of its own: what debootstrap mounts below the folder is gone when it ends, however it ends.
        command = ["unshare", "--mount", "debootstrap", *SUITE, str(system)]
        Engine.said(Engine._ran([*command], 15 * MINUTES))
        caches = [f"--exclude=./var/{name}/*" for name in ("cache/apt", "lib/apt/lists")]
        Engine.said(Engine._ran(["tar", "--create", *caches, f"--file={archive}", f"--directory={system}", "."], 120))
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        engine.podman("import", "--quiet", f"--change={path}", archive, BASE, seconds=5 * MINUTES)


def pip_settings(folder: Path) -> list[str]:
    """Mounts that let the pip of a build reach the packages as the pip of this machine does.

    Where packages are, and whom to trust there, is configured outside of the repo; files that only this machine has
    are left out. What is mounted is part of no image.
    """
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for name, value in re.findall(r"^(?:global|:env:)\.([a-z-]+)=(.+)$", listed.stdout, re.MULTILINE):
        words = [word for word in ast.literal_eval(value).split() if not word.startswith(("file:", "/"))]
        if name in {"index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "timeout"} and words:
            found[name] = " ".join(words)
    mounts = []
    trusted = re.findall(r"^(?:global|:env:)\.cert=(.+)$", listed.stdout, re.MULTILINE)
    if trusted:
        found["cert"] = "/etc/pip-certificates.pem"
        mounts.append(f"--volume={ast.literal_eval(trusted[-1])}:{found['cert']}:ro")
    file = folder / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in found.items()), encoding="utf-8")
    return [*mounts, f"--volume={file}:/etc/pip.conf:ro"]


@pytest.fixture(scope="session")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The image of the target `demo`: what its configuration says."""
    file = ROOT / "deploy" / "docker" / "Dockerfile"
    mounts = pip_settings(tmp_path_factory.mktemp("pip"))
    engine.build(
        "--pull-never", f"--build-arg=BASE={BASE}", "--target=demo", *mounts, f"--tag={IMAGE}", "--file", file, ROOT
    )
    (found,) = json.loads(engine.podman("image", "inspect", IMAGE))
    return dict(found)


@pytest.fixture(scope="session")
def files(engine: Engine, image: dict[str, Any]) -> dict[str, int]:
    """The files that the image adds to its base, and their sizes in bytes; links have none."""

    def inside(name: str) -> dict[str, int]:
        folder = Path(engine.podman("image", "mount", name).strip())
        try:
            paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
            return {f"/{path.relative_to(folder)}": 0 if path.is_symlink() else path.lstat().st_size for path in paths}
        finally:
            engine.podman("image", "unmount", name)

    base = inside(BASE)
    return {name: size for name, size in inside(IMAGE).items() if base.get(name) != size}


@pytest.fixture
def started(engine: Engine, image: dict[str, Any], compose: dict[str, Any]) -> Iterator[Callable[[str], Container]]:
    """How to start a service of compose.yaml; it is gone after the test."""
    running: list[Container] = []

    def start(name: str) -> Container:
        container = Container(engine, name, compose[name])
        running.append(container)
        container.start()
        container.wait_until_healthy()
        return container

    yield start
    for container in running:
        engine.podman("rm", "--force", "--ignore", "--time=0", container.name)
