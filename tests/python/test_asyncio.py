# SPDX-License-Identifier: Apache-2.0
"""The asyncio face: finishing at once, waiting, cancelling, many tasks, closing."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import pytest

import diolkos
import diolkos.asyncio
from diolkos.testing import pair
from programs import PATIENCE_S


@dataclass(frozen=True)
class Side:
    """One end, for event loops."""

    endpoint: diolkos.asyncio.Endpoint
    peer: diolkos.Peer


@asynccontextmanager
async def async_pair() -> AsyncIterator[tuple[Side, Side]]:
    with pair() as (a, b):
        alice = diolkos.asyncio.Endpoint.of(a.endpoint)
        bob = diolkos.asyncio.Endpoint.of(b.endpoint)
        async with alice, bob:
            yield Side(alice, a.peer), Side(bob, b.peer)


def in_loop(test: Callable[[Side, Side], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test of two endpoints in an event loop, which must not report anything."""

    @wraps(test)
    def run() -> None:
        reports: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, report: reports.append(report)
            )
            async with asyncio.timeout(PATIENCE_S), async_pair() as (alice, bob):
                await test(alice, bob)

        asyncio.run(main())
        assert reports == []

    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def finishes_at_once(work: Awaitable[Any]) -> Any:
    """The result of an awaitable that never waits for the event loop."""
    try:
        work.__await__().send(None)  # type: ignore[attr-defined]
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


