# SPDX-License-Identifier: Apache-2.0
"""Where the native C interface lies: ``libdiolkos`` and ``diolkos.h``, inside this package.

C programs are built against them with what the command line prints::

    cc program.c $(python -m diolkos.c --cflags --libs)

Nothing here is needed to run such a program.
`docs/reference/c.md` says what the library does.
"""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["LIBRARY_NAMES", "MissingLibrary", "cflags", "include_dir", "library_dir", "libs"]

_HERE = Path(__file__).resolve().parent

#: The library: its link, the shared object, and what static programs take.
LIBRARY_NAMES = ("libdiolkos.so", "libdiolkos.so.1", "libdiolkos.a")


class MissingLibrary(Exception):
    """The package was built without the library; `hint` says how to get it."""

    hint = "run `make c` in a clone, or install a wheel"


def include_dir() -> Path:
    """The folder of ``diolkos.h``."""
    return _HERE / "include"


def library_dir() -> Path:
    """The folder of ``libdiolkos.so``. Raises :class:`MissingLibrary` when it is not there."""
    directory = _HERE / "lib"
    if not (directory / LIBRARY_NAMES[0]).is_file():
        raise MissingLibrary(f"there is no {LIBRARY_NAMES[0]} in {directory}")
    return directory


def cflags() -> str:
    """What a compiler needs, quoted for a shell."""
    return shlex.join([f"-I{include_dir()}"])


def libs() -> str:
    """What a linker needs, quoted for a shell. The program will find the library where it is now.
    Raises :class:`MissingLibrary`."""
    directory = library_dir()
    return shlex.join([f"-L{directory}", f"-Wl,-rpath,{directory}", "-ldiolkos"])
