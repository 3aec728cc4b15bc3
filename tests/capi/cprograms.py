# SPDX-License-Identifier: Apache-2.0
"""Building and running the C programs in ``c/``."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "c"
# A program ends itself before that; only a broken one is still there.
PATIENCE_S = 90
_FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]


def compile_c(command: Sequence[str]) -> None:
    """Runs a compiler; what it says is the failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{shlex.join(command)}\n{done.stderr}"


class Programs:
    """The programs of a test, which all end with it."""

    def __init__(self, flags: list[str], directory: Path, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._flags = flags
        self._directory = directory
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, source: str | Path, *arguments: str) -> subprocess.Popen[str]:
        """Starts the program made of ``c/<source>.c``, or of a file elsewhere."""
        path = source if isinstance(source, Path) else SOURCES / f"{source}.c"
        program = self._directory / path.stem
        if not program.exists():
            compile_c(["cc", *_FLAGS, str(path), "-o", str(program), *self._flags])
        process = subprocess.Popen(
            [str(program), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Waits for the end of a program, which must be a good one; what it wrote."""
        out, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"exit code {process.returncode}\n{out}{errors}"
        return out

    def end(self) -> None:
        """Ends what still runs."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()