async def until_waiting(*tasks: asyncio.Task[Any]) -> None:
    """Lets tasks run until they wait for something."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


@in_loop
async def test_what_is_here_costs_no_trip_through_the_loop(alice: Side, bob: Side) -> None:
    assert finishes_at_once(alice.endpoint.send(b"hello", alice.peer, match=7)) is None
    assert finishes_at_once(bob.endpoint.probe(match=7)).message_nbytes == 5
    buffer = bytearray(5)
    status = finishes_at_once(bob.endpoint.recv_into(buffer, match=7))
    assert (status.nbytes, buffer) == (5, b"hello")
    finishes_at_once(alice.endpoint.send(b"again", alice.peer))
    assert finishes_at_once(bob.endpoint.recv()) == b"again"
    finishes_at_once(alice.endpoint.send_object([1, 2], alice.peer))
    assert finishes_at_once(bob.endpoint.recv_object()) == [1, 2]
    finishes_at_once(alice.endpoint.send(b"claim", alice.peer))
    claimed = finishes_at_once(bob.endpoint.mprobe())
    assert finishes_at_once(claimed.recv()) == b"claim"


@in_loop
async def test_a_task_is_woken_by_its_message(alice: Side, bob: Side) -> None:
    for receive in (bob.endpoint.recv(), bob.endpoint.recv_into(bytearray(5))):
        task = asyncio.ensure_future(receive)
        await until_waiting(task)
        await alice.endpoint.send(b"hello", alice.peer)
        assert (await task).nbytes == 5


@in_loop
async def test_waiting_names(alice: Side, bob: Side) -> None:
    """Every other call that waits is woken as well."""
    probe = asyncio.create_task(bob.endpoint.probe(match=1))
    mprobe = asyncio.create_task(bob.endpoint.mprobe(match=2))
    request = asyncio.ensure_future(bob.endpoint.irecv(5, match=3).wait())
    obj = asyncio.create_task(bob.endpoint.recv_object(match=4))
    multi = asyncio.ensure_future(bob.endpoint.multi_recv(bytearray(5), match=5).next())
    await until_waiting(probe, mprobe, request, obj, multi)
    for match in (1, 2, 3, 5):
        await alice.endpoint.send(b"hello", alice.peer, match=match)
    await alice.endpoint.send_object({"a": 1}, alice.peer, match=4)
    assert (await probe).message_nbytes == 5
    assert await (await mprobe).recv() == b"hello"
    assert (await request).nbytes == 5
    assert await obj == {"a": 1}
    delivery = await multi
    assert delivery is not None
    assert bytes(delivery.data) == b"hello"


@in_loop
async def test_long_messages(alice: Side, bob: Side) -> None:
    data = np.arange(1_000_000.0)
    received = np.zeros(1_000_000)
    send = asyncio.create_task(alice.endpoint.send(data, alice.peer))
    await until_waiting(send)
    status = await bob.endpoint.recv_into(received)
    await send
    assert status.nbytes == data.nbytes
    assert (data == received).all()
    send = asyncio.create_task(alice.endpoint.send(data, alice.peer))
    assert (np.frombuffer(await bob.endpoint.recv()) == data).all()
    await send
    send = asyncio.create_task(alice.endpoint.send_object([data, data], alice.peer))
    first, second = await bob.endpoint.recv_object()
    await send
    assert (first == second).all()


@in_loop
async def test_messages_go_to_tasks_in_the_order_of_the_tasks(alice: Side, bob: Side) -> None:
    tasks = [asyncio.create_task(bob.endpoint.recv(match=7)) for _ in range(5)]
    other = asyncio.create_task(bob.endpoint.recv(match=8))
    await until_waiting(*tasks, other)
    for i in range(6):
        await alice.endpoint.send(bytes([i]), alice.peer, match=7)
    # A task that comes now queues behind those that wait for the same messages.
    late = asyncio.create_task(bob.endpoint.recv(match=7))
    got = [bytes(await task) for task in [*tasks, late]]
    assert got == [bytes([i]) for i in range(6)]
    # The one that wants another message was not in anybody's way.
    await alice.endpoint.send(b"x", alice.peer, match=9)
    assert finishes_at_once(bob.endpoint.recv(match=9)) == b"x"
    await alice.endpoint.send(b"other", alice.peer, match=8)
    assert await other == b"other"


@in_loop
async def test_a_cancelled_receive_loses_no_message(alice: Side, bob: Side) -> None:
    """Cancelled at every step: while waiting, when woken but not yet run, and both at once."""
    for steps in range(4):
        task = asyncio.create_task(bob.endpoint.recv())
        await until_waiting(task)
        await alice.endpoint.send(b"hello", alice.peer)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            assert await task == b"hello"
        except asyncio.CancelledError:
            assert await bob.endpoint.recv() == b"hello"
    assert bob.endpoint.iprobe() is None


@in_loop
async def test_a_cancelled_transfer_is_kept_for_the_next_receive(alice: Side, bob: Side) -> None:
    data = bytes(range(256)) * 1000
    buffer = bytearray(len(data))
    for receive in (
        lambda: bob.endpoint.recv(match=7),
        lambda: bob.endpoint.recv_into(buffer, match=7),
    ):
        send = asyncio.create_task(alice.endpoint.send(data, alice.peer, match=7))
        while bob.endpoint.iprobe(match=7) is None:
            await asyncio.sleep(0)
        task = asyncio.ensure_future(receive())
        # The transfer has begun: the receive took the message in its first step.
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await send
        assert bob.endpoint.iprobe(match=8) is None
        status = await bob.endpoint.probe(match=7)
        assert status.message_nbytes == len(data)
        short = bytearray(3)
        if task.cancelled():
            status = await bob.endpoint.recv_into(short, match=7, source=bob.peer)
            assert (status.truncated, status.nbytes, short) == (True, 3, data[:3])
        assert bob.endpoint.iprobe() is None


@in_loop
async def test_what_a_cancelled_transfer_leaves_goes_to_a_task_that_waits(
    alice: Side, bob: Side
) -> None:
    data = bytes(200_000)
    send = asyncio.create_task(alice.endpoint.send(data, alice.peer, match=7))
    while bob.endpoint.iprobe(match=7) is None:
        await asyncio.sleep(0)
    first = asyncio.create_task(bob.endpoint.recv(match=7))
    second = asyncio.create_task(bob.endpoint.recv(match=7))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == data
    await send


@in_loop
async def test_time_limits(alice: Side, bob: Side) -> None:
    for work in (
        bob.endpoint.recv(timeout=0.001),
        bob.endpoint.recv_into(bytearray(1), timeout=0.001),
        bob.endpoint.probe(timeout=0.001),
        bob.endpoint.mprobe(timeout=0.001),
        bob.endpoint.recv_object(timeout=0.001),
        bob.endpoint.irecv(1, match=1).wait(timeout=0.001),
        alice.endpoint.send(bytes(100_000), alice.peer, match=9, timeout=0.001),
    ):
        with pytest.raises(diolkos.Timeout):
            await work
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await bob.endpoint.recv()


@in_loop
async def test_requests(alice: Side, bob: Side) -> None:
    receive = bob.endpoint.irecv_into(bytearray(5))
    assert receive.test() is None
    assert not receive.done
    send = alice.endpoint.isend(b"hello", alice.peer)
    assert (await send).nbytes == (await receive).nbytes == 5
    assert receive.peer == bob.peer
    cancelled = bob.endpoint.irecv(1)
    assert cancelled.cancel()
    with pytest.raises(diolkos.Cancelled):
        await cancelled
    synchronous = alice.endpoint.issend(b"sync", alice.peer)
    waiting = asyncio.ensure_future(synchronous.wait())
    await until_waiting(waiting)
    assert await bob.endpoint.recv() == b"sync"
    await waiting


@in_loop
async def test_wait_any(alice: Side, bob: Side) -> None:
    requests = [bob.endpoint.irecv(5, match=match) for match in range(3)]
    with pytest.raises(diolkos.Timeout):
        await diolkos.asyncio.wait_any(requests, timeout=0.001)
    waiting = asyncio.create_task(diolkos.asyncio.wait_any(requests))
    await until_waiting(waiting)
    await alice.endpoint.send(b"hello", alice.peer, match=2)
    place, status = await waiting
    assert (place, status.match) == (2, 2)
    with pytest.raises(ValueError):
        await diolkos.asyncio.wait_any([])


@in_loop
async def test_multi_receive_as_an_iterator(alice: Side, bob: Side) -> None:
    multi = bob.endpoint.multi_recv(bytearray(10), min_free=5)

    async def collect() -> list[bytes]:
        return [bytes(delivery.data) async for delivery in multi]

    collecting = asyncio.create_task(collect())
    await until_waiting(collecting)
    for word in (b"abc", b"defg"):
        await alice.endpoint.send(word, alice.peer)
    assert await collecting == [b"abc", b"defg"]
    assert multi.released


@in_loop
async def test_closing_ends_all_waits(alice: Side, bob: Side) -> None:
    tasks = [
        asyncio.ensure_future(work)
        for work in (
            bob.endpoint.recv(),
            bob.endpoint.recv_into(bytearray(1)),
            bob.endpoint.probe(),
            bob.endpoint.irecv(3).wait(),
            bob.endpoint.multi_recv(bytearray(8)).next(),
        )
    ]
    await until_waiting(*tasks)
    bob.endpoint.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {diolkos.ClosedError}
    with pytest.raises(diolkos.ClosedError):
        await bob.endpoint.recv()
    assert bob.endpoint.closed


@in_loop
async def test_closing_from_another_thread_ends_all_waits(alice: Side, bob: Side) -> None:
    task = asyncio.create_task(bob.endpoint.recv())
    await until_waiting(task)
    thread = threading.Thread(target=bob.endpoint.blocking.close)
    thread.start()
    with pytest.raises(diolkos.ClosedError):
        await task
    thread.join(PATIENCE_S)


@in_loop
async def test_a_peer_that_leaves(alice: Side, bob: Side) -> None:
    receive = asyncio.create_task(bob.endpoint.recv(source=bob.peer))
    send = asyncio.create_task(bob.endpoint.send(bytes(100_000), bob.peer))
    await until_waiting(receive, send)
    alice.endpoint.close()
    for task in (receive, send):
        with pytest.raises(diolkos.PeerClosed):
            await task


@in_loop
async def test_other_threads_may_use_the_blocking_face(alice: Side, bob: Side) -> None:
    """A thread sleeps on the same endpoint while the event loop waits for it: nobody may eat the
    other's wake-up."""

    def echo() -> None:
        for _ in range(200):
            message = bob.endpoint.blocking.recv(match=1, timeout=PATIENCE_S)
            bob.endpoint.blocking.send(message, bob.peer, match=2)

    thread = threading.Thread(target=echo)
    thread.start()
    for i in range(200):
        waiting = asyncio.create_task(bob.endpoint.recv(match=3))
        await alice.endpoint.send(i.to_bytes(4, "little"), alice.peer, match=1)
        await alice.endpoint.recv(match=2)
        await alice.endpoint.send(b"for the loop", alice.peer, match=3)
        assert await waiting == b"for the loop"
    thread.join(PATIENCE_S)


