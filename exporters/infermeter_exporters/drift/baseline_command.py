"""`infermeter drift baseline`: references that have a name, made of a good time, or of the data a model learnt from."""

import argparse
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from infermeter_exporters.drift import baselines
from infermeter_exporters.drift.config import NAME
from infermeter_exporters.drift.evaluation import Key
from infermeter_exporters.drift.exporter import add_source_flags, load, source_settings
from infermeter_exporters.drift.files import columns, read
from infermeter_exporters.drift.layout import Histogram, cut_anew
from infermeter_exporters.drift.samples import SamplesError, Times, Values
from infermeter_exporters.drift.setup import Setup
from infermeter_exporters.drift.source import SourceError, parts
from infermeter_exporters.drift.store import StoreError
from infermeter_exporters.drift.watch import BUILT_IN
from infermeter_exporters.errors import ConfigError
from infermeter_exporters.yaml_file import seconds


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    below = parser.add_subparsers(dest="baseline", metavar="WHAT", required=True)
    made = below.add_parser("create", help="keep what a source has of some time, or a file, as a reference")
    add_source_flags(made)
    made.add_argument("--source", default="", metavar="NAME", help="of the configuration (default: the first one)")
    made.add_argument("--name", default=baselines.FROZEN, help="of the reference (default: %(default)s)")
    made.add_argument("--last", default="", metavar="TIME", help="the time until now (default: 24h, or what is kept)")
    made.add_argument("--from", dest="begin", default="", metavar="TIME", help="or the time from then, as of RFC 3339,")
    made.add_argument("--to", dest="end", default="", metavar="TIME", help="to then (default: now)")
    made.add_argument("--path", default="", metavar="FILE", help="or a file of Parquet or CSV, with all of its rows")
    for name in ("service", "model", "feature"):
        made.add_argument(f"--{name}", default="", help=f"only of this {name}; with --path, of rows that say none")
    listed = below.add_parser("list", help="say which references there are")
    add_source_flags(listed)
    deleted = below.add_parser("delete", help="forget a version of a reference")
    add_source_flags(deleted)
    deleted.add_argument("--source", required=True, metavar="NAME")
    deleted.add_argument("--name", default=baselines.FROZEN)
    # Under its own name it would be taken for the flag of the whole command.
    deleted.add_argument("--version", dest="number", type=int, required=True, metavar="N")


def main(options: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        ConfigError: it cannot be done.
    """
    setup = Setup(load(source_settings(options)))
    try:
        return {"create": _create, "list": _list, "delete": _delete}[options.baseline](setup, options)
    except (SourceError, SamplesError, StoreError) as error:
        raise ConfigError(f"drift baseline: {error}") from error
    finally:
        setup.store.close()


def _create(setup: Setup, options: argparse.Namespace) -> int:
    if options.name in BUILT_IN:
        raise ConfigError(f"--name is {options.name!r}, which is a baseline that needs not be made")
    if not NAME.fullmatch(options.name):
        raise ConfigError(f"--name is {options.name!r}, expected letters, digits, '_', '.' and '-'")
    names = [one.name for one in setup.sources]
    source = options.source or names[0]
    if source not in names:
        raise ConfigError(f"--source is {source!r}, expected one of {', '.join(names)}")
    if sum(map(bool, (options.last, options.begin, options.path))) > 1:
        raise ConfigError("more than one of --last, --from and --path is given, expected one")
    if options.path and options.end:
        raise ConfigError("--to is given for a --path, of which all rows are taken")
    now = time.time()
    if options.path:
        found = _of_file(options, now)
        written = Path(options.path).stat().st_mtime
        period, varies = (written, written), {}
    else:
        period = _period(options, now, setup.slots[source][1] if source in setup.slots else math.inf)
        asked = setup.sources[names.index(source)]
        counted = asked.counted(*period)
        found = {key: cut_anew(one) for key, one in counted.items() if one.samples and _wanted(key, options)}
        varies = baselines.dispersions(found, parts(asked, *period))
    if not found:
        raise ConfigError("drift baseline: nothing was observed of which a reference could be made")
    with setup.store.transaction() as transaction:
        version = baselines.write(transaction, source, options.name, found, period, now, varies)
    smallest = min(one.samples for one in found.values())
    print(f"{options.name} version {version} of {source}: {len(found)} features, {smallest:.0f} observations or more")  # noqa: T201
    return 0


def _of_file(options: argparse.Namespace, now: float) -> Mapping[Key, Histogram]:
    pieces: dict[Key, list[Values]] = {}
    times = Times(now, -np.inf, np.inf)
    try:
        known = columns(options.path)
        # What a column says is not replaced, but chosen by.
        service, model = ("" if name in known else getattr(options, name) for name in ("service", "model"))
        for part in read(options.path, times, service, model, by_row=False):
            for column in part.columns:
                if _wanted(column.key, options):
                    pieces.setdefault(column.key, []).append(column.values)
    except SamplesError as error:
        raise ConfigError(f"--path is {options.path!r}, of which no reference can be made: {error}") from error
    found = {}
    for key, several in pieces.items():
        numbers = [part for part in several if isinstance(part, np.ndarray)]
        values: Values = np.concatenate(numbers) if numbers else [word for part in several for word in part]
        try:
            layout = baselines.fixed(values)
        except ValueError:
            continue  # nothing was observed of it, as of features of other models in the same table
        found[key] = Histogram(layout, layout.counted(values))
    return found


def _wanted(key: Key, options: argparse.Namespace) -> bool:
    return all(getattr(options, name) in {"", getattr(key, name)} for name in Key._fields)


def _period(options: argparse.Namespace, now: float, kept: float) -> tuple[float, float]:
    end = _moment(options.end, "--to") if options.end else now
    usual = min(seconds("24h", ""), kept)
    last = seconds(options.last, "--last") if options.last else usual
    begin = _moment(options.begin, "--from") if options.begin else end - last
    if not begin < end <= now:
        raise ConfigError("--from and --to are no time that has passed, expected one after the other")
    if now - begin > kept:
        raise ConfigError(f"the time begins {now - begin:.0f} s ago, and what was sent is kept for {kept:.0f} s")
    return begin, end


def _moment(text: str, flag: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{flag} is {text!r}, expected a time, for example 2026-01-31T12:00:00Z") from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _list(setup: Setup, options: argparse.Namespace) -> int:  # noqa: ARG001  (as the others)
    with setup.store.transaction() as transaction:
        rows = baselines.listed(transaction)
    for source, name, version, began, ended, number in rows:
        times = " to ".join(f"{datetime.fromtimestamp(one, UTC):%Y-%m-%dT%H:%M:%SZ}" for one in (began, ended))
        print(f"{source}\t{name}\tversion {version}\t{number} features\t{times}")  # noqa: T201
    return 0


def _delete(setup: Setup, options: argparse.Namespace) -> int:
    with setup.store.transaction() as transaction:
        number = baselines.delete(transaction, options.source, options.name, options.number)
    if not number:
        raise ConfigError(f"there is no version {options.number} of {options.name} of {options.source}")
    print(f"{options.name} version {options.number} of {options.source}: {number} features are forgotten")  # noqa: T201
    return 0
