# SPDX-License-Identifier: Apache-2.0
"""``multiprocessing.Pipe``: what most Python programs use between processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
from typing import Any

from diolkos.bench import control
from diolkos.bench.sides.loops import Statements
from diolkos.bench.sides.worker import PythonWorker


class PipeWorker(PythonWorker):
    """One end of a duplex pipe that the coordinator made and this process inherited."""

    statements = Statements(
        send="connection.send_bytes(outgoing)",
        receive="connection.recv_bytes_into(incoming)",
        send_back="connection.send_bytes(incoming)",
        acknowledge="connection.send_bytes(b'')",
        receive_acknowledgement="connection.recv_bytes()",
    )

    def __init__(self, side: int) -> None:
        super().__init__(side)
        descriptor = int(os.environ[control.ENVIRONMENT_FDS])
        self._connection = multiprocessing.connection.Connection(descriptor)

    def describe(self) -> dict[str, Any]:
        """Names the library."""
        return {"library": "multiprocessing.Pipe"}

    def names(self) -> dict[str, Any]:
        """The connection."""
        return {"connection": self._connection}

    def close(self) -> None:
        """Closes this end."""
        self._connection.close()