@in_loop
async def test_a_thousand_tasks(alice: Side, bob: Side) -> None:
    async def ask(match: int) -> bytes:
        await alice.endpoint.send(match.to_bytes(4, "little"), alice.peer, match=match)
        return bytes(await alice.endpoint.recv(match=match))

    async def answer(match: int) -> None:
        message = await bob.endpoint.recv(match=match)
        await bob.endpoint.send(bytes(message) * 2, bob.peer, match=match)

    answers = [asyncio.create_task(answer(match)) for match in range(1000)]
    got = await asyncio.gather(*(ask(match) for match in range(1000)))
    await asyncio.gather(*answers)
    assert got == [match.to_bytes(4, "little") * 2 for match in range(1000)]


def test_an_endpoint_moves_to_another_loop() -> None:
    with pair() as (a, b):
        endpoint = diolkos.asyncio.Endpoint.of(b.endpoint)

        async def receive() -> bytes:
            waiting = asyncio.create_task(endpoint.recv())
            await until_waiting(waiting)
            a.endpoint.send(b"hello", a.peer)
            return bytes(await waiting)

        assert [asyncio.run(receive()) for _ in range(3)] == [b"hello"] * 3


def test_the_names_are_those_of_the_blocking_face() -> None:
    """Same methods, same parameters, in the same order."""
    only_blocking = {"linger", "rest", "arm", "disarm", "try_send", "try_recv", "try_recv_into"}
    only_blocking |= {"try_fetch_add", "try_compare_swap", "try_rdma_fence", "try_recv_loan"}
    only_blocking |= {"has_loan", "has_regions", "grant_key"}
    only_asyncio = {"blocking", "of", "open"}

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    blocking, face = diolkos.Endpoint, diolkos.asyncio.Endpoint
    assert public(blocking) - only_blocking == public(face) - only_asyncio
    for name in public(blocking) - only_blocking:
        method = getattr(face, name)
        if inspect.isfunction(method):
            ours = [str(p.name) for p in inspect.signature(method).parameters.values()]
            theirs = [
                str(p.name) for p in inspect.signature(getattr(blocking, name)).parameters.values()
            ]
            assert ours == theirs, name
