# SPDX-License-Identifier: Apache-2.0
"""Ours, the Python face: the public API and nothing else."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import diolkos
from diolkos.bench.sides.loops import Statements
from diolkos.bench.sides.worker import PythonWorker

#: How long the two sides wait for each other, and for the backend.
CONNECT_LIMIT_S = 30.0


class EndpointWorker(PythonWorker):
    """One endpoint called ``name``, connected to the one called ``peer`` on ``road``."""

    # The defaults of match info and source, as mpi4py's loop takes the default tag.
    statements = Statements(
        send="send(outgoing, peer)",
        receive="recv_into(incoming)",
        send_back="send(incoming, peer)",
        acknowledge="send(nothing, peer)",
        receive_acknowledgement="recv_into(nothing)",
    )

    def __init__(self, side: int, name: str, peer: str, road: str, memory: str) -> None:
        super().__init__(side)
        self._memory = memory
        self._endpoint = diolkos.Endpoint(name)
        self._peer = connect(self._endpoint, peer, road)

    def describe(self) -> dict[str, Any]:
        """Names the library and the road that was taken."""
        return {"library": library("blocking"), "road": self._peer.road}

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

    def close(self) -> None:
        """Closes the endpoint."""
        self._endpoint.close()


def library(face: str) -> str:
    """The library as rows name it; a checkout that was never installed has no version."""
    try:
        return f"diolkos {importlib.metadata.version('diolkos')}, {face}"
    except importlib.metadata.PackageNotFoundError:
        return f"diolkos, {face}"


def arena_memory(endpoint: Any, size: int) -> memoryview:
    """Memory of an endpoint of either face; it goes back when nothing looks at it any more."""
    return memoryview(endpoint.alloc(size))


def connect(endpoint: diolkos.Endpoint, peer: str | int, road: str) -> diolkos.Peer:
    """Waits for ``peer`` and connects to it; both sides call this and share one channel."""
    return endpoint.connect(peer, road=road, timeout=CONNECT_LIMIT_S)
