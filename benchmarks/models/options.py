"""The command line of `benchmarks.gpu_benchmark`."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks.models.cases import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "gpu_benchmark"


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print it and end with code 2."""
        print(f"{NAME}: {message}", file=sys.stderr)
        sys.exit(2)


def parsed(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """What the command line says."""
    parser = Parser(
        prog=f"python -m benchmarks.{NAME}",
        description=description,
        epilog="Lists are separated by commas, and every combination is a case. Exit code: 0; 1 if a case failed or "
        "became worse than in --compare; 2 for a mistake, before anything is measured.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="file.onnx, file.pt, name.yaml (ultralytics) or package.module:factory (torch)",
    )
    cases = parser.add_argument_group("cases")
    cases.add_argument(
        "--providers",
        type=_list(str),
        help="cpu, cuda, or as the library calls it (default: CUDA where it is, else CPU)",
    )
    cases.add_argument(
        "--precisions", type=_list(_precision), default=["fp32"], help=f"of {', '.join(PRECISIONS)} (default fp32)"
    )
    cases.add_argument("--batch-sizes", type=_list(_whole(1)), default=[1], help="items in a call (default 1)")
    cases.add_argument(
        "--input-sizes", type=_list(_size), help="pixels, 640 or 480x640 (height x width; default: what the model says)"
    )
    cases.add_argument(
        "--input-shape", type=_list(_whole(1), distinct=False), help="of one item without the batch, such as 3,224,224"
    )
    cases.add_argument(
        "--threads", type=_list(_whole(0)), default=[0], help="of one call; 0 leaves them to the library (default)"
    )
    cases.add_argument("--streams", type=_list(_whole(1)), default=[1], help="callers at the same time (default 1)")
    timing = parser.add_argument_group("timing")
    timing.add_argument("--seconds", type=_above_zero, default=3.0, help="for which a case calls in all (default 3)")
    timing.add_argument(
        "--rounds",
        type=_whole(1),
        default=10,
        help="turns in which a case has them, between those of the others (default 10)",
    )
    timing.add_argument("--warm-up", type=_whole(0), default=3, help="calls before those (default 3)")
    money = parser.add_argument_group("energy and money")
    money.add_argument(
        "--gpu-metrics", metavar="URL", help="page of the GPU exporter, such as http://127.0.0.1:9835/metrics"
    )
    money.add_argument("--gpu", type=_list(str), default=[], help="values of its label gpu that count (default: all)")
    money.add_argument(
        "--energy-seconds",
        type=_above_zero,
        default=10.0,
        help="for which a case calls while energy is read (default 10)",
    )
    money.add_argument("--usd-per-hour", type=_number, help="rent of the machine")
    money.add_argument("--usd-per-kwh", type=_number, help="price of energy")
    quality = parser.add_argument_group("accuracy")
    quality.add_argument(
        "--labelled",
        metavar="FOLDER",
        help="class/picture.png, or images/picture.png with labels/picture.txt as YOLO writes them",
    )
    quality.add_argument(
        "--confidence",
        type=_number,
        default=0.25,
        help="from which a detection counts in precision and recall (default 0.25)",
    )
    quality.add_argument(
        "--mean",
        type=_list(float, distinct=False),
        default=[0.0],
        help="taken from values of 0 to 1, for each channel (default 0)",
    )
    quality.add_argument(
        "--deviation",
        type=_list(float, distinct=False),
        default=[1.0],
        help="by which they are divided then (default 1)",
    )
    output = parser.add_argument_group("output")
    for name, what in (
        ("json", "everything"),
        ("csv", "a line for each case"),
        ("markdown", "the table"),
        ("plot", "a picture, PNG"),
    ):
        output.add_argument(f"--{name}", metavar="FILE", help=what)
    output.add_argument("--compare", metavar="FILE", help="an earlier --json: print what changed")
    output.add_argument(
        "--threshold", type=_share, default=0.1, help="from which a loss is a regression, such as 10%% (default)"
    )
    output.add_argument("--any-machine", action="store_true", help="compare also with another kind of machine")
    options = parser.parse_args(argv)
    if options.usd_per_kwh is not None and not options.gpu_metrics:
        parser.error("--usd-per-kwh needs --gpu-metrics, without which nobody knows the energy")
    if not all(options.deviation):
        parser.error("argument --deviation: nothing can be divided by 0")
    return options


def _list(each: Callable[[str], Any], *, distinct: bool = True) -> Callable[[str], list[Any]]:
    def split(text: str) -> list[Any]:
        found = [each(part.strip()) for part in text.split(",") if part.strip()]
        if not found:
            raise argparse.ArgumentTypeError("expected something")
        return list(dict.fromkeys(found)) if distinct else found

    return split


def _whole(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return whole


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return value


def _above_zero(text: str) -> float:
    if not (value := _number(text)):
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return value


def _share(text: str) -> float:
    """A share, written as 0.1 or 10%."""
    return _number(text[:-1]) / 100 if text.endswith("%") else _number(text)


def _precision(text: str) -> str:
    if text not in PRECISIONS:
        raise argparse.ArgumentTypeError(f"{text!r} is not among {', '.join(PRECISIONS)}")
    return text


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _whole(1)(height), _whole(1)(width or height)
