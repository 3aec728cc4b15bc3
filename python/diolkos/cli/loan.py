# SPDX-License-Identifier: Apache-2.0
"""`diolkos loan`: how long it takes to let another process read memory where it lies."""

from __future__ import annotations

import argparse
from typing import Any

from diolkos.bench import options
from diolkos.cli.codes import ExitCode

_DESCRIPTION = """\
Lend memory to another process, which reads a word of it, lets go of it and lends memory of its own
back; report half of the round trip. Every size is also compared with the smallest one, in slices
that follow each other. Turns, checks and ratios are those of `diolkos pingpong`."""

_EPILOG = """\
examples:
  diolkos loan --against iceoryx2,shared_memory
  diolkos loan --sizes 8,64K,64M --against iceoryx2 --json"""


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "loan",
        help="measure loans of memory between two processes, against rivals",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_options(parser, sizes="8,64M", what="loans", faces=("python",))


def run(args: argparse.Namespace) -> ExitCode:
    """Measures and prints."""
    from diolkos.bench import command
    from diolkos.bench.control import Operation

    return command.run(args, Operation.LOAN)
