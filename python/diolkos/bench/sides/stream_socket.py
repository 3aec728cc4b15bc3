# SPDX-License-Identifier: Apache-2.0
"""A connected stream socket: Unix, or TCP over loopback without Nagle's delay.

A stream has no messages, so there is none of 0 bytes, and the receiver knows the size beforehand.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from diolkos.bench import control
from diolkos.bench.sides.loops import Statements
from diolkos.bench.sides.worker import PythonWorker, Unsupported


class StreamSocketWorker(PythonWorker):
    """One end of a connection that the coordinator made and this process inherited."""

    statements = Statements(
        send="sendall(outgoing)",
        receive="recv_into(incoming, size, wait_all)",
        send_back="sendall(incoming)",
        acknowledge="sendall(b'!')",
        receive_acknowledgement="receive(1)",
    )

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self._socket = socket.socket(fileno=int(os.environ[control.ENVIRONMENT_FDS]))
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def describe(self) -> dict[str, Any]:
        """Names the kind of socket."""
        return {"library": f"{self._socket.family.name} stream socket"}

    def prepare(self, size: int) -> None:
        """Refuses empty messages. Raises Unsupported."""
        if size == 0:
            raise Unsupported("a stream socket has no empty messages")
        self._size_of_message = size

    def names(self) -> dict[str, Any]:
        """The socket's methods."""
        return {
            "sendall": self._socket.sendall,
            "recv_into": self._socket.recv_into,
            "receive": self._socket.recv,
            "size": self._size_of_message,
            "wait_all": socket.MSG_WAITALL,
        }

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()
