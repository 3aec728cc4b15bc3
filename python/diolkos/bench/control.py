# SPDX-License-Identifier: Apache-2.0
"""The words between the coordinator of a benchmark and the sides of its contenders.

Every contender has two sides, each a process of its own. Each side holds one Unix stream socket
to the coordinator and knows three kinds of packets::

    side  -> coordinator   hello    once, when its library is up: what library it is, as JSON
    coordinator -> side    command  run one slice (or finish), 40 bytes
    side  -> coordinator   reply    what came out of it

A side that has nothing to do sleeps in ``read()`` on this socket, outside its library, so that a
waiting contender costs the running one nothing. Coordinator and sides are on one machine:
numbers are in the machine's byte order, and ``native/side.h`` says the same in C.

Which contender a side belongs to is known by the socket it came through; which of the two sides
it is, it says itself, because under an MPI launcher only the rank knows.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
import time
from array import array
from dataclasses import dataclass
from typing import Any

ENVIRONMENT_SOCKET = "DIOLKOS_BENCH_SOCKET"
ENVIRONMENT_CPUS = "DIOLKOS_BENCH_CPUS"
ENVIRONMENT_SIDE = "DIOLKOS_BENCH_SIDE"
ENVIRONMENT_FDS = "DIOLKOS_BENCH_FDS"

#: A side ends itself when one slice lasts so long: nothing spins on after a lost coordinator.
SLICE_LIMIT_S = 60

#: The most that one reply may carry: the times of the longest slice, with room to spare.
REPLY_BYTES_MAX = 64 << 20

_COMMAND = struct.Struct("=IIQQQQ")
_REPLY = struct.Struct("=IIQ")


class Operation(enum.IntEnum):
    """What a side is asked to do."""

    QUIT = 0
    PINGPONG = 1
    STREAM = 2
    RATE = 3
    #: Side 1 sends a window of messages and then a marker; side 0 times receives of what is there.
    ALREADY_THERE = 4
    #: Side 0 times batches of ``window`` tests of a receive that nothing matches; side 1 is silent.
    INCOMPLETE_TEST = 5
    #: Side 0 writes into memory of side 1, reads from it, or adds to a word of it.
    RDMA_WRITE = 6
    RDMA_READ = 7
    RDMA_ATOMIC = 8
    #: A loan crosses, and another one comes back.
    LOAN = 9

    @property
    def is_one_sided(self) -> bool:
        """Whether side 0 works on memory of side 1, which only touches it between."""
        return self in (Operation.RDMA_WRITE, Operation.RDMA_READ, Operation.RDMA_ATOMIC)

    @property
    def is_round_trip(self) -> bool:
        """Whether a time is that of a round trip, of which half is reported."""
        return self in (Operation.PINGPONG, Operation.LOAN)

    @property
    def takes_times(self) -> bool:
        """Whether each iteration has a time, rather than the slice a rate."""
        return self.is_one_sided or self.is_round_trip


class ReplyKind(enum.IntEnum):
    """What a side answers."""

    HELLO = 1
    DONE = 2
    FAILED = 3


class Fault(enum.IntEnum):
    """Why a side failed; the numbers are shared with the C sides."""

    VERIFICATION = 1
    LIBRARY = 2
    UNSUPPORTED = 3


class SideError(Exception):
    """A side failed, vanished or stayed silent; ``fault`` says which of these matters."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Command:
    """One slice of work, the same for both sides of a contender."""

    operation: Operation
    size: int = 0
    #: Round trips of a ping-pong; messages of a stream, a multiple of ``window``; times to take of
    #: one-sided operations.
    iterations: int = 0
    #: Messages between two acknowledgements of a stream; one-sided operations that a time stands
    #: for, where 1 is one that is timed alone, on memory that side 1 has just touched.
    window: int = 1
    #: Microseconds that the initiator sleeps before each round trip.
    pause_us: int = 0
    #: Write and check every byte, and take no times.
    verify: bool = False
    #: Both sides write their message anew before each round trip, outside of the time.
    touched: bool = False

    def pack(self) -> bytes:
        """The command as the 40 bytes that cross the socket."""
        flags = self.verify | self.touched << 1
        return _COMMAND.pack(
            self.operation, flags, self.size, self.iterations, self.window, self.pause_us
        )

    @classmethod
    def unpack(cls, packet: bytes) -> Command:
        """The inverse of :meth:`pack`. Raises ValueError for an operation that does not exist."""
        operation, flags, size, iterations, window, pause_us = _COMMAND.unpack(packet)
        verify, touched = bool(flags & 1), bool(flags & 2)
        return cls(Operation(operation), size, iterations, window, pause_us, verify, touched)


class Line:
    """One end of a control socket, with whole packets in and out."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes this end; the other end reads an end of file."""
        self._socket.close()

    # What the coordinator does.

    def send_command(self, command: Command) -> None:
        """Starts a slice. Raises :class:`SideError` when the side is gone."""
        try:
            self._socket.sendall(command.pack())
        except OSError as error:
            raise SideError(Fault.LIBRARY, f"the side is gone: {error.strerror}") from error

    def receive_reply(self, deadline: float) -> tuple[ReplyKind, int, bytes]:
        """Kind, status and payload of the next reply.

        ``deadline`` is on the monotonic clock, in seconds. Raises :class:`SideError` when the
        side is gone, stays silent until then, or answers with a fault.
        """
        kind_number, status, size = _REPLY.unpack(self._receive(_REPLY.size, deadline))
        if size > REPLY_BYTES_MAX:
            raise SideError(Fault.LIBRARY, f"the side announced a reply of {size} bytes")
        payload = self._receive(size, deadline)
        kind = ReplyKind(kind_number)
        if kind is ReplyKind.FAILED:
            raise SideError(Fault(status), payload.decode(errors="replace"))
        return kind, status, payload

    # What a side does.

    def receive_command(self) -> Command | None:
        """The next command, None at the end of file: the coordinator is gone."""
        try:
            return Command.unpack(self._receive(_COMMAND.size, None))
        except SideError:
            return None

    def send_hello(self, side: int, description: dict[str, Any]) -> None:
        """Says that the library is up and what it is."""
        self._send(ReplyKind.HELLO, side, json.dumps(description).encode())

    def send_done(self, payload: bytes = b"") -> None:
        """Ends a slice with its times."""
        self._send(ReplyKind.DONE, 0, payload)

    def send_failed(self, fault: Fault, message: str) -> None:
        """Ends a slice with a fault."""
        self._send(ReplyKind.FAILED, fault, message.encode())

    def _send(self, kind: ReplyKind, status: int, payload: bytes) -> None:
        self._socket.sendall(_REPLY.pack(kind, status, len(payload)) + payload)

    def _receive(self, size: int, deadline: float | None) -> bytes:
        received = bytearray(size)
        missing = memoryview(received)
        while missing:
            if deadline is not None:
                self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                count = self._socket.recv_into(missing)
            except TimeoutError as error:
                raise SideError(Fault.LIBRARY, "the side stays silent") from error
            except OSError as error:
                raise SideError(Fault.LIBRARY, f"the side is gone: {error.strerror}") from error
            if count == 0:
                raise SideError(Fault.LIBRARY, "the side ended by itself")
            missing = missing[count:]
        return bytes(received)


def times_from(payload: bytes) -> array[int]:
    """The round-trip nanoseconds of a ping-pong reply."""
    times = array("I")
    times.frombytes(payload)
    return times


def seconds_from(payload: bytes) -> float:
    """The seconds of a stream reply."""
    seconds: float
    (seconds,) = struct.unpack("=d", payload)
    return seconds
