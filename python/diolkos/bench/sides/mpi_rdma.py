# SPDX-License-Identifier: Apache-2.0
"""mpi4py: a window of one-sided memory, open to the other rank all the time (passive target).

The window is made by ``Win.Allocate``, so that the library may choose memory that both can map. An
operation is followed by ``Flush``: then it is complete at the target, as ours is when it returns.
"""

from __future__ import annotations

from array import array
from typing import Any

from diolkos.bench.sides.mpi import Ranks
from diolkos.bench.sides.one_sided import ADDEND, OneSidedStatements, OneSidedWorker

_TARGET = 1


class MpiRdmaWorker(OneSidedWorker):
    """One of two ranks; the rank is the side."""

    statements = OneSidedStatements(
        write="put(local_spec, 1); flush(1)",
        read="get(local_spec, 1); flush(1)",
        atomic="fetch_and_op(addend_spec, old_spec, 1, 0, add); flush(1)",
        old_value="old[0]",
        give_turn="sync(); send(nothing, peer)",
        wait_turn="recv(nothing, peer); sync()",
    )

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self._ranks = Ranks(side)
        self._window: Any = None

    def describe(self) -> dict[str, Any]:
        """Names binding and library."""
        return {"library": self._ranks.library()}

    def open_target(self, size: int) -> memoryview:
        """A window for one size; the one before is closed, which both ranks do together."""
        self._close_window()
        own = size if self.side == _TARGET else 0
        self._window = self._ranks.mpi.Win.Allocate(own, 1, comm=self._ranks.world)
        self._window.Lock_all()
        return memoryview(self._window.tomemory())

    def names(self) -> dict[str, Any]:
        """The window's methods, and the buffers described once."""
        mpi, window, world = self._ranks.mpi, self._window, self._ranks.world
        old = array("Q", [0])
        return {
            "put": window.Put,
            "get": window.Get,
            "fetch_and_op": window.Fetch_and_op,
            "flush": window.Flush,
            "sync": window.Sync,
            "send": world.Send,
            "recv": world.Recv,
            "peer": 1 - self.side,
            "add": mpi.SUM,
            "local_spec": [self.local, len(self.local), mpi.BYTE],
            "addend_spec": [array("Q", [ADDEND]), mpi.UINT64_T],
            "old_spec": [old, mpi.UINT64_T],
            "old": old,
            "nothing": [bytearray(1), 0, mpi.BYTE],
        }

    def close(self) -> None:
        """Closes the window and meets the other rank in MPI_Finalize."""
        self._close_window()
        self._ranks.mpi.Finalize()

    def _close_window(self) -> None:
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None
