"""The command `infermeter`."""

import argparse
import sys
from collections.abc import Sequence

import infermeter
from infermeter import ConfigError

_MISTAKE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process; gives the exit code, which is 2 for a mistake in it."""
    given = list(sys.argv[1:] if argv is None else argv)
    # What follows the first -- is not ours, whatever it looks like.
    end = given.index("--") if "--" in given else len(given)
    parser = _parser()
    options = parser.parse_args(given[:end])
    command = [*options.command, *given[end + 1 :]]
    if not command:
        parser.error("run needs a command, for example: infermeter run -- python service.py")
    from infermeter_exporters.run import run  # noqa: PLC0415  (each command imports what it needs)

    try:
        return run(
            command,
            service=options.service,
            port=options.port,
            addr=options.addr,
            only=_names(options.only),
            exclude=_names(options.exclude),
        )
    except ConfigError as error:
        print(f"infermeter: {error}", file=sys.stderr)  # noqa: T201
        return _MISTAKE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("infermeter", description="Makes AI services observable in Prometheus.")
    parser.add_argument("--version", action="version", version=f"infermeter {infermeter.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        usage="infermeter run [options] -- COMMAND...",
        help="start a service as it is, and serve the metrics of the libraries that it uses",
        description="Starts a service as it is, and serves the metrics of the libraries that it uses. All processes "
        "that the service starts are watched: gunicorn, uvicorn, torchrun, python -m.",
    )
    run.add_argument("--service", default="", help="the label service; by default $INFERMETER_SERVICE")
    run.add_argument("--port", type=int, default=8002, help="port of /metrics (default: 8002; 0: a free one)")
    run.add_argument("--addr", default="0.0.0.0", help="address of /metrics (default: every one of this host)")  # noqa: S104
    run.add_argument("--only", action="append", metavar="NAME,...", help="watch these libraries and no others")
    run.add_argument("--except", action="append", dest="exclude", metavar="NAME,...", help="do not watch these")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what starts the service")
    return parser


def _names(given: list[str] | None) -> list[str]:
    return [name.strip() for names in given or () for name in names.split(",") if name.strip()]
