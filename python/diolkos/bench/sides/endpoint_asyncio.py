# SPDX-License-Identifier: Apache-2.0
"""Ours, the asyncio face: the same statements as the Python face, with ``await``."""

from __future__ import annotations

import asyncio
from typing import Any

import diolkos
import diolkos.asyncio
from diolkos.bench.sides.endpoint import CONNECT_LIMIT_S, arena_memory, library
from diolkos.bench.sides.loops import Loop, Statements
from diolkos.bench.sides.worker import PythonWorker


class AsyncioWorker(PythonWorker):
    """One endpoint called ``name`` in an event loop, connected to ``peer`` on ``road``."""

    # The defaults of match info and source, as mpi4py's loop takes the default tag.
    statements = Statements(
        send="await send(outgoing, peer)",
        receive="await recv_into(incoming)",
        send_back="await send(incoming, peer)",
        acknowledge="await send(nothing, peer)",
        receive_acknowledgement="await recv_into(nothing)",
        asynchronous=True,
    )

    def __init__(self, side: int, name: str, peer: str, road: str, memory: str) -> None:
        super().__init__(side)
        self._memory = memory
        self._runner = asyncio.Runner()
        self._runner.run(self._open(name, peer, road))

    async def _open(self, name: str, peer: str, road: str) -> None:
        self._endpoint = diolkos.asyncio.Endpoint(name)
        self._peer = await self._endpoint.connect(peer, road=road, timeout=CONNECT_LIMIT_S)

    def describe(self) -> dict[str, Any]:
        """Names the library and the road that was taken."""
        return {"library": library("asyncio"), "road": self._peer.road}

    def allocate(self, size: int) -> memoryview:
        """Memory for messages, from the endpoint's arena where that was asked for."""
        if self._memory == "arena":
            return arena_memory(self._endpoint, size)
        return super().allocate(size)

    def names(self) -> dict[str, Any]:
        """The endpoint's methods and the peer."""
        return {
            "send": self._endpoint.send,
            "recv_into": self._endpoint.recv_into,
            "peer": self._peer,
            "nothing": bytearray(0),
        }

    def run(self, loop: Loop, *arguments: Any) -> None:
        """Runs a compiled loop in the event loop."""
        self._runner.run(loop(*arguments))

    def sleeper(self) -> Any:
        """A pause lets the event loop run."""
        return asyncio.sleep

    def close(self) -> None:
        """Closes the endpoint and the event loop."""

        async def close() -> None:
            self._endpoint.close()

        self._runner.run(close())
        self._runner.close()
