"""Whoever may read little still gets what the driver tells, and is told what is missing and why."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.gpu.exporting import QUICK, Root, exporting
from tests.gpu.nvml_stub import t4
from tests.gpu.sockets import Socket

# A root without its capabilities is a user like any other, and may still read the Python that runs these tests.
WITHOUT_POWERS = (
    ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all") if not os.geteuid() else ()
)


@pytest.mark.skipif(bool(WITHOUT_POWERS) and shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_devices_without_permission_and_without_sockets(nvml_library: Path, tmp_path: Path) -> None:
    """All of the GPU as nobody's, no error in it, and sentences on the landing page."""
    scenario = t4(tmp_path / "scenario").save()
    with tempfile.TemporaryDirectory() as folder:  # paths of sockets are short
        root = Root(Path(folder))
        root.process(4000, "face-detection", "ab" * 32)
        (root.folder / "proc/4000/environ").chmod(0)
        (root.folder / "var/run").mkdir(parents=True)
        flags = (*QUICK, f"--path.rootfs={root.folder}")
        with Socket(root.folder / "var/run/docker.sock") as docker:
            Path(docker.path).chmod(0)
            with exporting(tmp_path, scenario.environment(nvml_library), *flags, prefix=WITHOUT_POWERS) as exporter:
                page = exporter.until_page(lambda page: page.by("service", "nvidia_gpu_utilization").get("python"))
                assert page.by("service", "nvidia_gpu_utilization") == {"python": 60, "_unattributed": 0}
                assert page.value("nvidia_gpu_temperature_celsius") == 55
                assert exporter.ready()[0] == 200
                exporter.until_page(
                    lambda page: page.by("source", "nvidia_gpu_exporter_attribution_up").get("docker") == 0
                )
                landing = httpx.get(exporter.url).text
    missing = re.findall(r"<th>Missing</th><td>(.*?)</td>", landing)
    socket = f"{folder}/var/run/docker.sock"
    assert missing[:2] == [
        "The environment of processes may not be read (root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, may): "
        "INFERMETER_SERVICE and OTEL_SERVICE_NAME are not seen.",
        f"The socket {socket} cannot be used ({socket}: Permission denied); it gives names of containers, Compose "
        "services and labels.",
    ]
    assert all(sentence.endswith(", and is not there.") for sentence in missing[2:])
