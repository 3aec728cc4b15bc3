# SPDX-License-Identifier: Apache-2.0
"""One-sided operations of libraries in Python: side 0 works on memory of side 1.

What an operation costs depends on where the lines of the memory are. So between two operations side
1 touches all of its memory, as a program that uses the data would, and hands the turn over by an
empty message; only the operation is timed::

    side 0                                   side 1
    waits for its turn                       reads (or writes) all of the memory, gives the turn
    operates, by the clock
    gives the turn                           waits for its turn, checks a word

Operations of a few bytes are shorter than a reading of the clock. They are timed in batches, and
side 1 leaves the memory alone. All contenders get the same lines, as in :mod:`.loops`; the loops in
C (``native/memcpy_loop.c``, ``native/mpi_loop.c``) and ours in Rust do the same.
"""

from __future__ import annotations

import mmap
import time
from abc import abstractmethod
from array import array
from dataclasses import dataclass
from typing import Any

from diolkos.bench.control import Command, Operation
from diolkos.bench.sides.loops import WRONG_WORD, Loop, build_loop
from diolkos.bench.sides.payload import Pattern, VerificationError
from diolkos.bench.sides.worker import Unsupported, Worker

#: What an atomic operation adds.
ADDEND = 3
WORD_BYTES = 8

_TOUCHED_INITIATE = """
    times[0] = 0
    for i in range(iterations):
        {write_local}
        {wait_turn}
        begin = clock()
        {operate}
        times[i + 1] = times[i] + clock() - begin
        {check_local}
        {give_turn}
"""

_TOUCHED_RESPOND = """
    for i in range(iterations):
        {touch}
        {give_turn}
        {wait_turn}
        {check_target}
"""

_BATCHED_INITIATE = """
    times[0] = clock()
    for i in range(iterations):
        {write_local}
        for _ in range(batch):
            {operate}
        times[i + 1] = clock()
    {give_turn}
"""

_BATCHED_RESPOND = """
    i = iterations - 1
    {wait_turn}
    {check_target}
"""

_VERIFY_WRITE_INITIATE = """
    for i in range(iterations):
        pattern.fill(local, i)
        {operate}
        {give_turn}
        {wait_turn}
"""

_VERIFY_WRITE_RESPOND = """
    for i in range(iterations):
        {wait_turn}
        pattern.check(target, i)
        {give_turn}
"""

_VERIFY_READ_INITIATE = """
    for i in range(iterations):
        {wait_turn}
        {operate}
        pattern.check(local, i)
        {give_turn}
"""

_VERIFY_READ_RESPOND = """
    for i in range(iterations):
        pattern.fill(target, i)
        {give_turn}
        {wait_turn}
"""

_VERIFY_ATOMIC_INITIATE = """
    {wait_turn}
    for i in range(iterations):
        {operate}
        if {old_value} != i * addend:
            raise VerificationError("an atomic operation returned the wrong value")
    {give_turn}
"""

_VERIFY_ATOMIC_RESPOND = """
    target_words[0] = 0
    {give_turn}
    {wait_turn}
    if target_words[0] != iterations * addend:
        raise VerificationError("atomic operations got lost")
"""

_VERIFY = {
    Operation.RDMA_WRITE: (_VERIFY_WRITE_INITIATE, _VERIFY_WRITE_RESPOND),
    Operation.RDMA_READ: (_VERIFY_READ_INITIATE, _VERIFY_READ_RESPOND),
    Operation.RDMA_ATOMIC: (_VERIFY_ATOMIC_INITIATE, _VERIFY_ATOMIC_RESPOND),
}


@dataclass(frozen=True)
class OneSidedStatements:
    """How one library does it, in the words of its user.

    ``local`` is memory of side 0, of the operation's size; whatever else the statements name comes
    from the contender's ``names``. Each operation is complete at side 1 when its statement is.
    """

    write: str
    read: str
    #: Adds ``addend`` to the first word of side 1.
    atomic: str
    #: The value before that.
    old_value: str
    give_turn: str
    wait_turn: str


