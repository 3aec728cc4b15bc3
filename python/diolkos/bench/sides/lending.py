# SPDX-License-Identifier: Apache-2.0
"""Loans: a side lends memory, the other reads a word of it where it lies and lends its own back.

Nothing is copied, so the size should not matter. The word that is read was written for this round::

    side 0                                   side 1
    writes a word, lends its memory          receives the loan, reads the word
    receives the loan, reads the word        lets go of it, writes the word, lends its memory
    lets go of it

All contenders get the same lines, as in :mod:`.loops`. What a contender needs of a size stays there
until the end, because slices of several sizes follow each other.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from array import array
from dataclasses import dataclass
from typing import Any

from diolkos.bench.control import Command
from diolkos.bench.sides.loops import WRONG_WORD, Loop, build_loop
from diolkos.bench.sides.payload import Pattern, VerificationError
from diolkos.bench.sides.worker import Unsupported, Worker

_WORD_BYTES = 8

_INITIATE = """
    times[0] = clock()
    for i in range(iterations):
        {take}
        {write_word}
        {lend}
        {receive}
        if {read_word} != i:
            raise VerificationError(WRONG_WORD)
        {let_go}
        {returned}
        times[i + 1] = clock()
"""

_RESPOND = """
    for i in range(iterations):
        {receive}
        if {read_word} != i:
            raise VerificationError(WRONG_WORD)
        {let_go}
        {take}
        {write_word}
        {lend}
        {returned}
"""

_VERIFY_INITIATE = """
    for i in range(iterations):
        {take}
        outgoing_pattern.fill({outgoing}, i)
        {lend}
        {receive}
        incoming_pattern.check({incoming}, i)
        {let_go}
        {returned}
"""

_VERIFY_RESPOND = """
    for i in range(iterations):
        {receive}
        incoming_pattern.check({incoming}, i)
        {let_go}
        {take}
        outgoing_pattern.fill({outgoing}, i)
        {lend}
        {returned}
"""


@dataclass(frozen=True)
class LoanStatements:
    """How one library lends and borrows, in the words of its user.

    The names come from the contender. ``i`` is the word.
    """

    write_word: str
    lend: str
    receive: str
    #: The word of the loan that was received.
    read_word: str
    let_go: str
    #: All of the memory that is lent, and all of the loan, as memoryviews.
    outgoing: str
    incoming: str
    #: Comes before writing, where memory is asked for anew for each loan.
    take: str = "pass"
    #: Waits until our memory may be written again.
    returned: str = "pass"


@dataclass(frozen=True)
class _Loops:
    timed: Loop
    verify: Loop


class LoanWorker(Worker):
    """A worker for loans in Python. ``side`` is 0 (starts) or 1 (answers)."""

    statements: LoanStatements

    def __init__(self, side: int) -> None:
        self.side = side
        self._times = array("Q")
        self._loops: dict[int, _Loops] = {}

    @abstractmethod
    def names(self, size: int) -> dict[str, Any]:
        """Makes what loans of ``size`` bytes need; what the statements refer to."""

    def serve(self, command: Command) -> bytes:
        """Runs one slice."""
        size, count = command.size, command.iterations
        if size == 0 or size % _WORD_BYTES != 0:
            raise Unsupported(f"a loan holds words of {_WORD_BYTES} bytes")
        if size not in self._loops:
            self._loops[size] = self._build(size)
        loops = self._loops[size]
        if command.verify:
            loops.verify(count, Pattern(size, self.side), Pattern(size, 1 - self.side))
            return b""
        if self.side == 1:
            loops.timed(count)
            return b""
        if len(self._times) < count + 1:
            self._times = array("Q", bytes(8 * (count + 1)))
        times = self._times
        loops.timed(count, times, time.perf_counter_ns)
        limit = 0xFFFF_FFFF
        return array("I", (min(times[i + 1] - times[i], limit) for i in range(count))).tobytes()

    def _build(self, size: int) -> _Loops:
        statements = vars(self.statements)
        names = {
            "VerificationError": VerificationError,
            "WRONG_WORD": WRONG_WORD,
            **self.names(size),
        }
        timed, parameters = (
            (_INITIATE, "iterations, times, clock"),
            (_RESPOND, "iterations"),
        )[self.side]
        verify = (_VERIFY_INITIATE, _VERIFY_RESPOND)[self.side]
        return _Loops(
            build_loop(timed.format(**statements), parameters, names, asynchronous=False),
            build_loop(
                verify.format(**statements),
                "iterations, outgoing_pattern, incoming_pattern",
                names,
                asynchronous=False,
            ),
        )
