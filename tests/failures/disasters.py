# SPDX-License-Identifier: Apache-2.0
"""Tools of the tests of failures: what is open and mapped, a backend that can be killed, and
processes that do as they are told, line by line, until they are killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from diolkos.backend import client

# How long a test waits for something that must happen, in seconds. Only reached by failures.
PATIENCE_S = 60.0

_PREAMBLE = """
import sys, os, signal, errno, resource
import diolkos

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()
"""


def until(what: str, done: Callable[[], bool]) -> None:
    """Looks again and again until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"{what} never happened"
        os.sched_yield()


def descriptors(pid: int | str = "self") -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def mappings(pid: int | str = "self") -> tuple[int, int]:
    """Mappings of a process, and how many of them are memory that was granted by a backend."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return len(lines), sum("/memfd:diolkos" in line for line in lines)


def shared_memory() -> set[str]:
    """Our files in `/dev/shm`, but for those of benchmarks, which may run at the same time."""
    names = os.listdir("/dev/shm")
    return {name for name in names if "diolkos" in name and not name.startswith("diolkos-bench-")}


def endpoints(runtime_dir: Path) -> dict[str, int]:
    """The endpoints that the backend knows, and the channels of each. Raises `NoBackend`."""
    snapshot = client.query(runtime_dir)
    snapshot.close()
    return {endpoint.name: endpoint.channels for endpoint, _ in snapshot.endpoints}


def backend_pid(runtime_dir: Path) -> int:
    """The backend's process. Raises `NoBackend` when there is none."""
    snapshot = client.query(runtime_dir)
    snapshot.close()
    return snapshot.backend.pid


def kill_and_await(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process, child or not, and waits until it is no more."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
        ended, _, _ = select.select([process], [], [], PATIENCE_S)
        assert ended, f"process {pid} survived {signal.Signals(number).name}"
    finally:
        os.close(process)


class RunningBackend:
    """A backend as a subprocess, which can be killed and started again in the same place."""

    def __init__(self, runtime_dir: Path) -> None:
        self.runtime_dir = runtime_dir
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when clients can connect."""
        command = [sys.executable, "-m", "diolkos", "backend", "--runtime-dir"]
        self.process = subprocess.Popen(
            [*command, str(self.runtime_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "listening" in line, line + self.process.stderr.read()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGKILL) -> None:
        """Ends it by a signal, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.communicate(timeout=PATIENCE_S)
            self.process = None


class Program:
    """A Python program: what it says is read line by line, and it hears what it is told. Killed at
    the end of the `with` block."""

    def __init__(self, source: str, *arguments: object, under: tuple[str, ...] = ()) -> None:
        code = _PREAMBLE + textwrap.dedent(source)
        self.process = subprocess.Popen(
            [*under, sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            _, errors = self.process.communicate(timeout=PATIENCE_S)
            raise AssertionError(f"the program ended:\n{errors}")
        return line

    def tell(self, line: str = "") -> None:
        """Says a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def succeed(self) -> str:
        """Waits for its end, which must be a good one; the rest of what it said."""
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, f"exit code {self.process.returncode}:\n{out}{errors}"
        return out
