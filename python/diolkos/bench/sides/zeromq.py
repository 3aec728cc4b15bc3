# SPDX-License-Identifier: Apache-2.0
"""pyzmq: a PAIR of sockets over ``ipc``, each with its I/O thread on its side's processor."""

from __future__ import annotations

import importlib
from typing import Any

from diolkos.bench.sides.loops import Statements
from diolkos.bench.sides.worker import PythonWorker

#: From here on a copy costs more than ZeroMQ's bookkeeping of a borrowed buffer (its own default).
_COPY_LIMIT_BYTES = 65536


class ZeromqWorker(PythonWorker):
    """One PAIR socket; side 1 binds ``path``."""

    statements = Statements(
        send="send(outgoing, 0, copy)",
        receive="recv_into(incoming)",
        send_back="send(incoming, 0, copy)",
        acknowledge="send(b'')",
        # A borrowed buffer may be written again when the other side has it, not before.
        send_on="send(outgoing)",
        receive_acknowledgement="receive()",
    )

    def __init__(self, side: int, path: str) -> None:
        super().__init__(side)
        self._zmq: Any = importlib.import_module("zmq")
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.PAIR)
        self._socket.linger = 0
        if side == 1:
            self._socket.bind(f"ipc://{path}")
        else:
            self._socket.connect(f"ipc://{path}")

    def describe(self) -> dict[str, Any]:
        """Names binding and library."""
        return {"library": f"pyzmq {self._zmq.__version__}, ZeroMQ {self._zmq.zmq_version()}"}

    def names(self) -> dict[str, Any]:
        """The socket's methods; short messages are copied, long ones borrowed."""
        return {
            "send": self._socket.send,
            "recv_into": self._socket.recv_into,
            "receive": self._socket.recv,
            "copy": len(self.outgoing) < _COPY_LIMIT_BYTES,
        }

    def close(self) -> None:
        """Closes the socket and ends the I/O thread."""
        self._socket.close()
        self._context.term()
