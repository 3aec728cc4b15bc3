# SPDX-License-Identifier: Apache-2.0
"""The switched road: two channels and a relay that look like one channel.

Cells are written and read by hand, as `docs/reference/channel.md` describes them, so that nothing
of the endpoints' own code is needed to see them cross.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from conftest import RunningBackend, running
from rawclient import PATIENCE_S, End, RawClient, check_end, is_readable, mapped, ring

pytest.importorskip("diolkos._core", reason="the relay is in the native module")

CELLS = 0x1000
CONSUMED, SLEEPING, CLOSING = 0x40, 0x80, 0xC0
# The stamp of the first cell, a kind, no flags, eight bytes inline.
FIRST_HEAD = struct.pack("<IBBH", 1, 3, 0, 8)


def _publish(end: End, payload: bytes) -> None:
    """Writes the first cell of this direction and rings."""
    end.outgoing[CELLS + 8 : CELLS + 32] = struct.pack("<3Q", 11, 22, 33)
    end.outgoing[CELLS + 32 : CELLS + 40] = payload
    end.outgoing[CELLS : CELLS + 8] = FIRST_HEAD
    ring(end.bell)


def _await(end: End, offset: int, expected: bytes) -> None:
    """Waits, asleep, until the relay has written `expected` into the incoming file."""
    end.outgoing[SLEEPING : SLEEPING + 8] = struct.pack("<Q", 3)
    deadline = time.monotonic() + PATIENCE_S
    while end.incoming[offset : offset + len(expected)] != expected:
        left = deadline - time.monotonic()
        assert left > 0
        # At least now and then without a doorbell: what we wait for may precede our sleep.
        select.select([end.bell], [], [], min(left, 0.01))


@contextmanager
def _switched(backend: RunningBackend) -> Iterator[tuple[RawClient, RawClient, End, End]]:
    with ExitStack() as stack:
        a = stack.enter_context(backend.client())
        b = stack.enter_context(backend.client())
        a.open("a")
        b.open("b")
        a.send("connect", target="b", road="switched")
        introduced = b.expect("introduced", road="switched")
        connected = a.expect("connected", road="switched", channel=introduced["channel"])
        assert connected["reason"].startswith("asked for")
        check_end(connected, direction=0)
        check_end(introduced, direction=1)
        at_a = stack.enter_context(mapped(connected))
        at_b = stack.enter_context(mapped(introduced))
        yield a, b, at_a, at_b


def test_cells_cross_both_ways(backend: RunningBackend) -> None:
    with _switched(backend) as (_, _, at_a, at_b):
        # The two ends have no file in common.
        inodes = {os.fstat(fd).st_ino for end in (at_a, at_b) for fd in end.packet.fds[:2]}
        assert len(inodes) == 4
        for near, far, payload in ((at_a, at_b, b"to the b"), (at_b, at_a, b"to the a")):
            _publish(near, payload)
            _await(far, CELLS, FIRST_HEAD)
            words = struct.pack("<3Q", 11, 22, 33)
            assert far.incoming[CELLS + 8 : CELLS + 40] == words + payload
            _await(near, CONSUMED, struct.pack("<Q", 1))


def test_the_process_at_the_other_end_is_the_backend(backend: RunningBackend) -> None:
    with _switched(backend) as (_, _, at_a, at_b):
        assert not is_readable(at_a.process)
        backend.end(9)
        assert is_readable(at_a.process, PATIENCE_S)
        assert is_readable(at_b.process, PATIENCE_S)


def test_the_last_words_of_an_endpoint_that_leaves_arrive(backend: RunningBackend) -> None:
    with _switched(backend) as (a, b, at_a, at_b):
        _publish(at_a, b"farewell")
        a.socket.close()
        b.expect("gone")
        _await(at_b, CELLS, FIRST_HEAD)
        assert at_b.incoming[CELLS + 32 : CELLS + 40] == b"farewell"
        _await(at_b, CLOSING, struct.pack("<Q", 1))


def test_an_endpoint_that_breaks_the_ring_ends_its_channel_only(backend: RunningBackend) -> None:
    with _switched(backend) as (a, b, at_a, at_b):
        # An inline payload of 33 bytes.
        at_a.outgoing[CELLS : CELLS + 8] = struct.pack("<IBBH", 1, 3, 0, 33)
        ring(at_a.bell)
        _await(at_b, CLOSING, struct.pack("<Q", 1))
        _await(at_a, CLOSING, struct.pack("<Q", 1))
        a.round_trip()
        b.round_trip()


def test_relays_leave_nothing_behind(backend: RunningBackend) -> None:
    """More of them, one after the other, than may linger at once."""
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        a.round_trip()
        used = backend.fd_count()
        for _ in range(100):
            a.send("connect", target="b", road="switched")
            channel = a.expect("connected")["channel"]
            b.expect("introduced")
            a.send("disconnect", channel=channel)
            b.expect("gone")
            for client in (a, b):
                while client.packets:
                    client.packets.pop().close()
        deadline = time.monotonic() + PATIENCE_S
        while backend.fd_count() > used or _relay_threads(backend):
            a.round_trip()
            assert time.monotonic() < deadline


def _relay_threads(backend: RunningBackend) -> int:
    tasks = Path(f"/proc/{backend.pid}/task")
    return sum((task / "comm").read_text().strip() == "diolkos-relay" for task in tasks.iterdir())


def test_a_policy_can_switch_a_partition(runtime_dir: Path, policy_file: Path) -> None:
    policy_file.write_text(
        f'version = 1\n[[partition]]\nname = "p"\nusers = [{os.getuid()}]\nroad = "switched"\n'
    )
    policy_file.chmod(0o600)
    options = ("--policy", str(policy_file))
    with running(runtime_dir, *options) as backend, ExitStack() as stack:
        a = stack.enter_context(backend.client())
        b = stack.enter_context(backend.client())
        a.open("a", partition="p")
        b.open("b", partition="p")
        a.send("connect", target="b")
        reason = a.expect("connected", road="switched")["reason"]
        assert reason.startswith("the policy wants it")
        b.expect("introduced", road="switched")