class OneSidedWorker(Worker):
    """A worker whose loops are in Python. ``side`` is 0 (operates) or 1 (has the memory)."""

    statements: OneSidedStatements

    def __init__(self, side: int) -> None:
        self.side = side
        self._size = -1
        self._times = array("Q")
        self._loops: dict[tuple[Operation, bool, int], Loop] = {}
        self.local = self.target = memoryview(b"")

    @abstractmethod
    def open_target(self, size: int) -> memoryview:
        """Opens memory of side 1 for side 0; both sides call it for each size.

        Returns that memory on side 1, and anything of no bytes on side 0.
        """

    @abstractmethod
    def names(self) -> dict[str, Any]:
        """What the statements refer to, apart from ``local`` and ``addend``."""

    def serve(self, command: Command) -> bytes:
        """Runs one slice."""
        if command.operation is Operation.RDMA_ATOMIC and command.size != WORD_BYTES:
            raise Unsupported(f"an atomic operation is one of {WORD_BYTES} bytes")
        if command.size == 0:
            raise Unsupported("a one-sided operation has at least a byte")
        self._prepare(command.size)
        loop = self._loop(command.operation, command.verify, command.window)
        count = command.iterations
        if command.verify:
            loop(count, Pattern(command.size, 0))
            return b""
        if self.side == 1:
            loop(count)
            return b""
        if len(self._times) < count + 1:
            self._times = array("Q", bytes(8 * (count + 1)))
        times = self._times
        loop(count, command.window, times, time.perf_counter_ns)
        limit = 0xFFFF_FFFF
        return array("I", (min(times[i + 1] - times[i], limit) for i in range(count))).tobytes()

    def _prepare(self, size: int) -> None:
        if size == self._size:
            return
        self._loops.clear()
        self.local = private_memory(size)
        self.target = memoryview(b"")  # lets go of what is about to be closed
        self.target = self.open_target(size)
        self._size = size

    def _loop(self, operation: Operation, verify: bool, batch: int) -> Loop:
        key = operation, verify, batch
        if key not in self._loops:
            self._loops[key] = self._build(operation, verify, batch)
        return self._loops[key]

    def _build(self, operation: Operation, verify: bool, batch: int) -> Loop:
        if verify:
            template, parameters = _VERIFY[operation][self.side], "iterations, pattern"
        elif self.side == 0:
            template = _TOUCHED_INITIATE if batch == 1 else _BATCHED_INITIATE
            parameters = "iterations, batch, times, clock"
        else:
            template = _TOUCHED_RESPOND if batch == 1 else _BATCHED_RESPOND
            parameters = "iterations"
        names = {
            "VerificationError": VerificationError,
            "WRONG_WORD": WRONG_WORD,
            "addend": ADDEND,
            "local": self.local,
            "local_words": words_of(self.local),
            "target": self.target,
            "target_words": words_of(self.target),
            "scratch": memoryview(bytearray(len(self.target))),
            **self.names(),
        }
        body = template.format(**self._words(operation))
        return build_loop(body, parameters, names, asynchronous=False)

    def _words(self, operation: Operation) -> dict[str, str]:
        statements = self.statements
        word = "i" if self._size >= WORD_BYTES else "i & 255"
        checked = "if {0}_words[0] != " + word + ": raise VerificationError(WRONG_WORD)"
        words = {
            "write_local": "pass",
            "check_local": "pass",
            "check_target": "pass",
            "touch": "pass",
            "old_value": statements.old_value,
            "give_turn": statements.give_turn,
            "wait_turn": statements.wait_turn,
        }
        if operation is Operation.RDMA_WRITE:
            words["operate"] = statements.write
            words["write_local"] = f"local_words[0] = {word}"
            words["touch"] = "scratch[:] = target"
            words["check_target"] = checked.format("target")
        elif operation is Operation.RDMA_READ:
            words["operate"] = statements.read
            words["touch"] = f"target[:] = scratch; target_words[0] = {word}"
            words["check_local"] = checked.format("local")
        else:
            words["operate"] = statements.atomic
        return words


def private_memory(size: int) -> memoryview:
    """Memory of this process, which begins with a page and is there already."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return memoryview(mmap.mmap(-1, size, flags=flags))


def words_of(memory: memoryview) -> memoryview:
    """The first word of some memory, or the first byte of one that is shorter."""
    return memory[:8].cast("Q") if len(memory) >= WORD_BYTES else memory[:1]
