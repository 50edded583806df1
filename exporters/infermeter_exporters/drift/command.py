"""`infermeter drift`: what is made once, before or without an exporter."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from infermeter.buckets import CONFIDENCE
from infermeter_exporters.drift.decision import Gates
from infermeter_exporters.drift.promql import NOTICE, Histogram, rules
from infermeter_exporters.drift.promql_check import check
from infermeter_exporters.errors import ConfigError

_BASELINE = "infermeter_exporters.drift.baseline_command"  # which imports the exporter and all that it needs


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.description = "Makes what drift is found with."
    below = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    made = below.add_parser("rules", help="rules for Prometheus, which then finds drift by itself")
    made.add_argument("--metric", default="detection_confidence", help="a classic histogram (default: %(default)s)")
    made.add_argument(
        "--le", default=",".join(map(str, CONFIDENCE)), metavar="BOUND,...", help="its bounds (default: %(default)s)"
    )
    made.add_argument(
        "--by", default="service,model", metavar="LABEL,...", help="what drifts by itself (default: %(default)s)"
    )
    made.add_argument("--window", default="1h", metavar="TIME", help="what is compared (default: %(default)s)")
    made.add_argument("--match", default="", metavar="MATCHERS", help='further matchers, for example job="vision"')
    made.add_argument(
        "--weeks", type=int, default=4, metavar="N", help="weeks whose same hours are the reference (default: 4)"
    )
    made.add_argument(
        "--effect", type=float, default=Gates().effect, metavar="PSI", help="the smallest drift (default: %(default)s)"
    )
    made.add_argument(
        "--runbook-url", default="", metavar="URL", help="where the alert sends who gets it (default: nowhere)"
    )
    made.add_argument(
        "--test",
        default="",
        metavar="RULES",
        help="write the test of these rules instead, for the file RULES beside it",
    )

    kept = below.add_parser("baseline", help="references that have a name, for the exporter")
    import_module(_BASELINE).add_flags(kept)


def main(parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write to standard output."""
    if rest:
        parser.error(f"drift takes no {rest[0]!r}")
    if options.what == "baseline":
        return int(import_module(_BASELINE).main(options))
    try:
        import yaml  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ConfigError("drift rules needs PyYAML: pip install 'infermeter[drift]'") from error
    try:
        histogram = Histogram(
            options.metric,
            [float(edge) for edge in options.le.split(",")],
            [name.strip() for name in options.by.split(",") if name.strip()],
            options.window,
            options.match,
            options.weeks,
        )
        gates = Gates(effect=options.effect)
        notice = NOTICE._replace(runbook=options.runbook_url)
        found = check(histogram, options.test, gates, notice) if options.test else rules(histogram, gates, notice)
    except ValueError as error:
        raise ConfigError(f"drift rules: {error}") from error
    yaml.safe_dump(found, sys.stdout, sort_keys=False, width=1 << 20)
    return 0
