# SPDX-License-Identifier: Apache-2.0
"""The options that the benchmark commands share, and the plan that they amount to."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from diolkos.bench.contenders import FACES, MEMORIES, RIVALS, Contender, ours, rival
from diolkos.bench.control import Operation
from diolkos.bench.results import Plan
from diolkos.bench.slices import SLICE_TARGET_S
from diolkos.bench.taking import WINDOW_MAX

_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_ROUNDS_DEFAULT = 25
_ROUNDS_MIN = 3

#: What a ping-pong of a face measures beside round trips.
_BESIDE = {"asyncio": Operation.ALREADY_THERE, "mx": Operation.INCOMPLETE_TEST}


def size_list(text: str) -> list[int]:
    """``8,64K,1M`` as numbers of bytes. Raises ArgumentTypeError."""
    return [_size(word) for word in text.split(",")]


def _size(word: str) -> int:
    digits, factor = word.strip().upper().removesuffix("IB").removesuffix("B"), 1
    if digits[-1:] in _SUFFIXES:
        digits, factor = digits[:-1], _SUFFIXES[digits[-1]]
    if not digits.isascii() or not digits.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a size such as 8, 64K or 1M")
    return int(digits) * factor


def rival_list(text: str) -> list[str]:
    """``pipe,zmq`` as names of rivals. Raises ArgumentTypeError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown)} is no rival; there are {', '.join(RIVALS)}"
        )
    return list(dict.fromkeys(names))


def bounded(
    least: float, most: float, kind: type[int] | type[float] = int
) -> Callable[[str], float]:
    """A parser of numbers from ``least`` to ``most``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return value

    return parse


def add_options(
    parser: argparse.ArgumentParser,
    sizes: str,
    *,
    what: str = "messages",
    faces: Sequence[str] = FACES,
) -> None:
    """Adds what all benchmark commands understand; ``sizes`` is the default list.

    The sizes are those of ``what``, and ``faces`` are the doors that have such a benchmark.
    """
    add = parser.add_argument
    add(
        "--sizes",
        metavar="LIST",
        type=size_list,
        default=size_list(sizes),
        help=f"sizes of {what} (default: {sizes})",
    )
    _add_contender_options(parser, faces)
    add(
        "--load",
        metavar="N",
        type=bounded(0, 16),
        default=0,
        help="busy processes on the two processors (default: 0)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--slices",
        metavar="N",
        type=bounded(_ROUNDS_MIN, 100_000),
        help=f"pairs of slices for each size and rival (default: {_ROUNDS_DEFAULT})",
    )
    length.add_argument(
        "--seconds",
        metavar="S",
        type=bounded(0.1, 3600, float),
        help="time for each size and rival instead",
    )
    add("--plot", metavar="FILE", type=Path, help="draw the result (needs matplotlib)")
    add("--output", metavar="FILE", type=Path, help="write the table to a file too")
    add("--json", action="store_true", help="one JSON object a line on stdout")


def _add_contender_options(parser: argparse.ArgumentParser, faces: Sequence[str]) -> None:
    """Adds who takes part."""
    add = parser.add_argument
    add("--face", choices=faces, default="python", help="which door of ours (default: python)")
    add(
        "--road",
        choices=("direct", "switched", "auto"),
        default="auto",
        help="which road ours takes (default: auto)",
    )
    add(
        "--isolate",
        action="store_true",
        help="also ours with each side in name spaces of its own",
    )
    add(
        "--idle-peers",
        metavar="N",
        type=bounded(0, 256),
        default=0,
        help="also ours with N idle peers connected to each side",
    )
    add(
        "--against",
        metavar="LIST",
        type=rival_list,
        default=[],
        help=f"rivals, of {', '.join(RIVALS)}",
    )


def add_window_option(parser: argparse.ArgumentParser, default: int) -> None:
    """Adds the window of the one-way benchmarks."""
    parser.add_argument(
        "--window",
        metavar="N",
        type=bounded(1, WINDOW_MAX),
        default=default,
        help=f"messages between two acknowledgements (default: {default})",
    )


def add_memory_option(parser: argparse.ArgumentParser) -> None:
    """Adds where the messages of ours lie."""
    parser.add_argument(
        "--memory",
        choices=MEMORIES,
        default="plain",
        help="where messages of ours lie; arena: in granted memory, and everybody's are written"
        " anew before each round trip (default: plain)",
    )


def contenders(args: argparse.Namespace) -> list[Contender]:
    """Ours first, in its variants, then the rivals in the order given."""
    memory = getattr(args, "memory", "plain")
    found: list[Contender] = [ours(args.face, args.road, memory=memory)]
    if args.isolate:
        found.append(ours(args.face, args.road, isolated=True, memory=memory))
    if args.idle_peers:
        found.append(ours(args.face, args.road, idle_peers=args.idle_peers, memory=memory))
    return found + [rival(name) for name in args.against]


def plan(args: argparse.Namespace, operation: Operation) -> Plan:
    """The plan that a parsed command line asks for."""
    rounds = args.slices or _ROUNDS_DEFAULT
    if args.seconds:
        rounds = max(_ROUNDS_MIN, round(args.seconds / (2 * SLICE_TARGET_S)))
    loans = operation is Operation.LOAN
    return Plan(
        operation=operation,
        sizes=sorted(set(args.sizes)) if loans else args.sizes,
        compares_sizes=loans,
        contenders=contenders(args),
        rounds=rounds,
        window=getattr(args, "window", 1),
        pause_us=round(getattr(args, "pause", 0) * 1000),
        touched=getattr(args, "memory", "plain") == "arena",
        busy_neighbours=args.load,
        beside=_BESIDE.get(args.face) if operation is Operation.PINGPONG else None,
    )
