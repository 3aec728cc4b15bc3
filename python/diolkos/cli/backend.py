# SPDX-License-Identifier: Apache-2.0
"""`diolkos backend`: the driver domain of this host.

Usually nobody types this: the first endpoint starts a backend with `--ready-fd`, which makes it a
daemon of its own session that reports on that descriptor, and closes it:

=========  =============================================
``+``      clients can connect
``=text``  another backend has the runtime directory
``!text``  it cannot start, and why
=========  =============================================

A report is a line; what Python itself says on stderr may come before it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diolkos.cli.codes import CliError, ExitCode

if TYPE_CHECKING:
    from diolkos.backend.policy import Policy
    from diolkos.backend.server import Options

# Seconds without endpoints after which a backend that an endpoint started leaves.
IDLE_EXIT_S = 60.0


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "backend",
        help="introduce endpoints to each other (started by the first endpoint if need be)",
        description="Introduce endpoints to each other, by policy and within limits.",
    )
    parser.add_argument(
        "--runtime-dir",
        metavar="DIR",
        help="where to listen (default: $DIOLKOS_RUNTIME_DIR, else $XDG_RUNTIME_DIR/diolkos, "
        "else /tmp/diolkos-UID)",
    )
    parser.add_argument("--policy", metavar="FILE", type=Path, help="who may talk to whom (TOML)")
    parser.add_argument("--group", metavar="GROUP", help="let the members of this group connect")
    parser.add_argument(
        "--idle-exit",
        metavar="SECONDS",
        type=_seconds,
        help="leave after so long without endpoints; 0 is never "
        f"(default: 0, with --ready-fd {IDLE_EXIT_S:g})",
    )
    parser.add_argument(
        "--ready-fd",
        metavar="N",
        type=_descriptor,
        help="become a daemon, and report on this descriptor when clients can connect",
    )
    parser.add_argument("--json", action="store_true", help="copy the log to stdout")


def run(args: argparse.Namespace) -> ExitCode:
    """Runs a backend until it is stopped or idle."""
    # Before a daemon changes its working directory.
    if args.runtime_dir is not None:
        args.runtime_dir = os.path.abspath(args.runtime_dir)
    if args.policy is not None:
        args.policy = args.policy.absolute()
    if args.ready_fd is None:
        return _serve(args)
    _become_daemon()
    try:
        return _serve(args)
    except CliError as error:
        mark = "=" if error.code is ExitCode.ALREADY_RUNNING else "!"
        hint = f" ({error.hint})" if error.hint else ""
        _report(args.ready_fd, f"{mark}{error}{hint}")
        return error.code
    except Exception as bug:
        # There is no terminal to print a traceback on, only whoever waits for the report.
        _report(args.ready_fd, f"!{type(bug).__name__}: {bug}")
        raise


def _serve(args: argparse.Namespace) -> ExitCode:
    from diolkos.backend import server

    try:
        why = server.run(_options(args))
    except server.AlreadyRunning as error:
        raise CliError(str(error), error.hint, ExitCode.ALREADY_RUNNING) from None
    except server.StartError as error:
        raise CliError(str(error), error.hint) from None
    if args.ready_fd is None:
        print(f"backend: ended: {why}", file=sys.stderr)
    return ExitCode.INTERRUPTED if why == "SIGINT" else ExitCode.OK


def _options(args: argparse.Namespace) -> Options:
    from diolkos.backend import paths
    from diolkos.backend.server import Options

    idle_exit_s = args.idle_exit
    if idle_exit_s is None:
        idle_exit_s = IDLE_EXIT_S if args.ready_fd is not None else 0.0

    def ready(address: str) -> None:
        if args.ready_fd is None:
            print(f"backend: listening on {address}, Ctrl-C ends it", file=sys.stderr)
        else:
            _report(args.ready_fd, "+")

    def copy(line: str) -> None:
        print(line, flush=True)

    return Options(
        directory=paths.choose(args.runtime_dir),
        policy=_policy(args.policy),
        group=_group(args.group),
        idle_exit_s=idle_exit_s,
        ready=ready,
        log_copy=copy if args.json else None,
    )


def _policy(path: Path | None) -> Policy:
    from diolkos.backend import policy

    if path is None:
        return policy.Policy()
    try:
        return policy.load(path)
    except policy.PolicyError as error:
        raise CliError(str(error), "docs/reference/policy.md describes the file") from None


def _group(name: str | None) -> int | None:
    """The number of a group given by name or number."""
    import grp

    if name is None:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise CliError(f"there is no group {name!r}") from None


def _become_daemon() -> None:
    """Forks into a session of its own. The process that was started ends here and is reaped at
    once, so whoever started it never has the backend itself among its children."""
    if os.fork() > 0:
        os._exit(ExitCode.OK)
    os.setsid()
    os.chdir("/")


def _report(descriptor: int, text: str) -> None:
    """Tells who started us, and lets go of every descriptor that came from there."""
    # Whoever started us may not wait; the backend serves others all the same.
    with contextlib.suppress(OSError):
        os.write(descriptor, " ".join(text.split()).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for each in {0, 1, 2, descriptor}:
        os.dup2(nowhere, each)
    if descriptor > 2:
        os.close(descriptor)
    os.close(nowhere)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a time in seconds")
    return value


def _descriptor(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a descriptor")
    return value
