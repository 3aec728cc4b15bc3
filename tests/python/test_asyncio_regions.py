# SPDX-License-Identifier: Apache-2.0
"""Granted memory, regions and loans from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import numpy as np
import pytest

import diolkos
import diolkos.asyncio
from diolkos.testing import Side

Face = diolkos.asyncio.Endpoint


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a test's work, with an end in any case."""

    async def limited() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(limited())


@pytest.fixture
def a(alice: Side) -> Face:
    """The one end."""
    return Face.of(alice.endpoint)


@pytest.fixture
def b(bob: Side) -> Face:
    """The other end."""
    return Face.of(bob.endpoint)


async def at_once(work: Awaitable[Any]) -> Any:
    """The result of what needs no trip through the event loop."""
    before = asyncio.get_running_loop()
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1

    handle = before.call_soon(turn)
    result = await work
    handle.cancel()
    assert turns == 0
    return result


def test_operations_are_done_at_once(a: Face, b: Face, alice: Side, bob: Side) -> None:
    async def work() -> None:
        memory = b.alloc((8,), "u8")
        np.asarray(memory)[:] = 0
        region = b.register(memory, "rw", peer=bob.peer)
        a.progress()
        assert a.reach(alice.peer, region.key) == "granted"
        await at_once(a.rdma_write(b"12345678", alice.peer, region.key, 8, notify=3))
        got = bytearray(8)
        await at_once(a.rdma_read(got, alice.peer, region.key, 8))
        assert got == b"12345678"
        assert await at_once(a.fetch_add(alice.peer, region.key, 0, 4)) == 0
        assert await at_once(a.compare_swap(alice.peer, region.key, 0, 4, 5)) == 4
        await at_once(a.rdma_fence(alice.peer))
        assert (await a.irdma_write(b"x", alice.peer, region.key)).nbytes == 1
        assert (await a.irdma_read(got, alice.peer, region.key)).nbytes == 8
        assert (await b.recv(match=3)).nbytes == 0
        assert b.arena.allocations == 1

    run(work())


def test_operations_that_take_their_time(a: Face, b: Face, alice: Side, bob: Side) -> None:
    """The owner serves private memory from its own task, whenever something comes."""

    async def work() -> None:
        buffer = bytearray(200_000)
        region = b.register(buffer, "rw")
        owner = asyncio.ensure_future(b.recv(match=9))
        await a.rdma_write(bytes([7]) * 199_992, alice.peer, region.key, 8)
        got = bytearray(100)
        await a.rdma_read(got, alice.peer, region.key, 100_000)
        assert set(got) == {7}
        assert await a.fetch_add(alice.peer, region.key, 0, 5) == 0
        assert await a.compare_swap(alice.peer, region.key, 0, 5, 6) == 5
        request = a.irdma_write(b"x", alice.peer, region.key)
        await a.rdma_fence(alice.peer)
        assert request.test() is not None
        region.revoke()
        with pytest.raises(diolkos.RevokedError):
            await a.rdma_read(got, alice.peer, region.key)
        await a.send(b"", alice.peer, match=9)
        await owner

    run(work())


def test_timeouts(a: Face, b: Face, alice: Side, bob: Side) -> None:
    async def work() -> None:
        region = b.register(bytearray(8), "rw")
        for operation in (
            lambda: a.rdma_read(bytearray(8), alice.peer, region.key, timeout=0.01),
            lambda: a.fetch_add(alice.peer, region.key, 0, 1, timeout=0.01),
            lambda: a.rdma_fence(alice.peer, timeout=0.01),
            lambda: b.recv_loan(timeout=0.01),
        ):
            with pytest.raises(diolkos.Timeout):
                await operation()

    run(work())


def test_loans(a: Face, b: Face, alice: Side, bob: Side) -> None:
    async def work() -> None:
        memory = a.alloc(4, "i4")
        np.asarray(memory)[:] = range(4)
        request = a.lend(memory, alice.peer, match=5)
        loan = await at_once(b.recv_loan(match=5, dtype="i4", shape=(2, 2)))
        assert np.asarray(loan).tolist() == [[0, 1], [2, 3]]
        assert request.test() is None
        loan.release()
        assert (await request).nbytes == 16
        # One that is waited for.
        waiting = asyncio.ensure_future(b.recv_loan(match=6))
        posted = b.irecv_loan(match=7)
        await asyncio.sleep(0)
        requests = [a.lend(memory, alice.peer, match=match) for match in (6, 7)]
        with await waiting as loan:
            assert loan.nbytes == 16
        assert (await posted.wait()).match == 7
        assert posted.loan is not None
        posted.loan.release()
        for request in requests:
            await request
        request = a.lend(memory, alice.peer)
        with pytest.raises(ValueError):
            await b.recv_loan(dtype="f8", shape=3)
        await request

    run(work())


def test_loans_and_messages_do_not_wait_for_each_other(
    a: Face, b: Face, alice: Side, bob: Side
) -> None:
    async def work() -> None:
        loans = [asyncio.ensure_future(b.recv_loan()) for _ in range(2)]
        await asyncio.sleep(0)
        await a.send(b"x", alice.peer)
        assert bytes(await at_once(b.recv())) == b"x"
        for number in range(2):
            a.lend(a.alloc(number + 1), alice.peer)
        # In the order in which the tasks came.
        assert [(await loan).nbytes for loan in loans] == [1, 2]

    run(work())


def test_a_cancelled_task_loses_no_loan(a: Face, b: Face, alice: Side, bob: Side) -> None:
    async def work() -> None:
        first = asyncio.ensure_future(b.recv_loan())
        await asyncio.sleep(0)
        request = a.lend(a.alloc(8), alice.peer)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        (await b.recv_loan()).release()
        await request

    run(work())


@pytest.mark.slow
def test_copied_loans(backend: object) -> None:
    """Also when the task is cancelled while the copy is on its way."""

    async def work() -> None:
        async with Face("lender") as lender, Face("borrower") as borrower:
            peer = await lender.connect("borrower", timeout=60, road="switched")
            memory = lender.alloc(4 << 20)
            np.asarray(memory)[:] = 3
            # The lender sends its copies only while somebody waits there.
            requests = [
                asyncio.ensure_future(lender.lend(memory, peer, match=n).wait()) for n in range(2)
            ]
            loan = await borrower.recv_loan(match=0)
            assert (loan.copied, set(bytes(loan))) == (True, {3})
            await requests[0]
            got = None
            while got is None:
                await asyncio.sleep(0)
                got = borrower.blocking.try_recv_loan(1, None, None)
            assert isinstance(got, diolkos.Request)
            task = asyncio.ensure_future(borrower._transfer_loan(got))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await requests[1]
            kept = await borrower.recv_loan(match=1, dtype="i8")
            assert np.asarray(kept).shape == (1 << 19,)

    run(work())


def test_closing_ends_what_waits(a: Face, b: Face, alice: Side, bob: Side) -> None:
    async def work() -> None:
        waiting = asyncio.ensure_future(b.recv_loan())
        posted = asyncio.ensure_future(b.irecv_loan(match=1).wait())
        await asyncio.sleep(0)
        b.close()
        for each in (waiting, posted):
            with pytest.raises(diolkos.ClosedError):
                await each

    run(work())


def test_keys_are_granted_ahead(a: Face, b: Face, alice: Side, bob: Side) -> None:
    async def work() -> None:
        region = b.register(b.alloc(8), "rw")
        await b.send_object([region.key], bob.peer)
        (key,) = await a.recv_object()
        await at_once(a.rdma_write(b"12345678", alice.peer, key))

    run(work())
