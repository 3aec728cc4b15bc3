# SPDX-License-Identifier: Apache-2.0
"""The command `diolkos`: one module per command, imported when it is used.

A command is a module with two functions::

    prepare_parser(subparsers) -> None     adds its own parser
    run(args) -> int | None                does the work; the number is the exit code

What is heavy to import is imported in `run`, so that `diolkos --help` is quick. Data goes to
stdout, talk to stderr. A command that cannot go on raises `CliError`; Ctrl-C ends any of them with
exit code 130 and without a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from diolkos.cli.codes import CliError, ExitCode

__all__ = ["COMMANDS", "CliError", "ExitCode", "main"]

# The order in which `--help` shows them.
COMMANDS = {
    "pingpong": "diolkos.cli.pingpong",
    "stream": "diolkos.cli.stream",
    "rate": "diolkos.cli.rate",
    "rdma": "diolkos.cli.rdma",
    "loan": "diolkos.cli.loan",
    "info": "diolkos.cli.info",
    "mx": "diolkos.cli.mx",
    "backend": "diolkos.cli.backend",
}

_DESCRIPTION = "Messages between isolated programs, through memory granted for them."
_EPILOG = "Data goes to stdout, talk to stderr. `diolkos COMMAND --help` says more."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = _parser(words).parse_args(words)
        code = importlib.import_module(COMMANDS[args.command]).run(args)
        sys.stdout.flush()
        return int(code or ExitCode.OK)
    except CliError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; nothing that is still buffered has a place to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """The parser. Only the command that is meant is imported; for help, all of them."""
    parser = argparse.ArgumentParser(prog="diolkos", description=_DESCRIPTION, epilog=_EPILOG)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    meant = [word for word in words[:1] if word in COMMANDS] or COMMANDS
    for name in meant:
        importlib.import_module(COMMANDS[name]).prepare_parser(subparsers)
    return parser
