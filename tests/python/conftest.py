# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python face share.

Most tests use two endpoints of one process (`diolkos.testing.pair`): what a second process would do
happens in the same thread, in an order that the test decides. Tests that need a second process run
a short program and talk to it over pipes, line by line; nobody ever sleeps to let something happen.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos.testing import Side, pair
from programs import PATIENCE_S, Program


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    """Two connected endpoints of this process."""
    with pair() as both:
        yield both


@pytest.fixture
def alice(sides: tuple[Side, Side]) -> Side:
    """The one end."""
    return sides[0]


@pytest.fixture
def bob(sides: tuple[Side, Side]) -> Side:
    """The other end."""
    return sides[1]


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short, private directory, where endpoints of the test look for a backend."""
    path = Path(tempfile.mkdtemp(prefix="dio-"))
    monkeypatch.setenv("DIOLKOS_RUNTIME_DIR", str(path))
    monkeypatch.delenv("DIOLKOS_PARTITION", raising=False)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def backend(runtime_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A backend of the test's own, ended by its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "diolkos", "backend", "--runtime-dir", str(runtime_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "listening" in line, line + process.stderr.read()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def program() -> Iterator[type[Program]]:
    """Starts programs; whatever still runs at the end of the test is killed."""
    started: list[Program] = []

    class Started(Program):
        def __init__(self, source: str, *arguments: object) -> None:
            super().__init__(source, *arguments)
            started.append(self)

    yield Started
    for each in started:
        each.kill()


@pytest.fixture
def open_descriptors() -> Iterator[None]:
    """Fails a test that leaves descriptors open."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
