"""The command `infermeter`."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from infermeter_exporters.errors import ConfigError

_MISTAKE = 2
# Name, module and what it does. A module is imported when its command is given: a watcher has to be light.
_COMMANDS = {
    "run": (
        "infermeter_exporters.run",
        "start a service as it is, and serve the metrics of the libraries that it uses",
    ),
    "gpu-exporter": (
        "infermeter_exporters.gpu.exporter",
        "serve the metrics of GPUs, and of the services that use them",
    ),
    "drift-exporter": (
        "infermeter_exporters.drift.exporter",
        "find drift in the histograms of a Prometheus, and in samples that are sent",
    ),
    "drift": (
        "infermeter_exporters.drift.command",
        "make what drift is found with: rules for Prometheus",
    ),
}

# What has to be installed besides, by command.
_EXTRAS = {"gpu-exporter": "gpu", "drift-exporter": "drift", "drift": "drift"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process; gives the exit code, which is 2 for a mistake in it.

    Each module of a command has `add_flags(parser)`, and `main(parser, options, rest)`, where `rest` is what follows
    the first `--`.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    # What follows the first -- is not ours, whatever it looks like.
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser("infermeter", description="Makes AI services observable in Prometheus.")
    parser.add_argument("--version", action="store_true", help="say which release this is")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND")
    chosen = next((one for one in given[:end] if not one.startswith("-")), None)
    module = None
    for name, (path, text) in _COMMANDS.items():
        below = commands.add_parser(name, help=text)
        if name == chosen:
            try:
                module = import_module(path)
                module.add_flags(below)
            except ModuleNotFoundError as error:
                if name not in _EXTRAS:
                    raise
                needed = (
                    f"{name} needs {(error.name or '').partition('.')[0]}: pip install 'infermeter[{_EXTRAS[name]}]'"
                )
                print(f"infermeter: {needed}", file=sys.stderr)  # noqa: T201
                return _MISTAKE
    options = parser.parse_args(given[:end])
    if options.version:
        from importlib.metadata import version  # noqa: PLC0415  (it takes as long as all the rest)

        print(f"infermeter {version('infermeter')}")  # noqa: T201
        return 0
    if chosen is None or module is None:
        parser.error("a command is required: " + ", ".join(_COMMANDS))
    try:
        return int(module.main(commands.choices[chosen], options, given[end + 1 :]))
    except ConfigError as error:
        print(f"infermeter: {error}", file=sys.stderr)  # noqa: T201
        return _MISTAKE
