# SPDX-License-Identifier: Apache-2.0
"""The loops of the Python contenders, run in one thread over a library that is a list."""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

import pytest

from diolkos.bench.control import Command, Operation, seconds_from, times_from
from diolkos.bench.sides.loops import Statements, compile_loops
from diolkos.bench.sides.payload import Pattern, VerificationError
from diolkos.bench.sides.worker import PythonWorker


def test_contents_depend_on_iteration_place_and_direction() -> None:
    first, other = Pattern(64, 0), Pattern(64, 1)
    messages = [first.message(i) for i in range(1000)]
    assert len(set(messages)) == 1000
    assert first.message(3) != other.message(3)
    assert first.message(3)[:32] != first.message(3)[32:]


@pytest.mark.parametrize("place", [0, 31, 63])
def test_one_wrong_byte_is_found(place: int) -> None:
    pattern = Pattern(64, 0)
    received = bytearray(pattern.message(5))
    pattern.check(memoryview(received), 5)
    received[place] ^= 1
    with pytest.raises(VerificationError, match=f"from byte {place}"):
        pattern.check(memoryview(received), 5)


def test_a_stale_message_is_found() -> None:
    pattern = Pattern(8, 0)
    with pytest.raises(VerificationError):
        pattern.check(memoryview(bytearray(pattern.message(4))), 5)


class Echo(PythonWorker):
    """Side 0 of a library that delivers to itself; ``spoil`` damages what it delivers."""

    statements = Statements(
        send="messages.append(bytes(outgoing))",
        receive="deliver(incoming)",
        send_back="messages.append(bytes(incoming))",
        acknowledge="messages.append(b'')",
        receive_acknowledgement="acknowledged()",
    )

    def __init__(self, spoil: bool = False) -> None:
        super().__init__(side=0)
        self.messages: deque[bytes] = deque()
        self._spoil = spoil

    def describe(self) -> dict[str, Any]:
        return {"library": "a list"}

    def names(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "deliver": self._deliver,
            "acknowledged": self.messages.clear,
        }

    def _deliver(self, incoming: memoryview) -> None:
        incoming[:] = self.messages.popleft()
        if self._spoil and len(incoming):
            incoming[0] ^= 1


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096])
def test_pingpong_times_every_iteration(size: int) -> None:
    times = times_from(Echo().serve(Command(Operation.PINGPONG, size, iterations=300)))
    assert len(times) == 300
    assert min(times) > 0


def test_pauses_are_not_in_the_times() -> None:
    command = Command(Operation.PINGPONG, 8, iterations=3, pause_us=20_000)
    assert max(times_from(Echo().serve(command))) < 20_000_000


def test_stream_returns_seconds_and_can_grow() -> None:
    worker = Echo()
    for iterations in (4, 64):
        assert seconds_from(worker.serve(Command(Operation.STREAM, 8, iterations, 4))) > 0


@pytest.mark.parametrize("size", [1, 8, 100])
def test_a_timed_pass_checks_its_word(size: int) -> None:
    with pytest.raises(VerificationError, match="word"):
        Echo(spoil=True).serve(Command(Operation.PINGPONG, size, iterations=4))


def test_a_verification_pass_checks_direction() -> None:
    # The list sends our own message back, and what comes from the other side looks different.
    with pytest.raises(VerificationError):
        Echo().serve(Command(Operation.PINGPONG, 64, iterations=4, verify=True))


def test_asynchronous_statements_make_coroutines() -> None:
    async def nothing() -> None:
        pass

    statements = Statements(
        send="await nothing()",
        receive="await nothing()",
        send_back="await nothing()",
        acknowledge="await nothing()",
        receive_acknowledgement="await nothing()",
        asynchronous=True,
    )
    names = {"nothing": nothing, "words_out": array("Q", [0]), "words_in": array("Q", [0])}
    loops = compile_loops(statements, 8, names)
    times = array("Q", [0, 0])
    coroutine = loops.pingpong_initiate(1, times, lambda: 5)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert list(times) == [5, 5]
