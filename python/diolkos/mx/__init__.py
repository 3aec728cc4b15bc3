# SPDX-License-Identifier: Apache-2.0
"""Where the C interface lies: ``libmyriexpress.so`` and its headers, inside this package.

C programs are built against them with what the command line prints::

    cc program.c $(python -m diolkos.mx --cflags --libs)

Nothing here is needed to run such a program.
`docs/reference/mx.md` says what the library does.
"""

from __future__ import annotations

from pathlib import Path

from diolkos.clibrary import CLibrary, MissingLibrary

__all__ = [
    "LIBRARY",
    "LIBRARY_NAMES",
    "MissingLibrary",
    "cflags",
    "include_dir",
    "library_dir",
    "libs",
]

#: The library, and the names that programs built against Open-MX look for.
LIBRARY_NAMES = ("libmyriexpress.so", "libopen-mx.so.0", "libopen-mx.so")

LIBRARY = CLibrary(Path(__file__).resolve().parent, LIBRARY_NAMES, target="mx")
include_dir = LIBRARY.include_dir
library_dir = LIBRARY.library_dir
cflags = LIBRARY.cflags
libs = LIBRARY.libs
