# SPDX-License-Identifier: Apache-2.0
"""`diolkos rate`: how many short messages a second cross, one way."""

from __future__ import annotations

import argparse
from typing import Any

from diolkos.bench import options
from diolkos.cli.codes import ExitCode

_DESCRIPTION = """\
Send short messages one way, a window at a time, each window acknowledged by an empty message, and
report messages a second. Turns, checks and ratios are those of `diolkos pingpong`."""


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "rate",
        help="measure messages a second between two processes, against rivals",
        description=_DESCRIPTION,
    )
    options.add_options(parser, sizes="8")
    options.add_window_option(parser, default=64)


def run(args: argparse.Namespace) -> ExitCode:
    """Measures and prints."""
    from diolkos.bench import command
    from diolkos.bench.control import Operation

    return command.run(args, Operation.RATE)
