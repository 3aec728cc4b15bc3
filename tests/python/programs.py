# SPDX-License-Identifier: Apache-2.0
"""Short programs that tests run as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# How long a test waits for something that must happen, in seconds. Only reached by failures.
PATIENCE_S = 60.0

_PREAMBLE = """
import sys, os, signal, threading
import diolkos
from diolkos.testing import pair

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()
"""


class Program:
    """A Python program: what it says is read line by line, and it hears what it is told."""

    def __init__(self, source: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PREAMBLE + textwrap.dedent(source), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line and self.process.poll() is not None:
            assert self.process.stderr is not None
            raise AssertionError(f"the program ended:\n{self.process.stderr.read()}")
        return line

    def tell(self, line: str = "") -> None:
        """Says a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def finish(self) -> tuple[int, str, str]:
        """Waits for its end: exit code, the rest of what it said, and its errors."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    def succeed(self) -> str:
        """Waits for its end, which must be a good one; the rest of what it said."""
        code, out, err = self.finish()
        assert code == 0, f"exit code {code}:\n{out}\n{err}"
        assert "Traceback" not in err, err
        return out

    def kill(self) -> None:
        """Ends it at once."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
