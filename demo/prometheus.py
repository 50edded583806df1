"""A real Prometheus that scrapes the demo and judges it by our rules every second; it forgets all at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from demo.child import Child
from demo.services import ADDRESS, any_free_port, is_free

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT = 9090
START_SECONDS = 30.0
ADVICE = "check it with `prometheus --version`, or leave it out with --no-prometheus."
HOW_TO_GET_IT = (
    "Prometheus is not installed; to query the metrics too: apt-get install --no-install-recommends prometheus "
    "(or put the binary from https://prometheus.io/download/ on PATH)."
)

QUERIES = (
    "sum by (service, model) (rate(inferences_total[30s]))",
    "histogram_quantile(0.95, sum by (service, le) (rate(inference_duration_bucket[30s])))",
    "1000 * sum by (service) (rate(inference_cost_sum[30s])) / sum by (service) (rate(inference_cost_count[30s]))",
    'sum by (service) (nvidia_gpu_utilization{service=~"face-.*|object-.*"})',
)
"""To paste into its page: inferences a second, 95th percentile of their seconds, USD for a thousand of them, percent of
a GPU that each service uses."""


def free_port(wanted: int) -> int:
    """Return the wanted port if nobody listens there, otherwise a free one."""
    return wanted if wanted and is_free(wanted) else any_free_port()


def configuration(targets: Sequence[str]) -> str:
    """Return prometheus.yml. No target has a label `service`: it would displace the one the targets export."""
    # JSON is YAML.
    rules = json.dumps([str(Path(__file__).parents[1] / "rules" / "*.rules.yml")])
    return f"""\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: {rules}
scrape_configs:
  - job_name: infermeter-demo
    static_configs:
      - targets: {json.dumps(list(targets))}
"""


def start(program: str, targets: Sequence[str], folder: Path, port: int) -> Child:
    """Start Prometheus on the port of the loopback address, with all its files in `folder`."""
    config = folder / "prometheus.yml"
    config.write_text(configuration(targets))
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={ADDRESS}:{port}",
        "--log.level=warn",
    ]
    return Child("Prometheus", command, folder / "prometheus.log")
