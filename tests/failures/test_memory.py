# SPDX-License-Identifier: Apache-2.0
"""What idle endpoints and idle channels cost, in resident memory.

Resident are the pages of the granted files (`memfd:diolkos...`, both directions, and a page that
both ends map is counted at both: an end is charged with all that it can see), and what the rest of
the process grows by. Means over many, so that the allocator's steps do not matter.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import diolkos
import diolkos.asyncio
from diolkos.testing import Side, pair
from disasters import PATIENCE_S, Program, RunningBackend, mappings, until

KIB = 1024
ENDPOINT_BYTES_MAX = 1024 * KIB
CHANNEL_BYTES_MAX = 256 * KIB
MANY = 64

PEERS = """
import contextlib
with contextlib.ExitStack() as stack:
    for i in range(int(sys.argv[1])):
        ep = stack.enter_context(diolkos.Endpoint(f"peer-{i}", start_backend=False))
        to = ep.connect("alice")
        ep.send(b"hello", to)
        ep.recv()
    say("all here")
    hear()
"""


def resident() -> tuple[int, int]:
    """Resident bytes of this process: of granted memory, and of everything else."""
    granted = everything = 0
    mine = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            mine = "/memfd:diolkos" in line
        elif line.startswith("Rss:"):
            bytes_here = int(line.split()[1]) * KIB
            everything += bytes_here
            granted += bytes_here if mine else 0
    return granted, everything - granted


def carry(alice: Side, bob: Side, data: bytes) -> None:
    """A message from one end to the other, in one thread."""
    receive = bob.endpoint.irecv(len(data), match=1)
    send = alice.endpoint.isend(data, alice.peer, match=1)
    until("the message", lambda: None not in (send.test(), receive.test()))
    assert receive.message == data


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Lines that are shown also when the test passes."""
    lines: list[str] = []
    yield lines
    with capsys.disabled():
        for line in lines:
            print(f"\n  {line}", end="")


def test_an_idle_endpoint(backend: RunningBackend, report: list[str]) -> None:
    diolkos.Endpoint("warm-up").close()
    with ExitStack() as stack:
        before = sum(resident())
        for _ in range(MANY):
            stack.enter_context(diolkos.Endpoint(start_backend=False))
        each = (sum(resident()) - before) / MANY
    report.append(f"an idle endpoint: {each / KIB:.1f} KiB resident")
    assert each <= ENDPOINT_BYTES_MAX


def test_an_idle_channel(backend: RunningBackend, report: list[str]) -> None:
    """Channels to another process, over each of which a message has gone each way."""
    with diolkos.Endpoint("alice", start_backend=False) as alice:
        with pair() as (one, other):
            one.endpoint.send(b"warm-up", one.peer)
            other.endpoint.recv()
        granted_before, rest_before = resident()
        mapped_before = mappings()[1]
        with Program(PEERS, MANY) as peers:
            for _ in range(MANY):
                message = alice.recv(timeout=PATIENCE_S)
                alice.send(b"hello", message.source)
                del message
            assert peers.line() == "all here"
            granted, rest = resident()
            assert len(alice.peers) == MANY
            each = (granted - granted_before) / MANY
            private = (rest - rest_before) / MANY
            report.append(f"an idle channel: {each / KIB:.1f} KiB granted memory resident")
            report.append(f"and {private / KIB:.1f} KiB of the process's own")
            assert each + private <= CHANNEL_BYTES_MAX
            peers.tell()
            peers.succeed()
        # The last of them said farewell before its process ended.

        def alone() -> bool:
            alice.progress()
            return not alice.peers

        until("the end of the channels", alone)
        # Their lines of counters in the home file stay, and nothing else.
        assert mappings()[1] == mapped_before


def test_a_channel_that_was_busy_and_is_idle(report: list[str]) -> None:
    """Bulk traffic takes pages, and an endpoint that sleeps for a second gives them back."""
    data = bytes(8 << 20)
    with pair() as (alice, bob):
        granted_before = resident()[0]
        for _ in range(8):
            carry(alice, bob, data)
        # The receiver says that it is done with the last piece when it next does anything.
        bob.endpoint.progress()
        busy = resident()[0] - granted_before
        assert busy > CHANNEL_BYTES_MAX, "nothing to give back: the test tests nothing"
        receive = alice.endpoint.irecv(8)
        sleeper = threading.Thread(target=receive.wait)
        sleeper.start()
        try:
            bound = 2 * CHANNEL_BYTES_MAX
            until("giving back", lambda: resident()[0] - granted_before <= bound)
        finally:
            bob.endpoint.send(b"wake up", bob.peer)
            sleeper.join()
        idle = resident()[0] - granted_before
        report.append(
            f"both ends busy: {busy / KIB:.0f} KiB, idle again: {idle / KIB:.0f} KiB more"
        )
        # And it still works.
        carry(alice, bob, data)


def test_a_channel_that_was_busy_while_its_loop_is_idle() -> None:
    """The same for an endpoint that waits in an event loop."""
    data = bytes(8 << 20)
    with pair() as (alice, bob):
        granted_before = resident()[0]
        for _ in range(8):
            carry(alice, bob, data)
        bob.endpoint.progress()
        assert resident()[0] - granted_before > CHANNEL_BYTES_MAX
        waiting = diolkos.asyncio.Endpoint.of(alice.endpoint)

        async def main() -> None:
            receive = asyncio.create_task(waiting.recv())
            deadline = asyncio.get_running_loop().time() + PATIENCE_S
            while resident()[0] - granted_before > 2 * CHANNEL_BYTES_MAX:
                assert asyncio.get_running_loop().time() < deadline, "nothing was given back"
                # The loop has nothing else to do, as that of an idle program.
                await asyncio.wait([receive], timeout=0.05)
            bob.endpoint.send(b"wake up", bob.peer)
            assert await receive == b"wake up"

        asyncio.run(main())
