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
