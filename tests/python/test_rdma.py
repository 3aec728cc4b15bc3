# SPDX-License-Identifier: Apache-2.0
"""Regions: memory that peers read and write by themselves, for as long as its owner lets them."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import struct
import threading
from typing import Any

import numpy as np
import pytest

import diolkos
from diolkos._core import local_pair
from diolkos.testing import Side
from programs import Program


def finish(request: diolkos.Request, owner: diolkos.Endpoint) -> diolkos.Status:
    """Waits for an operation whose owner must make progress."""
    while (status := request.test()) is None:
        owner.progress()
    return status


def words(buffer: Any) -> list[int]:
    return np.frombuffer(buffer, "u8").tolist()


@pytest.fixture
def memory(bob: Side) -> diolkos.Memory:
    """Memory of bob, cleared."""
    memory = bob.endpoint.alloc(64)
    np.asarray(memory)[:] = 0
    return memory


@pytest.fixture
def region(bob: Side, memory: diolkos.Memory) -> diolkos.Region:
    """Memory of bob that alice may read and write."""
    return bob.endpoint.register(memory, "rw", peer=bob.peer)


def test_what_a_region_says(region: diolkos.Region) -> None:
    assert (region.access, region.nbytes, region.reach, region.revoked) == (
        *("rw", 64, "granted"),
        False,
    )
    assert (region.key.access, region.key.nbytes) == ("rw", 64)
    assert "64 bytes: rw, granted" in repr(region)


def test_a_bound_region_needs_nothing_of_its_owner(
    alice: Side, memory: diolkos.Memory, region: diolkos.Region
) -> None:
    """Bob makes no progress after `register`."""
    alice.endpoint.progress()
    assert alice.endpoint.reach(alice.peer, region.key) == "granted"
    alice.endpoint.rdma_write(b"hello", alice.peer, region.key, 3, timeout=10)
    assert bytes(memory)[:9] == b"\0\0\0hello\0"
    got = bytearray(5)
    alice.endpoint.rdma_read(got, alice.peer, region.key, offset=3, timeout=10)
    assert got == b"hello"
    request = alice.endpoint.irdma_write(np.arange(8, dtype="u8"), alice.peer, region.key)
    assert request.done
    assert (request.wait().nbytes, request.peer) == (64, alice.peer)
    assert words(memory) == list(range(8))
    into = np.zeros(4, "u8")
    assert alice.endpoint.irdma_read(into, alice.peer, region.key, 32).wait(10).nbytes == 32
    assert into.tolist() == [4, 5, 6, 7]
    alice.endpoint.rdma_write(b"", alice.peer, region.key, 64)


def test_atomics(alice: Side, memory: diolkos.Memory, region: diolkos.Region) -> None:
    endpoint, peer, key = alice.endpoint, alice.peer, region.key
    assert endpoint.fetch_add(peer, key, 8, 5, timeout=10) == 0
    assert endpoint.fetch_add(peer, key, 8, (1 << 64) - 1) == 5
    assert endpoint.compare_swap(peer, key, 8, 5, 9) == 4
    assert endpoint.compare_swap(peer, key, 8, 4, (1 << 64) - 1, timeout=10) == 4
    assert endpoint.fetch_add(peer, key, 8, 2) == (1 << 64) - 1
    assert words(memory)[:3] == [0, 1, 0]
    for value in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            endpoint.fetch_add(peer, key, 8, value)
        with pytest.raises(OverflowError):
            endpoint.compare_swap(peer, key, 8, value, 0)
        with pytest.raises(OverflowError):
            endpoint.compare_swap(peer, key, 8, 0, value)


def test_both_sides_count_together(
    alice: Side, bob: Side, memory: diolkos.Memory, region: diolkos.Region
) -> None:
    def count() -> None:
        for _ in range(1000):
            bob.endpoint.fetch_add(bob.endpoint.self_peer, own.key, 0, 1)

    # A key that is not bound: the owner may use it, too.
    own = bob.endpoint.register(memory, "rw")
    thread = threading.Thread(target=count)
    thread.start()
    for _ in range(1000):
        alice.endpoint.fetch_add(alice.peer, region.key, 0, 1, timeout=60)
    thread.join()
    assert words(memory)[0] == 2000


@pytest.mark.parametrize(
    "offset", [64, 60, 1 << 63, (1 << 64) - 1, 1 << 64, -1, 1 << 100, -(1 << 70)]
)
@pytest.mark.parametrize("kind", ["granted", "copied", "own"])
def test_places_outside(alice: Side, bob: Side, kind: str, offset: int) -> None:
    buffer = bytearray(64) if kind == "copied" else bob.endpoint.alloc(64)
    region = bob.endpoint.register(buffer, "rw")
    region.grant(bob.peer)
    before = bytes(buffer)
    endpoint, peer = (
        (bob.endpoint, bob.endpoint.self_peer) if kind == "own" else (alice.endpoint, alice.peer)
    )
    for operation in (
        lambda: endpoint.rdma_write(b"12345678", peer, region.key, offset),
        lambda: endpoint.rdma_read(bytearray(8), peer, region.key, offset),
        lambda: endpoint.irdma_read(bytearray(8), peer, region.key, offset).wait(10),
        lambda: endpoint.fetch_add(peer, region.key, offset, 1),
        lambda: endpoint.compare_swap(peer, region.key, offset, 0, 1),
    ):
        with pytest.raises(diolkos.RangeError) as caught:
            operation()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, diolkos.RegionError)
    assert bytes(buffer) == before


@pytest.mark.parametrize("offset", [1, 4, 7, 57])
def test_words_lie_at_multiples_of_8(alice: Side, region: diolkos.Region, offset: int) -> None:
    with pytest.raises(diolkos.RangeError, match="multiple of 8"):
        alice.endpoint.fetch_add(alice.peer, region.key, offset, 1)


def test_words_of_odd_memory(alice: Side, bob: Side) -> None:
    """Its offset is a multiple of 8, its address is not."""
    view = memoryview(bob.endpoint.alloc(64))[4:44]
    region = bob.endpoint.register(view, "rw", peer=bob.peer)
    with pytest.raises(diolkos.RangeError):
        alice.endpoint.fetch_add(alice.peer, region.key, 8, 1, timeout=10)


def test_longer_than_the_region(alice: Side, region: diolkos.Region) -> None:
    with pytest.raises(diolkos.RangeError):
        alice.endpoint.rdma_write(bytes(65), alice.peer, region.key)
    with pytest.raises(TypeError, match="offset"):
        alice.endpoint.rdma_write(b"", alice.peer, region.key, "3")  # type: ignore[arg-type]


def test_a_key_may_lie_about_itself(alice: Side, bob: Side) -> None:
    """What a key alleges is checked against what its owner says."""
    region = bob.endpoint.register(bob.endpoint.alloc(64), "r", peer=bob.peer)
    data = bytearray(bytes(region.key))
    data[32:40] = struct.pack("<Q", 1 << 63 | 1 << 40)
    forged = diolkos.Key.from_bytes(data)
    assert (forged.access, forged.nbytes) == ("rw", 1 << 40)
    with pytest.raises(diolkos.KeyRefusedError):
        alice.endpoint.rdma_write(b"x", alice.peer, forged, timeout=10)
    with pytest.raises(diolkos.RangeError):
        alice.endpoint.rdma_read(bytearray(1), alice.peer, forged, 4096, timeout=10)


@pytest.mark.parametrize("private", [False, True])
def test_forged_keys(alice: Side, bob: Side, private: bool) -> None:
    buffer = bytearray(8) if private else bob.endpoint.alloc(8)
    region = bob.endpoint.register(buffer, "rw")
    for at in (4, 8, 16, 23, 31):
        data = bytearray(bytes(region.key))
        data[at] ^= 1
        forged = diolkos.Key.from_bytes(data)
        assert forged != region.key
        request = alice.endpoint.irdma_write(b"x", alice.peer, forged)
        if at == 4:
            # Whose it is stands there for people; the secret decides.
            finish(request, bob.endpoint)
            continue
        with pytest.raises(diolkos.KeyRefusedError, match="local-1"):
            finish(request, bob.endpoint)


def test_keys_of_others(alice: Side, bob: Side, region: diolkos.Region) -> None:
    """Bound to alice: not for bob himself, and nothing that alice owns."""
    with pytest.raises(diolkos.KeyRefusedError):
        bob.endpoint.rdma_read(bytearray(1), bob.endpoint.self_peer, region.key, timeout=10)
    request = bob.endpoint.irdma_read(bytearray(1), bob.peer, region.key)
    with pytest.raises(diolkos.KeyRefusedError):
        finish(request, alice.endpoint)
    with pytest.raises(ValueError, match="another endpoint"):
        alice.endpoint.rdma_read(bytearray(1), bob.peer, region.key)


def test_reading_only(alice: Side, bob: Side) -> None:
    for buffer in (b"constant", bob.endpoint.alloc(8)):
        region = bob.endpoint.register(buffer, peer=bob.peer)
        assert region.access == region.key.access == "r"
        for operation in (
            lambda key=region.key: alice.endpoint.rdma_write(b"x", alice.peer, key),
            lambda key=region.key: alice.endpoint.fetch_add(alice.peer, key, 0, 1),
            lambda key=region.key: alice.endpoint.compare_swap(alice.peer, key, 0, 1, 1),
        ):
            with pytest.raises(diolkos.KeyRefusedError):
                operation()
        got = bytearray(8)
        finish(alice.endpoint.irdma_read(got, alice.peer, region.key), bob.endpoint)
        assert got == bytes(buffer)


def test_writing_needs_writable_memory(bob: Side) -> None:
    for buffer in (b"bytes", memoryview(bytearray(3)).toreadonly()):
        with pytest.raises(BufferError, match="read-only"):
            bob.endpoint.register(buffer, "rw")
    with pytest.raises(ValueError, match="access"):
        bob.endpoint.register(bytearray(1), "w")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        bob.endpoint.register(3)  # type: ignore[arg-type]


def test_private_memory_is_served_by_its_owner(alice: Side, bob: Side) -> None:
    buffer = bytearray(100_000)
    region = bob.endpoint.register(buffer, "rw")
    assert region.reach == "copied"
    assert alice.endpoint.reach(alice.peer, region.key) == "unknown"
    data = os.urandom(100_000)
    request = alice.endpoint.irdma_write(data, alice.peer, region.key)
    assert not request.cancel()
    assert request.test() is None
    finish(request, bob.endpoint)
    assert alice.endpoint.reach(alice.peer, region.key) == "copied"
    assert buffer == data
    got = bytearray(100_000)
    finish(alice.endpoint.irdma_read(got, alice.peer, region.key), bob.endpoint)
    assert got == data
    with pytest.raises(BufferError):
        buffer.append(1)
    region.revoke()
    buffer.append(1)


def test_a_notice_follows_the_data(
    alice: Side, bob: Side, memory: diolkos.Memory, region: diolkos.Region
) -> None:
    endpoint = alice.endpoint
    endpoint.rdma_write(b"x", alice.peer, region.key, notify=0x77, immediate=5, timeout=10)
    message = bob.endpoint.recv(match=0x77, timeout=10)
    assert (message.nbytes, message.immediate, message.source) == (0, 5, bob.peer)
    assert bytes(memory)[0] == ord("x")
    with pytest.raises(diolkos.RangeError):
        endpoint.rdma_write(b"x", alice.peer, region.key, 64, notify=1)
    assert bob.endpoint.iprobe() is None


def test_a_fence_waits_for_all_before(alice: Side, bob: Side) -> None:
    alice.endpoint.rdma_fence(alice.peer)
    alice.endpoint.rdma_fence(alice.endpoint.self_peer)
    buffer = bytearray(300_000)
    region = bob.endpoint.register(buffer, "rw")
    requests = [
        alice.endpoint.irdma_write(bytes([n]) * 100_000, alice.peer, region.key, 100_000 * n)
        for n in range(3)
    ]
    with pytest.raises(diolkos.Timeout):
        alice.endpoint.rdma_fence(alice.peer, timeout=0.01)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            bob.endpoint.progress()

    thread = threading.Thread(target=serve)
    thread.start()
    alice.endpoint.rdma_fence(alice.peer, timeout=60)
    stop.set()
    thread.join()
    assert all(request.test() is not None for request in requests)
    assert [buffer[100_000 * n] for n in range(3)] == [0, 1, 2]


def test_a_timeout_leaves_the_buffer_with_the_operation(alice: Side, bob: Side) -> None:
    target = bytearray(8)
    region = bob.endpoint.register(target, "rw")
    buffer = bytearray(b"12345678")
    with pytest.raises(diolkos.Timeout, match="may still be done"):
        alice.endpoint.rdma_write(buffer, alice.peer, region.key, timeout=0.01)
    with pytest.raises(BufferError):
        buffer.append(1)
    while not target[0]:
        bob.endpoint.progress()
        alice.endpoint.progress()
    assert target == b"12345678"
    finish(alice.endpoint.irdma_read(bytearray(1), alice.peer, region.key), bob.endpoint)
    alice.endpoint.progress()
    buffer.append(1)


def test_oneself(bob: Side) -> None:
    me, memory = bob.endpoint.self_peer, bob.endpoint.alloc(16)
    np.asarray(memory)[:] = 0
    region = bob.endpoint.register(memory, "rw")
    bob.endpoint.rdma_write(b"12345678", me, region.key, 8, notify=4)
    assert bytes(memory)[8:] == b"12345678"
    assert bob.endpoint.recv(match=4).nbytes == 0
    assert bob.endpoint.fetch_add(me, region.key, 0, 7) == 0
    assert bob.endpoint.reach(me, region.key) == "granted"
    region.grant(me)
    region.revoke()
    with pytest.raises(diolkos.RevokedError, match="this endpoint"):
        bob.endpoint.rdma_read(bytearray(1), me, region.key)


@pytest.mark.parametrize("private", [False, True])
def test_nothing_is_served_after_revoke(alice: Side, bob: Side, private: bool) -> None:
    buffer: Any = bytearray(64) if private else bob.endpoint.alloc(64)
    view = memoryview(buffer)
    view[:] = bytes(64)
    with bob.endpoint.register(buffer, "rw", peer=bob.peer) as region:
        finish(alice.endpoint.irdma_write(b"before", alice.peer, region.key), bob.endpoint)
        where = np.frombuffer(view, "u1").__array_interface__["data"]
    assert region.revoked
    assert "revoked" in repr(region)
    region.revoke()
    assert np.frombuffer(view, "u1").__array_interface__["data"] == where
    view[6:12] = b"secret"
    for begin in (
        lambda: alice.endpoint.irdma_write(b"after", alice.peer, region.key),
        lambda: alice.endpoint.irdma_read(bytearray(12), alice.peer, region.key),
    ):
        with pytest.raises(diolkos.RevokedError, match="has revoked the region"):
            finish(begin(), bob.endpoint)
    assert bytes(view)[:12] == b"beforesecret"
    with pytest.raises(diolkos.RevokedError):
        region.grant(bob.peer)


def test_the_key_of_a_revoked_region_stays_useless(
    alice: Side, bob: Side, memory: diolkos.Memory, region: diolkos.Region
) -> None:
    replayed = pickle.loads(pickle.dumps(region.key))
    region.revoke()
    again = bob.endpoint.register(memory, "rw", peer=bob.peer)
    with pytest.raises(diolkos.RevokedError):
        finish(alice.endpoint.irdma_write(b"x", alice.peer, replayed), bob.endpoint)
    alice.endpoint.rdma_write(b"y", alice.peer, again.key, timeout=10)
    assert bytes(memory)[0] == ord("y")


def test_dropped_regions_are_revoked(alice: Side, bob: Side) -> None:
    buffer = bytearray(8)
    region = bob.endpoint.register(buffer, "rw", peer=bob.peer)
    key = region.key
    del region
    gc.collect()
    buffer.append(1)
    with pytest.raises(diolkos.RevokedError):
        finish(alice.endpoint.irdma_write(b"x", alice.peer, key), bob.endpoint)


def test_closing_revokes(alice: Side, bob: Side) -> None:
    buffer = bytearray(8)
    region = bob.endpoint.register(buffer, "rw")
    request = alice.endpoint.irdma_write(b"x", alice.peer, region.key)
    bob.endpoint.close()
    assert region.revoked
    buffer.append(1)
    region.revoke()
    with pytest.raises(diolkos.PeerClosed):
        request.wait(10)
    with pytest.raises(diolkos.PeerError):
        alice.endpoint.rdma_write(b"x", alice.peer, region.key)
    with pytest.raises(diolkos.ClosedError):
        bob.endpoint.register(bytearray(1))


def test_a_region_holds_its_memory(alice: Side, bob: Side) -> None:
    memory = bob.endpoint.alloc(64)
    region = bob.endpoint.register(memory, "rw", peer=bob.peer)
    memory.free()
    del memory
    gc.collect()
    assert bob.endpoint.arena.allocations == 1
    assert bob.endpoint.arena.granted_nbytes > 0
    alice.endpoint.rdma_write(b"x", alice.peer, region.key, timeout=10)
    del region
    gc.collect()
    assert bob.endpoint.arena.allocations == 0


def test_two_regions_of_one_memory(alice: Side, bob: Side, memory: diolkos.Memory) -> None:
    reading = bob.endpoint.register(memory, "r", peer=bob.peer)
    got = bytearray(8)
    alice.endpoint.rdma_read(got, alice.peer, reading.key, timeout=10)
    writing = bob.endpoint.register(memoryview(memory)[32:], "rw", peer=bob.peer)
    alice.endpoint.rdma_write(b"12345678", alice.peer, writing.key, timeout=10)
    finish(alice.endpoint.irdma_read(got, alice.peer, reading.key, 32), bob.endpoint)
    assert got == b"12345678"
    writing.revoke()
    finish(alice.endpoint.irdma_read(got, alice.peer, reading.key, 32), bob.endpoint)
    with pytest.raises(diolkos.RevokedError):
        finish(alice.endpoint.irdma_write(b"x", alice.peer, writing.key), bob.endpoint)


def test_grants_go_to_peers_of_the_same_endpoint(alice: Side, bob: Side) -> None:
    region = bob.endpoint.register(bob.endpoint.alloc(8))
    region.grant(bob.peer)
    alice.endpoint.progress()
    assert alice.endpoint.reach(alice.peer, region.key) == "granted"
    with pytest.raises(ValueError, match="another endpoint"):
        region.grant(alice.peer)
    bound = bob.endpoint.register(bob.endpoint.alloc(8), peer=bob.peer)
    with pytest.raises(diolkos.KeyRefusedError, match="another peer"):
        bound.grant(bob.endpoint.self_peer)


def test_keys(bob: Side, region: diolkos.Region) -> None:
    key = region.key
    assert key == region.key
    assert key != bob.endpoint.register(bytearray(64), "rw").key
    assert len({key, region.key, diolkos.Key.from_bytes(bytes(key))}) == 1
    assert key != bytes(key)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(key, protocol)) == key
    secret = struct.unpack_from("<QQ", bytes(key), 16)
    assert not any(f"{word:{base}}" in repr(key) for word in secret for base in "dx")
    for wrong in (b"", bytes(40), bytes(key)[:-1], bytes(key) + b"\0"):
        with pytest.raises(ValueError, match="no key"):
            diolkos.Key.from_bytes(wrong)
    with pytest.raises(TypeError):
        diolkos.Key.from_bytes("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        diolkos.Key()  # type: ignore[misc]


def test_keys_in_objects_are_granted_ahead(alice: Side, bob: Side) -> None:
    """Bob does nothing any more once the object has been sent."""
    memory = bob.endpoint.alloc(8)
    region = bob.endpoint.register(memory, "rw")
    bob.endpoint.send_object({"keys": [region.key, region.key], "array": np.zeros(3)}, bob.peer)
    key = alice.endpoint.recv_object(timeout=10)["keys"][1]
    assert key == region.key
    assert alice.endpoint.reach(alice.peer, key) == "granted"
    alice.endpoint.rdma_write(b"12345678", alice.peer, key, timeout=10)
    assert bytes(memory) == b"12345678"
    # Those of others, bound ones and revoked ones are just data.
    bound = bob.endpoint.register(memory, peer=bob.endpoint.self_peer)
    region.revoke()
    bob.endpoint.send_object((bound.key, region.key), bob.peer)
    alice.endpoint.send_object(alice.endpoint.recv_object(timeout=10), alice.peer)
    assert bob.endpoint.recv_object(timeout=10) == (bound.key, region.key)


def test_odd_orders_of_ends() -> None:
    for order in range(6):
        (a, to_b), (b, to_a) = local_pair()
        memory = b.alloc(4096)
        region = b.register(memory, "rw", peer=to_a)
        private = b.register(bytearray(10), "rw")
        if order % 2:
            a.rdma_write(b"x", to_b, region.key, timeout=10)
        request = a.irdma_write(b"x", to_b, private.key)
        things: list[Any] = [a, b, memory, region, private, request]
        del a, b, memory, region, private, request, to_a, to_b
        things = things[order:] + things[:order]
        while things:
            things.pop()
            gc.collect()


OWNER = """
    import numpy as np
    with diolkos.Endpoint("owner") as ep:
        say("ready")
        peer = ep.recv(match=1).source
        memory = ep.alloc(1 << 20)
        np.asarray(memory)[:] = 7
        region = ep.register(memory, "rw")
        ep.send_object(region.key, peer)
        say("sent")
        hear()  # and does nothing more
        say(bytes(memoryview(memory)[:4]))
        region.revoke()
        say("revoked")
        ep.recv(match=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("road", ["direct", "switched"])
def test_operations_between_processes(backend: object, program: type[Program], road: str) -> None:
    owner = program(
        OWNER.replace("hear()  # and", "hear() if ROAD else ep.recv(match=3)  # and").replace(
            "ROAD", str(road == "direct")
        )
    )
    assert owner.line() == "ready"
    with diolkos.Endpoint("user") as endpoint:
        peer = endpoint.connect("owner", timeout=60, road=road)
        endpoint.send(b"", peer, match=1)
        key = endpoint.recv_object(timeout=60)
        assert owner.line() == "sent"
        got = bytearray(1 << 20)
        endpoint.rdma_read(got, peer, key, timeout=60)
        assert set(got) == {7}
        endpoint.rdma_write(b"1234", peer, key, timeout=60)
        assert endpoint.fetch_add(peer, key, 8, 1, timeout=60) == 0x0707070707070707
        endpoint.rdma_fence(peer, timeout=60)
        assert endpoint.reach(peer, key) == ("granted" if road == "direct" else "copied")
        endpoint.send(b"", peer, match=3)
        owner.tell()
        assert owner.line() == "b'1234'"
        assert owner.line() == "revoked"
        with pytest.raises(diolkos.RevokedError):
            endpoint.rdma_read(got, peer, key, timeout=60)
        endpoint.send(b"", peer, match=2)
        owner.succeed()


@pytest.mark.slow
def test_an_owner_that_dies(backend: object, program: type[Program]) -> None:
    owner = program(OWNER)
    assert owner.line() == "ready"
    with diolkos.Endpoint("user") as endpoint:
        peer = endpoint.connect("owner", timeout=60)
        endpoint.send(b"", peer, match=1)
        key = endpoint.recv_object(timeout=60)
        assert owner.line() == "sent"
        request = endpoint.irdma_read(
            bytearray(1),
            peer,
            diolkos.Key.from_bytes(bytes(key)[:16] + bytes(24)[:16] + bytes(key)[32:]),
        )
        owner.kill()
        with pytest.raises(diolkos.PeerDied):
            request.wait(60)
        with pytest.raises(diolkos.PeerDied):
            endpoint.rdma_read(bytearray(1), peer, key, timeout=60)


@pytest.mark.slow
def test_interrupts_end_the_wait(program: type[Program]) -> None:
    child = program(
        """
        with pair() as (alice, bob):
            region = bob.endpoint.register(bytearray(8), "rw")
            try:
                say("waiting")
                alice.endpoint.fetch_add(alice.peer, region.key, 0, 1)
            except KeyboardInterrupt:
                say("interrupted")
        """
    )
    assert child.line() == "waiting"
    child.signal(signal.SIGINT)
    assert child.line() == "interrupted"
    child.succeed()
