# SPDX-License-Identifier: Apache-2.0
"""A program in which every marked line must be refused, for the reason given, and no other line."""

from __future__ import annotations

import diolkos
import diolkos.asyncio


def blocking(ep: diolkos.Endpoint, bob: diolkos.Peer, loop: diolkos.asyncio.Endpoint) -> None:
    ep.send("text", bob)  # E: [arg-type]
    ep.send([1, 2], bob)  # E: [arg-type]
    ep.send(b"x", "bob")  # E: [arg-type]
    ep.send(b"x", bob, 7)  # E: [call-arg]
    ep.send(b"x", bob, tag=7)  # E: [call-arg]
    ep.send(b"x")  # E: [call-arg]
    ep.recv(7)  # E: [call-arg]
    ep.recv(match="7")  # E: [arg-type]
    ep.recv(source="bob")  # E: [arg-type]
    ep.recv_into(None)  # E: [arg-type]
    ep.irecv(bytearray(3))  # E: [arg-type]
    ep.connect(b"bob")  # E: [arg-type]
    ep.on_unexpected(len)  # E: [arg-type]
    ep.name = "carol"  # E: [misc]
    number: int = ep.recv_into(bytearray(1))  # E: [assignment]
    print(number)
    diolkos.wait_any([bob])  # E: [list-item]
    diolkos.Endpoint("alice", partion="x")  # E: [call-arg]
    ep.alloc("8")  # E: [arg-type]
    ep.register(bytearray(1), "w")  # E: [arg-type]
    ep.rdma_write(b"x", bob, b"key")  # E: [arg-type]
    ep.arena.used_nbytes = 0  # E: [misc]
    diolkos.Key(b"")  # E: [call-arg]
    loop.recv_loan()  # E: [unused-coroutine]
    loop.send(b"x", bob)  # E: [unused-coroutine]
    loop.recv()  # E: [unused-coroutine]


class Own(diolkos.Status):  # E: [misc]
    pass
