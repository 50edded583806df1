"""What all benchmarks share: their options, and the promises that a run keeps or not."""

import argparse
import json
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_SIGNS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "<": operator.lt}

# What is promised of which measured value: its name, the value, a sign, a bound.
Promise = tuple[str, float, str, float]


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options of a benchmark that makes so many rounds unless told otherwise."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--json", metavar="FILE")
    made.add_argument("--check", action="store_true", help="exit 1 if a promise falls short")
    return made


def conclude(
    options: argparse.Namespace, figures: dict[str, Any], promises: Iterable[Promise], short: Iterable[str] = ()
) -> int:
    """Write `figures` where `--json` says, print what falls short; gives the exit code.

    Args:
        options: what was parsed.
        figures: what was measured.
        promises: what was promised of it.
        short: what else is not as it should be.
    """
    lines = [
        f"{name}: promised {sign} {bound}, measured {value:.2f}"
        for name, value, sign, bound in promises
        if not _SIGNS[sign](value, bound)
    ]
    lines += short
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    for line in lines:
        print("SHORT", line)
    return 1 if options.check and lines else 0
