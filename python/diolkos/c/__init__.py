# SPDX-License-Identifier: Apache-2.0
"""Where the native C interface lies: ``libdiolkos`` and ``diolkos.h``, inside this package.

C programs are built against them with what the command line prints::

    cc program.c $(python -m diolkos.c --cflags --libs)

Nothing here is needed to run such a program.
`docs/reference/c.md` says what the library does.
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

#: The library: its link, the shared object, and what static programs take.
LIBRARY_NAMES = ("libdiolkos.so", "libdiolkos.so.1", "libdiolkos.a")

LIBRARY = CLibrary(Path(__file__).resolve().parent, LIBRARY_NAMES, target="c")
include_dir = LIBRARY.include_dir
library_dir = LIBRARY.library_dir
cflags = LIBRARY.cflags
libs = LIBRARY.libs
