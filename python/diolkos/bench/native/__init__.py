# SPDX-License-Identifier: Apache-2.0
"""The loops in C, and how they come to run: compiled at first use, and kept.

The binaries go to ``$XDG_CACHE_HOME/diolkos`` (or ``~/.cache/diolkos``) under a name made of a hash
of everything that went into them, so that another compiler, library or source makes another file
and nothing is ever out of date.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_FLAGS = ("-O2", "-g0", "-std=gnu11", "-Wall")


class CompileError(Exception):
    """The compiler refused; the text is its own."""


def cache_directory() -> Path:
    """Where compiled loops are kept; made when it does not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base, "diolkos")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def compiled(
    source: str, compiler: str, define: Sequence[str] = (), link: Sequence[str] = ()
) -> Path:
    """The program made of ``source`` in this folder, compiled unless it was before.

    Raises :class:`CompileError` when the compiler is missing or fails.
    """
    flags = [*_FLAGS, *(f"-D{name}" for name in define)]
    digest = hashlib.sha256()
    for name in (source, "side.h", "exchange.h", "one_sided.h", "mpich_abi.h"):
        digest.update(_HERE.joinpath(name).read_bytes())
    digest.update("\0".join([compiler, *flags, *link, _version(compiler)]).encode())
    program = cache_directory() / f"{Path(source).stem}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    # Compiled beside its place and moved there: two runs at once do not see half a program.
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        fresh = Path(directory, program.name)
        _run([compiler, *flags, str(_HERE / source), "-o", str(fresh), *link])
        os.replace(fresh, program)
    return program


def _version(compiler: str) -> str:
    return _run([compiler, "--version"])


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompileError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise CompileError(f"{' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout
