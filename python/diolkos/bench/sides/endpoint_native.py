# SPDX-License-Identifier: Apache-2.0
"""Ours, the native face: the loops are in Rust, and Python only starts them.

``crates/python/src/bench.rs`` holds the loops; ``native/mpi_loop.c`` does the same with MPI.
"""

from __future__ import annotations

import struct
import time
from functools import partial
from typing import Any

import diolkos
from diolkos import _core
from diolkos.bench.control import Command, Operation
from diolkos.bench.sides.endpoint import connect, library
from diolkos.bench.sides.payload import VerificationError
from diolkos.bench.sides.worker import Unsupported, Worker


class NativeWorker(Worker):
    """One endpoint called ``name``, connected to the one called ``peer`` on ``road``."""

    def __init__(self, side: int, name: str, peer: str, road: str, memory: str) -> None:
        self._initiator = side == 0
        core: Any = _core
        self._arena = memory == "arena"
        self._round_trips = core.bench_pingpong
        if self._arena:
            # Messages in the endpoint's arena, written anew before each round trip.
            self._round_trips = partial(core.bench_pingpong, arena=True)
        self._endpoint = diolkos.Endpoint(name)
        self._peer = connect(self._endpoint, peer, road)

    def describe(self) -> dict[str, Any]:
        """Names the library and the road that was taken."""
        return {"library": library("native"), "road": self._peer.road}

    def serve(self, command: Command) -> bytes:
        """Runs one slice in Rust."""
        if command.operation is not Operation.PINGPONG:
            return self._stream(command)
        if command.touched and not self._arena:
            raise Unsupported("the loop for plain messages does not write them anew")
        if command.pause_us == 0 or command.verify:
            return self._pingpong(command, command.iterations)
        pieces = []
        for _ in range(command.iterations):
            if self._initiator:
                time.sleep(command.pause_us * 1e-6)
            pieces.append(self._pingpong(command, 1))
        return b"".join(pieces)

    def _pingpong(self, command: Command, iterations: int) -> bytes:
        try:
            times: bytes = self._round_trips(
                self._endpoint,
                self._peer,
                command.size,
                iterations,
                self._initiator,
                command.verify,
            )
        except RuntimeError as error:
            raise verification_or(error) from error
        return times

    def _stream(self, command: Command) -> bytes:
        if command.verify:
            return self._pingpong(command, command.iterations)
        run = partial(_core.bench_rate, self._endpoint, self._peer, command.size)
        run(command.window, command.window, self._initiator)  # not counted
        seconds = run(command.iterations, command.window, self._initiator)
        return struct.pack("=d", seconds) if self._initiator else b""

    def close(self) -> None:
        """Closes the endpoint."""
        self._endpoint.close()


def verification_or(error: RuntimeError) -> Exception:
    """The error of a loop in Rust, as the one that it means."""
    return VerificationError(str(error)) if "wrong contents" in str(error) else error
