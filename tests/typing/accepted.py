# SPDX-License-Identifier: Apache-2.0
"""A program that must type-check: everything that a user may write."""

from __future__ import annotations

import array
import mmap
from typing import assert_type

import numpy as np

import diolkos
import diolkos.asyncio
from diolkos.testing import Side, pair


def blocking(mapped: mmap.mmap) -> None:
    with diolkos.Endpoint("alice", number=3, context_ids=(8, 56), runtime_dir="/tmp") as ep:
        assert_type(ep, diolkos.Endpoint)
        bob = ep.connect("bob", timeout=5, road="direct")
        assert_type(bob, diolkos.Peer)
        ep.connect(7)
        for buffer in (b"x", bytearray(1), memoryview(b"x"), array.array("d"), mapped, np.zeros(3)):
            ep.send(buffer, bob, match=7, immediate=1, synchronous=True, timeout=None)
        status = ep.recv_into(np.zeros(3), match=7, mask=0xFF, source=bob, timeout=0.5)
        assert_type(status, diolkos.Status)
        assert_type(status.nbytes, int)
        assert_type(status.truncated, bool)
        message = ep.recv(match=7)
        assert_type(message, diolkos.Message)
        assert_type(bytes(message), bytes)
        assert_type(len(message), int)
        view = memoryview(message)
        ep.send(message, message.source)
        ep.send(view, bob)
        request = ep.isend(message, bob)
        assert_type(request.wait(timeout=1), diolkos.Status)
        assert_type(request.test(), diolkos.Status | None)
        assert_type(diolkos.wait_any([request, ep.irecv(8)], timeout=1), tuple[int, diolkos.Status])
        assert_type(ep.improbe(match=1), diolkos.ClaimedMessage | None)
        assert_type(ep.mprobe().recv(), diolkos.Message)
        for delivery in ep.multi_recv(bytearray(100), min_free=10):
            assert_type(delivery.data, memoryview)
        ep.on_unexpected(lambda status, data: status.nbytes > 0 and data is None)
        ep.on_unexpected(None)
        ep.send_object({"any": ["thing", 1]}, bob, match=3)
        ep.recv_object(source=bob, max_nbytes=1000)
        peers: dict[diolkos.Peer, str] = {bob: bob.name}
        assert peers[bob] == "bob"
        assert_type(ep.counters["tx_bytes"], int)


def granted(ep: diolkos.Endpoint, bob: diolkos.Peer) -> None:
    with ep.alloc((2, 3), "f8", align=4096, peer=bob) as memory:
        assert_type(memory, diolkos.Memory)
        assert_type(memory.shape, tuple[int, ...])
        assert_type(ep.lend(memory, bob, match=1).wait(), diolkos.Status)
        ep.send(memory, bob)
        view = memoryview(memory)
    ep.alloc(np.int64(3), np.float32)
    assert_type(ep.arena.used_nbytes, int)
    with ep.recv_loan(dtype=float, shape=(2, 3), timeout=1) as loan:
        assert_type(loan, diolkos.Loan)
        ep.send(loan, loan.source)
    assert_type(ep.irecv_loan(match=1).loan, diolkos.Loan | None)
    with ep.register(view, "rw", peer=bob) as region:
        key = diolkos.Key.from_bytes(bytes(region.key))
        region.grant(bob)
    ep.rdma_write(b"x", bob, key, 3, notify=1, immediate=2, timeout=1)
    ep.rdma_read(bytearray(1), bob, key)
    assert_type(ep.irdma_read(np.zeros(1), bob, key, 8), diolkos.Request)
    assert_type(ep.fetch_add(bob, key, 0, 1), int)
    assert_type(ep.compare_swap(bob, key, 0, 1, 2, timeout=1), int)
    ep.rdma_fence(bob, timeout=1)
    if ep.reach(bob, key) == "granted":
        keys = {key}
        assert_type(keys, set[diolkos.Key])


async def granted_with_an_event_loop(ep: diolkos.asyncio.Endpoint, bob: diolkos.Peer) -> None:
    memory = ep.alloc(8)
    key = ep.register(memory, "rw").key
    assert_type(await ep.lend(memory, bob), diolkos.Status)
    assert_type(await ep.recv_loan(match=1, dtype="f8"), diolkos.Loan)
    await ep.rdma_write(b"x", bob, key, timeout=1)
    assert_type(await ep.fetch_add(bob, key, 0, 1), int)
    await ep.rdma_fence(bob)


async def with_an_event_loop() -> None:
    async with diolkos.asyncio.Endpoint("alice") as ep:
        bob = await ep.connect("bob", timeout=5)
        assert_type(bob, diolkos.Peer)
        await ep.send(np.zeros(3), bob, match=7)
        assert_type(await ep.recv_into(bytearray(3), match=7), diolkos.Status)
        assert_type(await ep.recv(timeout=1), diolkos.Message)
        assert_type(await ep.isend(b"x", bob), diolkos.Status)
        requests = [ep.irecv(8), ep.iconnect(4)]
        assert_type(await diolkos.asyncio.wait_any(requests), tuple[int, diolkos.Status])
        async for delivery in ep.multi_recv(bytearray(100)):
            assert_type(delivery, diolkos.Delivery)
        claimed = await ep.mprobe()
        assert_type(await claimed.recv_into(bytearray(8)), diolkos.Status)
        assert_type(ep.blocking, diolkos.Endpoint)
    assert_type(await diolkos.asyncio.Endpoint.open("bob"), diolkos.asyncio.Endpoint)


def errors() -> None:
    try:
        diolkos.Endpoint()
    except diolkos.Timeout as error:
        assert_type(error.hint, str | None)
        timeout: TimeoutError = error
        raise timeout from None
    except (diolkos.PeerDied, diolkos.BackendError) as error:
        connection: ConnectionError = error
        raise connection from None


def loopback() -> None:
    with pair() as (alice, bob):
        assert_type(alice, Side)
        alice.endpoint.send(b"x", alice.peer)
        bob.endpoint.recv()
