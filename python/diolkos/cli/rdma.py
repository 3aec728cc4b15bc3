# SPDX-License-Identifier: Apache-2.0
"""`diolkos rdma`: how long an operation on memory of another process takes."""

from __future__ import annotations

import argparse
from typing import Any

from diolkos.bench import options
from diolkos.cli.codes import ExitCode

_DESCRIPTION = """\
Write into memory of another process, read from it, or add to a word of it, and report how long
the operation takes until it is complete there. Between two operations the other process touches
all of the memory: it reads it before a write, and writes it before a read. Operations of up to 64
bytes are timed in batches of 100, and the other process leaves the memory alone. Turns, checks and
ratios are those of `diolkos pingpong`."""

_EPILOG = """\
examples:
  diolkos rdma --against mpi4py
  diolkos rdma --face native --op read --against memcpy,mpi,impi
  diolkos rdma --face native --op atomic --against mpi --json"""

#: What `--op` takes, and the operation's name for the benchmark.
_OPERATIONS = {"write": "RDMA_WRITE", "read": "RDMA_READ", "atomic": "RDMA_ATOMIC"}
_ATOMIC_BYTES = 8


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "rdma",
        help="measure one-sided operations on memory of another process, against rivals",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--op",
        choices=tuple(_OPERATIONS),
        default="write",
        help="the operation; atomic is an addition to 8 bytes, whatever --sizes says"
        " (default: write)",
    )
    options.add_options(parser, sizes="8,64K,1M", what="operations", faces=("python", "native"))


def run(args: argparse.Namespace) -> ExitCode:
    """Measures and prints."""
    from diolkos.bench import command
    from diolkos.bench.control import Operation

    if args.op == "atomic":
        args.sizes = [_ATOMIC_BYTES]
    return command.run(args, Operation[_OPERATIONS[args.op]])
