# SPDX-License-Identifier: Apache-2.0
"""Ours, one-sided: side 1 allots memory and registers it, side 0 gets the key and operates.

Memory of the endpoint's arena is granted to the peer; it then operates without anybody's help. The
local memory is any memory of side 0. ``library`` in the rows says how the key was served.
"""

from __future__ import annotations

from typing import Any

import diolkos
from diolkos import _core
from diolkos.bench.control import Command, Operation
from diolkos.bench.sides.endpoint import connect, library
from diolkos.bench.sides.endpoint_native import verification_or
from diolkos.bench.sides.one_sided import (
    WORD_BYTES,
    OneSidedStatements,
    OneSidedWorker,
    private_memory,
)
from diolkos.bench.sides.worker import Unsupported, Worker

#: What the loop in Rust calls the operations.
_OPERATIONS = {
    Operation.RDMA_WRITE: "write",
    Operation.RDMA_READ: "read",
    Operation.RDMA_ATOMIC: "fetch_add",
}


class Regions:
    """One endpoint called ``name``, connected to ``peer``, and one region of side 1 at a time."""

    def __init__(self, side: int, name: str, peer: str, road: str) -> None:
        self.side = side
        self.endpoint: Any = diolkos.Endpoint(name)
        self.peer: Any = connect(self.endpoint, peer, road)
        self.key: Any = None
        self._region: Any = None
        self._memory: Any = None

    def open(self, size: int) -> memoryview:
        """A region of ``size`` bytes: its memory on side 1, its key on side 0."""
        if self.side == 0:
            self.key = self.endpoint.recv_object()
            return memoryview(b"")
        self.close()
        self._memory = self.endpoint.alloc(size)
        self._region = self.endpoint.register(self._memory, "rw", peer=self.peer)
        self.endpoint.send_object(self._region.key, self.peer)
        return memoryview(self._memory)

    def close(self) -> None:
        """Takes the region back, and lets go of its memory."""
        if self._region is not None:
            self._region.revoke()
            self._memory.free()
            self._region = self._memory = None

    def describe(self, face: str) -> dict[str, Any]:
        """Names the library, the road, and on side 0 how the peer's memory is reached."""
        self.open(WORD_BYTES)
        how = "owner"
        if self.side == 0:
            self.endpoint.rdma_write(bytes(WORD_BYTES), self.peer, self.key)
            how = self.endpoint.reach(self.peer, self.key)
            self.endpoint.send(b"", self.peer)
        else:  # what is copied needs this side's help
            self.endpoint.recv_into(bytearray(0))
        return {"library": f"{library(face)}, {how}", "road": self.peer.road}


class EndpointRdmaWorker(OneSidedWorker):
    """The Python face: the public API and nothing else."""

    statements = OneSidedStatements(
        write="write(local, peer, key)",
        read="read(local, peer, key)",
        atomic="old = fetch_add(peer, key, 0, addend)",
        old_value="old",
        give_turn="send(nothing, peer)",
        wait_turn="recv_into(nothing)",
    )

    def __init__(self, side: int, name: str, peer: str, road: str) -> None:
        super().__init__(side)
        self._regions = Regions(side, name, peer, road)

    def describe(self) -> dict[str, Any]:
        """Names the library, the road that was taken, and how memory is reached."""
        return self._regions.describe("blocking")

    def open_target(self, size: int) -> memoryview:
        """A region of its own for each size."""
        return self._regions.open(size)

    def names(self) -> dict[str, Any]:
        """The endpoint's methods, the peer and its key."""
        endpoint = self._regions.endpoint
        return {
            "write": endpoint.rdma_write,
            "read": endpoint.rdma_read,
            "fetch_add": endpoint.fetch_add,
            "send": endpoint.send,
            "recv_into": endpoint.recv_into,
            "peer": self._regions.peer,
            "key": self._regions.key,
            "nothing": bytearray(0),
        }

    def close(self) -> None:
        """Closes the endpoint."""
        self._regions.endpoint.close()


class NativeRdmaWorker(Worker):
    """The native face: the loops of :mod:`.one_sided` in Rust."""

    def __init__(self, side: int, name: str, peer: str, road: str) -> None:
        self._regions = Regions(side, name, peer, road)
        self._memory = memoryview(b"")
        self._size = -1

    def describe(self) -> dict[str, Any]:
        """Names the library, the road that was taken, and how memory is reached."""
        return self._regions.describe("native")

    def serve(self, command: Command) -> bytes:
        """Runs one slice in Rust."""
        if command.operation is Operation.RDMA_ATOMIC and command.size != WORD_BYTES:
            raise Unsupported(f"an atomic operation is one of {WORD_BYTES} bytes")
        if command.size == 0:
            raise Unsupported("a one-sided operation has at least a byte")
        if command.size != self._size:
            self._memory = memoryview(b"")  # lets go of what is about to be closed
            target = self._regions.open(command.size)
            self._memory = target if self._regions.side == 1 else private_memory(command.size)
            self._size = command.size
        core: Any = _core
        try:
            times: bytes = core.bench_rdma(
                self._regions.endpoint,
                self._regions.peer,
                self._memory,
                self._regions.key,
                _OPERATIONS[command.operation],
                command.iterations,
                command.window,
                command.verify,
            )
        except RuntimeError as error:
            raise verification_or(error) from error
        return times

    def close(self) -> None:
        """Closes the endpoint."""
        self._regions.endpoint.close()
