# SPDX-License-Identifier: Apache-2.0
"""What the tests of failures share: a backend that can be killed, and looks at what is left."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos.backend.client import NoBackend
from disasters import RunningBackend, backend_pid, kill_and_await, shared_memory


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short, private directory, where endpoints of the test look for a backend. A backend that
    was started there by an endpoint is ended with it."""
    path = Path(tempfile.mkdtemp(prefix="dio-"))
    monkeypatch.setenv("DIOLKOS_RUNTIME_DIR", str(path))
    monkeypatch.delenv("DIOLKOS_PARTITION", raising=False)
    try:
        yield path
    finally:
        with contextlib.suppress(NoBackend, OSError):
            kill_and_await(backend_pid(path), signal.SIGTERM)
        shutil.rmtree(path)


@pytest.fixture
def backend(runtime_dir: Path) -> Iterator[RunningBackend]:
    """A backend of the test's own, ended whatever happens."""
    running = RunningBackend(runtime_dir)
    try:
        running.start()
        yield running
    finally:
        running.end(signal.SIGTERM)


@pytest.fixture(autouse=True)
def nothing_in_dev_shm() -> Iterator[None]:
    """No failure leaves a file in `/dev/shm`."""
    before = shared_memory()
    yield
    assert shared_memory() <= before
