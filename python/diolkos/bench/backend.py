# SPDX-License-Identifier: Apache-2.0
"""A backend for the benchmark alone.

The endpoints of a benchmark meet in a runtime directory of their own, so that a backend that is
running for the user neither sees them nor is disturbed; and the backend is started here, not by
the first endpoint, because a side in name spaces of its own must not start one inside them.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from diolkos.bench.contenders.base import python_side
from diolkos.bench.processes import ProcessGroup

_START_LIMIT_S = 20.0


class BackendError(Exception):
    """The backend did not start; the text is what it printed."""


class PrivateBackend:
    """A backend in a directory that goes away with the benchmark."""

    def __init__(self, group: ProcessGroup, directory: Path) -> None:
        self._group = group
        self._runtime_directory = directory / "runtime"
        self._log = directory / "backend-output.log"

    def start(self) -> Path:
        """Starts it and returns its runtime directory. Raises :class:`BackendError`."""
        self._runtime_directory.mkdir(mode=0o700)
        command = [sys.executable, "-m", "diolkos", "backend"]
        command += ["--runtime-dir", str(self._runtime_directory)]
        environment = {**os.environ, **python_side("", None).environment}
        process = self._group.start(command, environment, log=self._log)
        limit = time.monotonic() + _START_LIMIT_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > limit:
                raise BackendError(self._log.read_text(errors="replace").strip())
            time.sleep(0.01)
        return self._runtime_directory

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as attempt:
            try:
                attempt.connect(str(self._runtime_directory / "backend.sock"))
            except OSError:
                return False
            return True
