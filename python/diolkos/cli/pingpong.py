# SPDX-License-Identifier: Apache-2.0
"""`diolkos pingpong`: how long a message takes, against whom you like.

Two processes, pinned to two processors, send one message back and forth; half of the round trip
is what is reported, as a distribution.
"""

from __future__ import annotations

import argparse
from typing import Any

from diolkos.bench import options
from diolkos.cli.codes import CliError, ExitCode

_DESCRIPTION = """\
Send one message back and forth between two processes, and report half of the round trip. Contents
are verified on a pass of their own. Contenders take turns in slices of at most 50 ms, and ratios
are formed from adjacent slices only, because machines change their speed within seconds."""

_EPILOG = """\
examples:
  diolkos pingpong --against pipe,zmq --plot pingpong.png
  diolkos pingpong --face native --sizes 8,4K,64K,1M --against mpi,mpi-tuned,mpi-ucx,impi
  diolkos pingpong --face native --sizes 8 --isolate --json
  diolkos pingpong --face native --memory arena --sizes 64K,1M,16M --against memcpy,mpi
  diolkos pingpong --face mx --sizes 8 --against native,mpi    the C interface
  diolkos pingpong --face native --sizes 8 --pause 2 --against eventfd    both sides asleep"""


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "pingpong",
        help="measure latency between two processes, against rivals",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_options(parser, sizes="8,1024,64K,1M")
    parser.add_argument(
        "--pause",
        metavar="MS",
        type=options.bounded(0, 1000, float),
        default=0,
        help="wait so long before each message, so that the peer sleeps (default: 0)",
    )
    options.add_memory_option(parser)


def run(args: argparse.Namespace) -> ExitCode:
    """Measures and prints."""
    if args.memory == "arena" and args.pause:
        raise CliError("--pause goes with --memory plain only")
    from diolkos.bench import command
    from diolkos.bench.control import Operation

    return command.run(args, Operation.PINGPONG)
