# SPDX-License-Identifier: Apache-2.0
"""`diolkos stream`: how many bytes a second cross, one way."""

from __future__ import annotations

import argparse
from typing import Any

from diolkos.bench import options
from diolkos.cli.codes import ExitCode

_DESCRIPTION = """\
Send long messages one way, a window at a time, each window acknowledged by an empty message, and
report bytes a second. Turns, checks and ratios are those of `diolkos pingpong`."""


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "stream",
        help="measure bandwidth between two processes, against rivals",
        description=_DESCRIPTION,
    )
    options.add_options(parser, sizes="64K,1M")
    options.add_window_option(parser, default=16)


def run(args: argparse.Namespace) -> ExitCode:
    """Measures and prints."""
    from diolkos.bench import command
    from diolkos.bench.control import Operation

    return command.run(args, Operation.STREAM)
