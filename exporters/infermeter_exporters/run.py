"""`infermeter run`: starts a service, has what it uses watched, and serves its metrics for as long as it runs.

The service and all processes that it starts record in a folder; this process, which records nothing, serves the page
of that folder. It passes signals on to the service and ends as the service ends. As process 1 of a container it also
buries the orphans.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infermeter_exporters.errors import ConfigError

if TYPE_CHECKING:
    from infermeter.instruments import Integration

# What services are told by signals, for example gunicorn: reload, reopen logs, one worker more, one less, stop.
_PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGCONT,
}
# As shells tell that a command was not found, could not be run, or was ended by a signal.
_NOT_FOUND, _NOT_RUN, _SIGNALLED = 127, 126, 128


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.usage = "infermeter run [options] -- COMMAND..."
    parser.description = (
        "Starts a service as it is, and serves the metrics of the libraries that it uses. All processes that the "
        "service starts are watched: gunicorn, uvicorn, torchrun, python -m."
    )
    parser.add_argument("--service", default="", help="the label service; by default $INFERMETER_SERVICE")
    parser.add_argument("--port", type=int, default=8002, help="port of /metrics (default: 8002; 0: a free one)")
    parser.add_argument("--addr", default="0.0.0.0", help="address of /metrics (default: every one of this host)")  # noqa: S104
    parser.add_argument("--only", action="append", metavar="NAME,...", help="watch these libraries and no others")
    parser.add_argument("--except", action="append", dest="exclude", metavar="NAME,...", help="do not watch these")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what starts the service")


def main(parser: argparse.ArgumentParser, options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run the command that follows the options."""
    command = [*options.command, *rest]
    if not command:
        parser.error("run needs a command, for example: infermeter run -- python service.py")
    return run(
        command,
        service=options.service,
        port=options.port,
        addr=options.addr,
        only=_names(options.only),
        exclude=_names(options.exclude),
    )


def _names(given: list[str] | None) -> list[str]:
    return [name.strip() for names in given or () for name in names.split(",") if name.strip()]


def run(
    command: Sequence[str],
    *,
    service: str = "",
    port: int = 8002,
    addr: str = "0.0.0.0",  # noqa: S104  (scrapers come from other hosts)
    only: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> int:
    """Run `command` until it ends.

    Args:
        command: program and arguments.
        service: the label `service`, by default what the environment says.
        port: of the page of metrics; 0 takes a free one.
        addr: address of that page.
        only: names of the integrations to use, by default all.
        exclude: names of those that are left out.

    Returns:
        the exit code of the command: 128 and the number of the signal that ended it, 127 if there is no such program,
        126 if it cannot be run.

    Raises:
        ConfigError: a name of no integration, a port that is in use, a folder that cannot be used. Nothing is started.
    """
    # Before the first thread, and numpy starts some: whoever begins with these blocked leaves them to us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from infermeter import ConfigError as Refused  # noqa: PLC0415
    from infermeter import Recorder  # noqa: PLC0415
    from infermeter.config import environment_multiprocess_dir  # noqa: PLC0415
    from infermeter.instruments import chosen  # noqa: PLC0415

    try:
        plan = [(name, _libraries(entry.load())) for name, entry in chosen(only, exclude, "run").items()]
        with tempfile.TemporaryDirectory(prefix="infermeter-", ignore_cleanup_errors=True) as folder:
            (Path(folder) / "watch").write_text(
                "".join(f"{name} {library}\n" for name, libraries in plan for library in libraries), encoding="utf-8"
            )
            shared = environment_multiprocess_dir() or Path(folder) / "processes"
            recorder = Recorder(registry=CollectorRegistry(), multiprocess_dir=shared)
            if service:
                recorder.configure(service=service)
            with recorder.serve(port, addr) as server:
                environment = _environment(folder, shared, recorder.service())
                _say(f"metrics of {recorder.service()} are on http://{addr}:{server.port}/metrics")
                return _started(command, environment, before)
    except Refused as error:
        raise ConfigError(str(error)) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _libraries(integration: "Integration") -> list[str]:
    return sorted({module.split(".")[0] for module in integration.MODULES})


def _environment(folder: str, shared: Path, service: str) -> dict[str, str]:
    """What the service and its children find in their environment."""
    import infermeter  # noqa: PLC0415  (see run)
    from infermeter.config import RUN_VARIABLE  # noqa: PLC0415

    bootstrap = str(Path(infermeter.__file__).parent / "bootstrap")
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != bootstrap]
    return os.environ | {
        RUN_VARIABLE: folder,
        "INFERMETER_MULTIPROC_DIR": str(shared),
        "INFERMETER_SERVICE": service,
        "PYTHONPATH": os.pathsep.join([bootstrap, *paths]),
    }


def _started(command: Sequence[str], environment: dict[str, str], mask: Iterable[int]) -> int:
    """Run `command` with the signals blocked that are in `mask`."""
    # Python ignores these two; a service that is no Python wants to be told.
    ours = [one for one in (signal.SIGPIPE, signal.SIGXFSZ) if signal.getsignal(one) is signal.SIG_IGN]
    try:
        child = os.posix_spawnp(command[0], list(command), environment, setsigmask=mask, setsigdef=ours)
    except OSError as error:
        _say(f"cannot run {command[0]!r}: {error.strerror}")
        found = error.errno is not None and shutil.which(command[0], os.F_OK) is not None
        return _NOT_RUN if found or isinstance(error, PermissionError) else _NOT_FOUND
    while True:
        # A thread that something started before us may have taken the word of an end.
        told = signal.sigtimedwait({*_PASSED_ON, signal.SIGCHLD}, 1)
        if told is None or told.si_signo == signal.SIGCHLD:
            code = _buried(child)
            if code is not None:
                return code if code >= 0 else _SIGNALLED - code
        elif told.si_pid > 0:  # what a terminal says, it says to the service as well
            os.kill(child, told.si_signo)


def _buried(child: int) -> int | None:
    """The exit code of `child` if it has ended; orphans that have are gone then too."""
    ended = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)


def _say(text: str) -> None:
    print(f"infermeter: {text}", file=sys.stderr, flush=True)  # noqa: T201
