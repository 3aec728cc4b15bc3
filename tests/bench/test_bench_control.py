# SPDX-License-Identifier: Apache-2.0
"""The packets between the coordinator and the sides."""

from __future__ import annotations

import socket
import struct
import time
from array import array
from collections.abc import Iterator

import pytest

from diolkos.bench.control import (
    Command,
    Fault,
    Line,
    Operation,
    ReplyKind,
    SideError,
    seconds_from,
    times_from,
)


@pytest.fixture
def lines() -> Iterator[tuple[Line, Line]]:
    """The coordinator's end and a side's end."""
    ends = [Line(end) for end in socket.socketpair()]
    yield ends[0], ends[1]
    for end in ends:
        end.close()


def soon() -> float:
    return time.monotonic() + 5


def test_a_command_crosses_whole(lines: tuple[Line, Line]) -> None:
    coordinator, side = lines
    command = Command(Operation.RATE, 1 << 40, 3, 64, 2000, verify=True)
    coordinator.send_command(command)
    assert side.receive_command() == command
    assert len(command.pack()) == 40, "native/side.h reads 40 bytes"


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        Command.unpack(struct.pack("=IIQQQQ", 99, 0, 0, 0, 0, 0))


def test_replies_carry_times_and_seconds(lines: tuple[Line, Line]) -> None:
    coordinator, side = lines
    side.send_done(array("I", [1, 2, 3]).tobytes())
    kind, _, payload = coordinator.receive_reply(soon())
    assert kind is ReplyKind.DONE
    assert list(times_from(payload)) == [1, 2, 3]
    side.send_done(struct.pack("=d", 0.25))
    assert seconds_from(coordinator.receive_reply(soon())[2]) == 0.25


def test_a_fault_becomes_an_error(lines: tuple[Line, Line]) -> None:
    coordinator, side = lines
    side.send_failed(Fault.VERIFICATION, "wrong from byte 9")
    with pytest.raises(SideError, match="wrong from byte 9") as caught:
        coordinator.receive_reply(soon())
    assert caught.value.fault is Fault.VERIFICATION


def test_a_side_that_ends_or_stays_silent_is_an_error(lines: tuple[Line, Line]) -> None:
    coordinator, side = lines
    with pytest.raises(SideError, match="silent"):
        coordinator.receive_reply(time.monotonic())
    side.close()
    with pytest.raises(SideError, match="ended"):
        coordinator.receive_reply(soon())


def test_a_side_learns_that_its_coordinator_is_gone(lines: tuple[Line, Line]) -> None:
    coordinator, side = lines
    coordinator.close()
    assert side.receive_command() is None
