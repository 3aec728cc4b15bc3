# SPDX-License-Identifier: Apache-2.0
"""``multiprocessing.shared_memory``: what a Python program does that will not copy its data.

A side has a block of its own for each size and writes into it; a pipe then says where the data lie,
by the name of the block and a place. The other side attaches a block when it first hears of it, and
reads the data there. The loan that comes back also says that the first one is over, so it costs no
message of its own.
"""

from __future__ import annotations

import multiprocessing.connection
import os
from multiprocessing import resource_tracker, shared_memory
from typing import Any

from diolkos.bench import control
from diolkos.bench.sides.lending import LoanStatements, LoanWorker


class SharedBlockWorker(LoanWorker):
    """One end of a pipe, and blocks whose names begin with ``prefix``."""

    statements = LoanStatements(
        write_word="words_out[0] = i",
        lend="send((name, 0))",
        receive="there, place = receive(); block = attached.get(there) or attach(there)",
        read_word="block[place]",
        let_go="del block",
        outgoing="outgoing",
        incoming="block.cast('B')[:size]",
    )

    def __init__(self, side: int, prefix: str) -> None:
        super().__init__(side)
        descriptor = int(os.environ[control.ENVIRONMENT_FDS])
        self._connection: Any = multiprocessing.connection.Connection(descriptor)
        self._prefix = prefix
        self._blocks: list[shared_memory.SharedMemory] = []
        self._attached: dict[str, memoryview] = {}

    def describe(self) -> dict[str, Any]:
        """Names the library."""
        return {"library": "multiprocessing.shared_memory, multiprocessing.Pipe"}

    def names(self, size: int) -> dict[str, Any]:
        """A block for loans of this size, and the pipe."""
        name = f"{self._prefix}{self.side}_{size}"
        block = shared_memory.SharedMemory(name, create=True, size=size)
        self._blocks.append(block)
        outgoing = _bytes_of(block)[:size]
        return {
            "outgoing": outgoing,
            "words_out": outgoing.cast("Q"),
            "name": name,
            "size": size,
            "send": self._connection.send,
            "receive": self._connection.recv,
            "attached": self._attached,
            "attach": self._attach,
        }

    def _attach(self, name: str) -> memoryview:
        """The words of a block of the other side."""
        block = shared_memory.SharedMemory(name)
        # The tracker would remove it with this process; it is the other side's to remove.
        resource_tracker.unregister(f"/{name}", "shared_memory")
        self._blocks.append(block)
        self._attached[name] = _bytes_of(block).cast("Q")
        return self._attached[name]

    def close(self) -> None:
        """Removes the blocks of this side; the mappings go with the process."""
        for block in self._blocks:
            if block.name.startswith(f"{self._prefix}{self.side}_"):
                block.unlink()
        self._connection.close()


def _bytes_of(block: shared_memory.SharedMemory) -> memoryview:
    """The memory of a block that is open."""
    assert block.buf is not None, "it is closed with the process"
    return block.buf
