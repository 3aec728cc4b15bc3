# SPDX-License-Identifier: Apache-2.0
"""Where the C interface lies: ``libmyriexpress.so`` and its headers, inside this package.

C programs are built against them with what the command line prints::

    cc program.c $(python -m diolkos.mx --cflags --libs)

Nothing here is needed to run such a program.
`docs/reference/mx.md` says what the library does.
"""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["LIBRARY_NAMES", "MissingLibrary", "cflags", "include_dir", "library_dir", "libs"]

_HERE = Path(__file__).resolve().parent

#: The library, and the names that programs built against Open-MX look for.
LIBRARY_NAMES = ("libmyriexpress.so", "libopen-mx.so.0", "libopen-mx.so")


class MissingLibrary(Exception):
    """The package was built without the library; `hint` says how to get it."""

    hint = "run `make mx` in a clone, or install a wheel"


def include_dir() -> Path:
    """The folder of ``myriexpress.h`` and the other headers."""
    return _HERE / "include"


def library_dir() -> Path:
    """The folder of ``libmyriexpress.so``. Raises :class:`MissingLibrary` when it is not there."""
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
    return shlex.join([f"-L{directory}", f"-Wl,-rpath,{directory}", "-lmyriexpress"])
