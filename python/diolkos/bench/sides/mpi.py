# SPDX-License-Identifier: Apache-2.0
"""mpi4py: its buffer methods (upper case), which are its fast ones, under an MPI launcher."""

from __future__ import annotations

import importlib
from typing import Any

from diolkos.bench.sides.loops import Statements
from diolkos.bench.sides.worker import PythonWorker


class Ranks:
    """The two ranks that a launcher of the library started; the rank is the side."""

    def __init__(self, side: int) -> None:
        self.mpi: Any = importlib.import_module("mpi4py.MPI")
        self.world = self.mpi.COMM_WORLD
        if self.world.Get_size() != 2 or self.world.Get_rank() != side:
            raise RuntimeError("mpi4py was not started as two ranks by the launcher of its library")

    def library(self) -> str:
        """Names binding and library."""
        version = importlib.import_module("mpi4py").__version__
        library = self.mpi.Get_library_version().split("\n")[0].split(",")[0].strip("\0 ")
        return f"mpi4py {version}, {library}"


class MpiWorker(PythonWorker):
    """One of two ranks; the rank is the side."""

    statements = Statements(
        send="send(out_spec, peer)",
        receive="recv(in_spec, peer)",
        send_back="send(in_spec, peer)",
        acknowledge="send(nothing, peer, 8)",
        receive_acknowledgement="recv(nothing, peer, 8)",
    )

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self._ranks = Ranks(side)

    def describe(self) -> dict[str, Any]:
        """Names binding and library."""
        return {"library": self._ranks.library()}

    def names(self) -> dict[str, Any]:
        """The communicator's methods, and the buffers described once."""
        byte = self._ranks.mpi.BYTE
        return {
            "send": self._ranks.world.Send,
            "recv": self._ranks.world.Recv,
            "peer": 1 - self.side,
            "out_spec": [self.outgoing, len(self.outgoing), byte],
            "in_spec": [self.incoming, len(self.incoming), byte],
            "nothing": [bytearray(1), 0, byte],
        }

    def close(self) -> None:
        """Meets the other rank in MPI_Finalize."""
        self._ranks.mpi.Finalize()
