# SPDX-License-Identifier: Apache-2.0
"""A real backend in a directory of its own, ended by its process id whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rawclient import PATIENCE_S, RawClient


class RunningBackend:
    """A backend as a subprocess, which can be killed and started again in the same place."""

    def __init__(self, runtime_dir: Path, *options: str, **process_options: Any) -> None:
        self.runtime_dir = runtime_dir
        self.options = options
        self.process_options = process_options
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when clients can connect."""
        self.process = self.spawn()
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "listening" in line, line + self.process.stderr.read()

    def spawn(self) -> subprocess.Popen[str]:
        """Starts the process and waits for nothing."""
        command = [sys.executable, "-m", "diolkos", "backend"]
        return subprocess.Popen(
            [*command, "--runtime-dir", str(self.runtime_dir), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **self.process_options,
        )

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it by a signal; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None
        return code

    def client(self) -> RawClient:
        """A new connection."""
        return RawClient(self.runtime_dir)

    def fd_count(self) -> int:
        """Descriptors that the backend has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def log(self) -> list[dict[str, Any]]:
        """What it has logged."""
        text = (self.runtime_dir / "backend.log").read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A short, private directory."""
    path = Path(tempfile.mkdtemp(prefix="dio-"))
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def running(runtime_dir: Path, *options: str, **process_options: Any) -> Iterator[RunningBackend]:
    """A backend with options of the test's own."""
    backend = RunningBackend(runtime_dir, *options, **process_options)
    try:
        backend.start()
        yield backend
    finally:
        if backend.process is not None:
            backend.end(signal.SIGKILL)


@pytest.fixture
def backend(runtime_dir: Path) -> Iterator[RunningBackend]:
    """A backend with default options."""
    with running(runtime_dir) as backend:
        yield backend


@pytest.fixture
def policy_file(runtime_dir: Path) -> Path:
    """Where a test can put a policy."""
    return runtime_dir / "policy.toml"
