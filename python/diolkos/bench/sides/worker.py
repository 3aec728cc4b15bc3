# SPDX-License-Identifier: Apache-2.0
"""What a side does with a command: the frame that every contender in Python fits into.

A :class:`Worker` runs one slice and returns the payload of its reply. :class:`PythonWorker` does
that with the compiled loops of :mod:`diolkos.bench.sides.loops` and leaves to its subclasses what
differs: the statements, the names in them, and how the two sides found each other. Memory is
allocated and touched when the size changes, never inside a timed loop.
"""

from __future__ import annotations

import struct
import time
from abc import ABC, abstractmethod
from array import array
from typing import Any

from diolkos.bench.control import Command, Operation
from diolkos.bench.sides.loops import Loop, Loops, Statements, compile_loops
from diolkos.bench.sides.payload import Pattern


class Unsupported(Exception):
    """The library cannot do what the command asks; the run goes on without that row."""


class Worker(ABC):
    """One side of one contender, inside its process."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the coordinator should know: ``library`` and, for ours, ``road``."""

    @abstractmethod
    def serve(self, command: Command) -> bytes:
        """Runs one slice. Raises VerificationError, :class:`Unsupported` or the library's error."""

    @abstractmethod
    def close(self) -> None:
        """Leaves the library in good order."""


class PythonWorker(Worker):
    """A worker whose loops are in Python. ``side`` is 0 (starts exchanges) or 1 (answers)."""

    statements: Statements

    def __init__(self, side: int) -> None:
        self.side = side
        self._size = -1
        self._loops: Loops | None = None
        self._times = array("Q")

    @abstractmethod
    def names(self) -> dict[str, Any]:
        """What the statements refer to, apart from the buffers."""

    def allocate(self, size: int) -> memoryview:
        """Memory for messages."""
        return memoryview(bytearray(size))

    def prepare(self, size: int) -> None:
        """Called before the first slice of a size, for what the library must set up."""

    def run(self, loop: Loop, *arguments: Any) -> None:
        """Runs a compiled loop."""
        loop(*arguments)

    def serve(self, command: Command) -> bytes:
        """Runs one slice with the loops for its size."""
        loops = self._prepare(command.size, command.iterations)
        if command.operation is Operation.PINGPONG:
            return self._pingpong(loops, command)
        if command.operation is Operation.ALREADY_THERE:
            return self._already_there(loops, command)
        return self._stream(loops, command)

    def close(self) -> None:
        """Nothing to leave, unless a subclass says so."""

    def _prepare(self, size: int, iterations: int) -> Loops:
        if len(self._times) < iterations + 1:
            self._times = array("Q", bytes(8 * (iterations + 1)))
        if size != self._size or self._loops is None:
            # One piece of memory each, of at least a word, so that an empty message has an address.
            self.outgoing = self.allocate(max(size, 8))[:size]
            self.incoming = self.allocate(max(size, 8))[:size]
            self.prepare(size)
            names = {
                "outgoing": self.outgoing,
                "incoming": self.incoming,
                "words_out": _word_of(self.outgoing),
                "words_in": _word_of(self.incoming),
                **self.names(),
            }
            self._loops = compile_loops(self.statements, size, names)
            self._size = size
        return self._loops

    def _pingpong(self, loops: Loops, command: Command) -> bytes:
        count = command.iterations
        if command.verify:
            loop = (loops.pingpong_verify_initiate, loops.pingpong_verify_respond)[self.side]
            self.run(loop, count, *self._patterns(command.size))
            return b""
        fresh = bytes(command.size) if command.touched else b""
        if self.side == 1:
            if command.touched:
                self.run(loops.pingpong_respond_touched, count, fresh)
            else:
                self.run(loops.pingpong_respond, count)
            return b""
        times = self._times
        if command.touched:
            loop = loops.pingpong_initiate_touched
            self.run(loop, count, times, time.perf_counter_ns, fresh)
        elif command.pause_us:
            pause_s = command.pause_us * 1e-6
            loop = loops.pingpong_initiate_paused
            self.run(loop, count, times, time.perf_counter_ns, pause_s, self.sleeper())
        else:
            self.run(loops.pingpong_initiate, count, times, time.perf_counter_ns)
        return self._differences(count)

    def _stream(self, loops: Loops, command: Command) -> bytes:
        outgoing, incoming = self._patterns(command.size) if command.verify else (None, None)
        windows = command.iterations // command.window
        if command.verify and self.side == 0:
            self.run(loops.stream_verify_send, command.iterations, outgoing)
        elif command.verify:
            self.run(loops.stream_verify_receive, command.iterations, incoming)
        elif self.side == 1:
            self.run(loops.stream_receive, 1, command.window)
            self.run(loops.stream_receive, windows, command.window)
        else:
            times, clock = array("Q", (0, 0)), time.perf_counter_ns
            self.run(loops.stream_send, 1, command.window, times, clock)  # not counted
            self.run(loops.stream_send, windows, command.window, times, clock)
            return struct.pack("=d", (times[1] - times[0]) * 1e-9)
        return b""

    def _already_there(self, loops: Loops, command: Command) -> bytes:
        if self.side == 1:
            self.run(loops.ready_send, command.iterations)
            return b""
        self.run(loops.ready_receive, command.iterations, self._times, time.perf_counter_ns)
        return self._differences(command.iterations)

    def _patterns(self, size: int) -> tuple[Pattern, Pattern]:
        return Pattern(size, self.side), Pattern(size, 1 - self.side)

    def sleeper(self) -> Any:
        """What the statement of a pause calls."""
        return time.sleep

    def _differences(self, count: int) -> bytes:
        times = self._times
        limit = 0xFFFF_FFFF
        return array("I", (min(times[i + 1] - times[i], limit) for i in range(count))).tobytes()


def _word_of(message: memoryview) -> memoryview:
    """The first word of a message, or the first byte of one that is shorter."""
    return message[:8].cast("Q") if len(message) >= 8 else message[:1]
