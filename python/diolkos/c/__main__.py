# SPDX-License-Identifier: Apache-2.0
"""``python -m diolkos.c``: prints what a C compiler needs, as pkg-config does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from diolkos import c


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what is asked for, on one line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    answers: list[Callable[[], object]] = args.answers or []
    if not answers:
        parser.error("ask for something: --cflags, --libs, --libdir or --includedir")
    try:
        print(*(answer() for answer in answers))
    except c.MissingLibrary as error:
        print(f"error: {error}", file=sys.stderr)
        print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m diolkos.c",
        description="Say where the native C library and its header are, for C compilers.",
        epilog="example: cc program.c $(python -m diolkos.c --cflags --libs)",
    )
    for option, answer, text in (
        ("--cflags", c.cflags, "options for the compiler"),
        ("--libs", c.libs, "options for the linker"),
        ("--libdir", c.library_dir, "the folder of libdiolkos.so"),
        ("--includedir", c.include_dir, "the folder of the header"),
    ):
        parser.add_argument(option, dest="answers", action="append_const", const=answer, help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
