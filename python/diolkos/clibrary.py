# SPDX-License-Identifier: Apache-2.0
"""A C library inside this package: where it lies, and what a C compiler needs to be told.

`diolkos.mx` and `diolkos.c` each describe one, and print the same with ``python -m``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class MissingLibrary(Exception):
    """The package was built without the library; `hint` says how to get it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class CLibrary:
    """A library with its headers, in the folders ``lib`` and ``include`` of a package."""

    home: Path
    #: The library first, then its other names.
    names: tuple[str, ...]
    #: The target of ``make`` that builds it.
    target: str

    def include_dir(self) -> Path:
        """The folder of the headers."""
        return self.home / "include"

    def library_dir(self) -> Path:
        """The folder of the library. Raises :class:`MissingLibrary` when it is not there."""
        directory = self.home / "lib"
        if not (directory / self.names[0]).is_file():
            raise MissingLibrary(
                f"there is no {self.names[0]} in {directory}",
                f"run `make {self.target}` in a clone, or install a wheel",
            )
        return directory

    def cflags(self) -> str:
        """What a compiler needs, quoted for a shell."""
        return shlex.join([f"-I{self.include_dir()}"])

    def libs(self) -> str:
        """What a linker needs, quoted for a shell. The program will find the library where it is
        now. Raises :class:`MissingLibrary`."""
        directory = self.library_dir()
        name = self.names[0].removeprefix("lib").removesuffix(".so")
        return shlex.join([f"-L{directory}", f"-Wl,-rpath,{directory}", f"-l{name}"])

    def main(self, module: str, description: str) -> int:
        """What ``python -m module`` does: prints what is asked for, on one line, as pkg-config
        does; returns the exit code."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {module}",
            description=description,
            epilog=f"example: cc program.c $(python -m {module} --cflags --libs)",
        )
        for option, answer, text in (
            ("--cflags", self.cflags, "options for the compiler"),
            ("--libs", self.libs, "options for the linker"),
            ("--libdir", self.library_dir, f"the folder of {self.names[0]}"),
            ("--includedir", self.include_dir, "the folder of the headers"),
        ):
            parser.add_argument(
                option, dest="answers", action="append_const", const=answer, help=text
            )
        answers: list[Callable[[], object]] = parser.parse_args().answers or []
        if not answers:
            parser.error("ask for something: --cflags, --libs, --libdir or --includedir")
        try:
            print(*(answer() for answer in answers))
        except MissingLibrary as error:
            print(f"error: {error}", file=sys.stderr)
            print(f"hint: {error.hint}", file=sys.stderr)
            return 1
        return 0
