# SPDX-License-Identifier: Apache-2.0
"""Building and running the C programs in ``c/``."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diolkos import mx
from diolkos.backend import client

SOURCES = Path(__file__).parent / "c"
# A program ends itself before that; only a broken one is still there.
PATIENCE_S = 90

_FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]


def compile_c(command: Sequence[str]) -> None:
    """Runs a compiler; what it says is the failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    assert not done.stderr, f"{shlex.join(command)}\n{done.stderr}"


def await_endpoints(count: int) -> None:
    """Returns when the backend has so many. However programs ended, it is left with nothing of
    them, once it has noticed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        snapshot = client.query()
        snapshot.close()
        if len(snapshot.endpoints) == count:
            return
        assert time.monotonic() < deadline, f"{len(snapshot.endpoints)} endpoints, not {count}"
        os.sched_yield()


class Compiler:
    """Makes programs out of C files, each of them once."""

    def __init__(self, library_dir: Path, directory: Path) -> None:
        self.library_dir = library_dir
        self.directory = directory

    def program(self, source: Path) -> Path:
        """The program made of ``source``."""
        program = self.directory / source.stem
        if not program.exists():
            link = [f"-L{self.library_dir}", f"-Wl,-rpath,{self.library_dir}", "-lmyriexpress"]
            include = f"-I{mx.include_dir()}"
            # For sanitizers, say `-fsanitize=address`.
            extra = shlex.split(os.environ.get("DIOLKOS_MX_CFLAGS", ""))
            compile_c(["cc", *_FLAGS, *extra, include, str(source), "-o", str(program), *link])
        return program


class Machine:
    """A private backend's programs."""

    def __init__(self, compiler: Callable[[], Compiler], session_dir: Path) -> None:
        self._compiler = compiler
        self._processes: list[subprocess.Popen[str]] = []
        self.session_dir = session_dir

    def program(self, source: str | Path) -> Path:
        """The program made of ``c/<source>.c``, or of a file elsewhere."""
        path = source if isinstance(source, Path) else SOURCES / f"{source}.c"
        return self._compiler().program(path)

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts a process in a group of its own, which `end` kills as a whole."""
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def run(self, source: str | Path, *arguments: str, code: int = 0, **environment: str) -> str:
        """Runs a program to its end, which must be ``code``; what it wrote on stdout."""
        return self.finish(self.start([self.program(source), *arguments], environment), code)

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> str:
        """Waits for the end of a process, which must be ``code``; what it wrote on stdout."""
        out, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}{errors}"
        return out

    def end(self) -> None:
        """Ends what still runs."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
