# SPDX-License-Identifier: Apache-2.0
"""Granted memory when things go wrong: peers killed in the middle, keys stolen, arenas full.

::

    alice (this process, survives) <--- grants, loans, operations ---> victim (a process)
       |                                                                SIGKILL
       +--- an operation now and then ---> bob (a process, must not notice)

A victim repeats one operation until it is killed, wherever it is; how long it is left alone is
decided by dice, whose seed an error notes (`DIOLKOS_REGIONS_SEED` throws them again).
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

import diolkos
from diolkos.testing import Side, pair
from disasters import (
    PATIENCE_S,
    Program,
    RunningBackend,
    descriptors,
    endpoints,
    kill_and_await,
    mappings,
    until,
)
from test_memory import resident

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# Long enough that most kills are in the middle of a copy.
LONG = 64 * MIB
# Match infos.
HELLO, KEY, NOTICE, LOAN = 1, 2, 3, 4
OLD, NEW = 0xA5, 0x5A
ROUNDS = 6
CYCLES, WARM_UP = 1000, 200

PRELUDE = f"""
import numpy as np
HELLO, KEY, NOTICE, LOAN = {HELLO}, {KEY}, {NOTICE}, {LOAN}
OLD, NEW, LONG, GIB = {OLD}, {NEW}, {LONG}, {GIB}
ep = diolkos.Endpoint(sys.argv[1], start_backend=False)
alice = ep.connect("alice", timeout=60)
ep.send(b"", alice, match=HELLO)
"""
READER = """
key = ep.recv_object(match=KEY, source=alice)
room = np.empty(key.nbytes, "u1")
say("starts")
while True:
    ep.rdma_read(room, alice, key)
"""
WRITER = """
key = ep.recv_object(match=KEY, source=alice)
data = np.full(key.nbytes, NEW, "u1")
say("starts")
while True:
    ep.rdma_write(data, alice, key)
"""
COUNTER = """
key = ep.recv_object(match=KEY, source=alice)
say("starts")
while True:
    ep.fetch_add(alice, key, 0, 1)
    ep.compare_swap(alice, key, 8, 0, 0)
"""
OWNER = """
memory = ep.alloc(LONG) if sys.argv[2] == "granted" else bytearray(LONG)
np.asarray(memory)[:] = OLD
region = ep.register(memory, "rw")
ep.send_object(region.key, alice, match=KEY)
while True:
    ep.recv(timeout=60)
"""
BORROWER = """
loan = ep.recv_loan(match=LOAN, source=alice)
view = np.asarray(loan)
say(int(view[0]), int(view[-1]), loan.copied)
hear()
"""
LENDER = """
memory = ep.alloc(LONG)
np.asarray(memory)[:] = OLD
loan = ep.lend(memory, alice, match=LOAN)
loan.wait()
"""
ASKED = """
while True:
    key = ep.recv_object(match=KEY, source=alice)
    room = bytearray(key.nbytes)
    ep.rdma_read(room, alice, key)
    say(ep.reach(alice, key), room == bytes([OLD]) * len(room))
    with ep.recv_loan(match=LOAN, source=alice) as loan:
        say("lent", bytes(loan) == room, loan.copied)
"""
TOLD_WRITER = """
data = np.full(GIB, NEW, "u1")
while True:
    key = ep.recv_object(match=KEY, source=alice)
    try:
        while True:
            ep.rdma_write(data[:key.nbytes], alice, key)
    except (diolkos.RevokedError, diolkos.KeyRefusedError):
        say("revoked")
"""
TOLD_READER = """
room = np.full(GIB, OLD, "u1")
while True:
    key = ep.recv_object(match=KEY, source=alice)
    say("starts")
    try:
        while True:
            ep.rdma_read(room[:key.nbytes], alice, key)
            assert (room[:key.nbytes:512] == OLD).all(), "something new was read"
    except (diolkos.RevokedError, diolkos.KeyRefusedError):
        say("revoked, and nothing new was seen")
"""
# One that must not notice: answers, lends back what it is lent, has a region of its own.
BOB = """
memory = ep.alloc(4096)
np.asarray(memory)[:] = 0
region = ep.register(memory, "rw", peer=alice)
ep.send_object(region.key, alice, match=KEY)
while True:
    ep.recv(match=NOTICE, source=alice)
    with ep.recv_loan(match=LOAN, source=alice) as loan:
        ep.send(bytes(loan), alice, match=NOTICE)
"""


class Bob:
    """The one that must not notice, and what is done with it between disasters."""

    def __init__(self, ep: diolkos.Endpoint, peer: diolkos.Peer) -> None:
        self._ep, self._peer = ep, peer
        self._key = ep.recv_object(match=KEY, source=peer, timeout=PATIENCE_S)
        self._page = ep.alloc(4096, peer=peer)

    def use(self) -> None:
        """A write, a read, a sum and a loan, each exact."""
        ep, peer, key = self._ep, self._peer, self._key
        data = os.urandom(4096)
        ep.rdma_write(data, peer, key, notify=NOTICE, timeout=PATIENCE_S)
        back = bytearray(4096)
        ep.rdma_read(back, peer, key, timeout=PATIENCE_S)
        assert back == data
        word = int.from_bytes(data[8:16], "little")
        assert ep.fetch_add(peer, key, 8, 1, timeout=PATIENCE_S) == word
        memoryview(self._page)[:] = data
        loan = ep.lend(self._page, peer, match=LOAN)
        assert ep.recv(match=NOTICE, source=peer, timeout=PATIENCE_S) == data
        loan.wait(PATIENCE_S)


@pytest.fixture
def dice() -> Iterator[random.Random]:
    """Seeded dice; the seed is shown with a failure."""
    seed = int(os.environ.get("DIOLKOS_REGIONS_SEED") or random.getrandbits(32))
    print(f"again with DIOLKOS_REGIONS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def alice(backend: RunningBackend) -> Iterator[diolkos.Endpoint]:
    """The endpoint that survives."""
    with diolkos.Endpoint("alice", start_backend=False) as ep:
        yield ep


def held() -> tuple[int, int]:
    """Descriptors of this process, and mappings of granted memory."""
    gc.collect()
    return descriptors(), mappings()[1]


@contextmanager
def running(
    ep: diolkos.Endpoint, source: str, name: str = "victim", *arguments: object
) -> Iterator[tuple[Program, diolkos.Peer]]:
    """A program that has connected to the endpoint."""
    with Program(PRELUDE + source, name, *arguments) as program:
        message = ep.recv(match=HELLO, timeout=PATIENCE_S)
        assert message.source.name == name, program.line()
        yield program, message.source


@pytest.fixture
def bob(alice: diolkos.Endpoint) -> Iterator[Bob]:
    """In another process."""
    with running(alice, BOB, "bob") as (_, peer):
        yield Bob(alice, peer)


def is_gone(ep: diolkos.Endpoint, peer: diolkos.Peer) -> bool:
    """Whether the endpoint knows that a peer has ended. Looks."""
    ep.progress()
    return not peer.is_connected


def ended(request: diolkos.Request, *owners: diolkos.Endpoint) -> diolkos.Status:
    """Waits for a request whose other side is in this thread."""
    found: list[diolkos.Status] = []

    def done() -> bool:
        for owner in owners:
            owner.progress()
        if (status := request.test()) is not None:
            found.append(status)
        return bool(found)

    until("the end of a request", done)
    return found[0]


def memory_of(ep: diolkos.Endpoint, kind: str, size: int) -> Any:
    """Arena memory, which is granted, or memory that is served by copies."""
    memory = ep.alloc(size) if kind == "granted" else bytearray(size)
    np.asarray(memory)[:] = OLD
    return memory


def repeat(call: Callable[[], object], begun: list[int]) -> None:
    """Calls until something is raised, and counts."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        begun[0] += 1
        call()


def refused(call: Callable[[], object], error: type[BaseException]) -> str:
    """A call raises this error; its text."""
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# --- peers killed in the middle -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["granted", "copied"])
@pytest.mark.parametrize("source", [READER, WRITER, COUNTER], ids=["read", "write", "atomic"])
def test_initiators_killed_in_the_middle(
    alice: diolkos.Endpoint, bob: Bob, dice: random.Random, source: str, kind: str
) -> None:
    """The owner's memory has old and new bytes and no others, and the region can be used on."""
    memory = memory_of(alice, kind, LONG)
    view = np.asarray(memory)
    if source == COUNTER:
        view[:16] = 0
    with alice.register(memory, "rw") as region:
        before = held()
        for number in range(ROUNDS):
            with running(alice, source) as (victim, peer):
                alice.send_object(region.key, peer, match=KEY)
                assert victim.line() == "starts"
                if source == WRITER:
                    view[-1] = OLD
                    last = lambda: (alice.progress(), view[-1] == NEW)[1]  # noqa: E731
                    until("the first write", last)
                for _ in range(dice.randrange(3000)):
                    alice.progress()
                os.kill(victim.pid, 9)
                until("the death of the initiator", lambda who=peer: is_gone(alice, who))
            counts = np.bincount(view[16:], minlength=256)
            assert counts[OLD] + counts[NEW] == LONG - 16
            bob.use()
            del peer
            before = held() if number == 0 else before
        assert held() == before
        region.revoke()
        kept = view.copy()
        bob.use()
        assert np.array_equal(kept, view)
    if kind == "granted":
        assert alice.arena.granted_nbytes <= 4096, "but for what bob was lent"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["granted", "copied"])
@pytest.mark.parametrize("what", ["read", "write", "atomic"])
def test_the_owner_is_killed_while_its_key_is_used(
    alice: diolkos.Endpoint, bob: Bob, dice: random.Random, what: str, kind: str
) -> None:
    room = np.full(LONG, NEW, "u1")
    before = held()
    for number in range(ROUNDS):
        with running(alice, OWNER, "victim", kind) as (victim, peer):
            key = alice.recv_object(match=KEY, source=peer, timeout=PATIENCE_S)
            calls: dict[str, Callable[[], object]] = {
                "read": lambda peer=peer, key=key: alice.rdma_read(room, peer, key),
                "write": lambda peer=peer, key=key: alice.rdma_write(room, peer, key),
                "atomic": lambda peer=peer, key=key: alice.fetch_add(peer, key, 0, 1),
            }
            calls[what]()
            begun, enough = [0], dice.randrange(1, 20)

            def killing(pid: int = victim.pid, begun: list[int] = begun, at: int = enough) -> None:
                until("calls", lambda: begun[0] >= at)
                os.kill(pid, 9)

            killer = threading.Thread(target=killing)
            killer.start()
            with pytest.raises(diolkos.PeerError):
                repeat(calls[what], begun)
            killer.join()
            for call in calls.values():
                refused(call, diolkos.PeerError)
            del peer, key, calls, call
        bob.use()
        before = held() if number == 0 else before
    assert held() == before


def test_a_spinning_initiator_hears_of_the_death(alice: diolkos.Endpoint) -> None:
    """One that waits for a word to change, and makes no other calls."""
    for what in ("read", "write", "fetch_add", "compare_swap"):
        with running(alice, OWNER, "victim", "granted") as (victim, peer):
            key = alice.recv_object(match=KEY, source=peer, timeout=PATIENCE_S)
            room = bytearray(8)
            call: Callable[[], object] = {
                "read": partial(alice.rdma_read, room, peer, key),
                "write": partial(alice.rdma_write, room, peer, key),
                "fetch_add": partial(alice.fetch_add, peer, key, 0, 1),
                "compare_swap": partial(alice.compare_swap, peer, key, 0, 1, 2),
            }[what]
            call()
            assert alice.reach(peer, key) == "granted"
            kill_and_await(victim.pid)
            with pytest.raises(diolkos.PeerError):
                repeat(call, [0])


def test_a_borrower_is_killed(alice: diolkos.Endpoint, bob: Bob) -> None:
    """The loan comes back with an error, the memory is the lender's, and can be lent again."""
    with alice.alloc(LONG) as memory:
        view = np.asarray(memory)
        for number in range(3):
            view[:] = number
            with running(alice, BORROWER) as (victim, peer):
                loan = alice.lend(memory, peer, match=LOAN)
                waiting = [alice.lend(memory, peer, match=NOTICE) for _ in range(3)]
                assert victim.line() == f"{number} {number} False"
                assert loan.test() is None
                kill_and_await(victim.pid)
                for request in (loan, *waiting):
                    with pytest.raises(diolkos.PeerError):
                        request.wait(PATIENCE_S)
                refused(lambda peer=peer: alice.lend(memory, peer), diolkos.PeerError)
            bob.use()
        del view
    used = alice.arena.used_nbytes
    assert used <= 4096, "but for what bob is lent"


@pytest.mark.parametrize("received", [True, False])
def test_a_lender_is_killed(alice: diolkos.Endpoint, bob: Bob, received: bool) -> None:
    """A loan stays readable, and goes when it is let go; one that was not received is no more."""
    mapped = mappings()[1]
    with running(alice, LENDER) as (victim, peer):
        if received:
            loan = alice.recv_loan(match=LOAN, source=peer, timeout=PATIENCE_S)
            view = np.asarray(loan)
            assert not loan.copied
        kill_and_await(victim.pid)
        until("the death of the lender", lambda who=peer: is_gone(alice, who))
        if received:
            assert (view == OLD).all()
            loan.release()
            assert (view == OLD).all()
            del view
        else:
            with pytest.raises(diolkos.PeerError):
                alice.recv_loan(match=LOAN, source=peer, timeout=PATIENCE_S)
    bob.use()
    if received:
        del loan
    del peer
    gc.collect()
    alice.progress()
    # The home file keeps a line of counters for each peer that there was.
    assert mappings()[1] <= mapped + 1


def test_the_backend_is_killed(backend: RunningBackend, alice: diolkos.Endpoint, bob: Bob) -> None:
    """What is granted stays so, and new grants cross as before."""
    bob.use()
    with running(alice, ASKED) as (victim, peer):
        for number in range(6):
            if number == 1:
                backend.end()
            memory = memory_of(alice, "granted", MIB)
            bound = peer if number % 2 else None
            with alice.register(memory, "r", peer=bound) as region:
                alice.send_object(region.key, peer, match=KEY)
                assert victim.line() == "granted True"
            loan = alice.lend(memory, peer, match=LOAN)
            assert victim.line() == "lent True False"
            loan.wait(PATIENCE_S)
            bob.use()
    backend.start()

    def taken_back() -> bool:
        bob.use()
        return {"alice", "bob"} <= endpoints(backend.runtime_dir).keys()

    until("the endpoints' return", taken_back)


# --- revoked in the middle ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [GIB, LONG])
def test_a_revoke_in_the_middle_of_writes(
    alice: diolkos.Endpoint, bob: Bob, dice: random.Random, size: int
) -> None:
    """The initiator is told, and what the owner writes after the revoke stays as it is."""
    with running(alice, TOLD_WRITER) as (victim, peer):
        for _ in range(1 if size == GIB else ROUNDS):
            with alice.alloc(size) as memory:
                view = np.asarray(memory)
                view[:] = OLD
                region = alice.register(memory, "rw", peer=peer)
                alice.send_object(region.key, peer, match=KEY)
                place = dice.randrange(size)
                until("a write in the middle", lambda v=view, at=place: v[at] == NEW)
                region.revoke()
                view[::512] = OLD ^ 0xFF
                bob.use()
                assert victim.line() == "revoked"
                assert (view[::512] == OLD ^ 0xFF).all()
                del view
            bob.use()


@pytest.mark.slow
@pytest.mark.parametrize("size", [GIB, LONG])
def test_a_revoke_in_the_middle_of_reads(
    alice: diolkos.Endpoint, bob: Bob, dice: random.Random, size: int
) -> None:
    """What was read before is what was there before; after the revoke nothing is read."""
    with running(alice, TOLD_READER) as (victim, peer):
        for _ in range(1 if size == GIB else ROUNDS):
            with alice.alloc(size) as memory:
                view = np.asarray(memory)
                view[:] = OLD
                region = alice.register(memory, "r", peer=peer)
                alice.send_object(region.key, peer, match=KEY)
                assert victim.line() == "starts"
                for _ in range(dice.randrange(3000)):
                    alice.progress()
                region.revoke()
                view[:] = NEW
                # The victim asks why, and alice has to answer.
                bob.use()
                assert victim.line() == "revoked, and nothing new was seen"
                assert (view[::4096] == NEW).all()
                del view
            bob.use()


# --- keys in the wrong hands --------------------------------------------------------------------


class Friends:
    """Endpoints of this process that are all connected to one owner."""

    def __init__(
        self, stack: ExitStack, owner: diolkos.Endpoint, *names: str, partition: str = "default"
    ) -> None:
        self.owner = owner
        self.ends: dict[str, Side] = {}
        self.seen_by_owner: dict[str, diolkos.Peer] = {}
        for name in names:
            ep = stack.enter_context(
                diolkos.Endpoint(name, partition=partition, start_backend=False)
            )
            request = ep.iconnect(owner.name, timeout=PATIENCE_S)
            ended(request, owner)
            peer = request.peer
            assert peer is not None
            self.ends[name] = Side(ep, peer)
            send = ep.isend(b"", peer, match=HELLO)
            self.seen_by_owner[name] = owner.recv(match=HELLO, timeout=PATIENCE_S).source
            ended(send, owner)

    def forget(self) -> None:
        """Lets go of all of them."""
        self.ends.clear()
        self.seen_by_owner.clear()

    def tries(self, name: str, key: diolkos.Key) -> list[str]:
        """Each operation with a key: how it ended."""
        side = self.ends[name]
        ep, peer = side.endpoint, side.peer
        room = bytearray(64)
        results = []
        for request in (
            lambda: ep.irdma_read(room, peer, key),
            lambda: ep.irdma_write(b"x" * 64, peer, key),
            lambda: ep.try_fetch_add(peer, key, 0, 1),
            lambda: ep.try_compare_swap(peer, key, 8, 0, 1),
        ):
            try:
                result = request()
                if isinstance(result, diolkos.Request):
                    ended(result, self.owner)
                results.append("done")
            except diolkos.DiolkosError as error:
                results.append(type(error).__name__)
        assert room == bytes(64) or results[0] == "done", "a refused read wrote something"
        return results


@pytest.fixture
def friends(alice: diolkos.Endpoint) -> Iterator[Friends]:
    with ExitStack() as stack:
        friends = Friends(stack, alice, "bob", "carol")
        yield friends
        friends.forget()


DONE, REFUSED = ["done"] * 4, ["KeyRefusedError"] * 4
# What an operation with a key of a region that is no more can be told.
OVER = {"RevokedError", "KeyRefusedError"}


@pytest.mark.parametrize("kind", ["granted", "copied"])
def test_a_stolen_key(alice: diolkos.Endpoint, friends: Friends, kind: str) -> None:
    """One that is bound opens nothing for anybody else; one that is not is as good as given."""
    memory = memory_of(alice, kind, 4096)
    before = bytes(memory)
    with alice.register(memory, "rw", peer=friends.seen_by_owner["bob"]) as region:
        stolen = diolkos.Key.from_bytes(bytes(region.key))
        assert friends.tries("carol", stolen) == REFUSED
        assert bytes(memory) == before
        assert friends.tries("bob", region.key) == DONE
        assert friends.tries("carol", stolen) == REFUSED, "also once bob has used it"
        refused(lambda: region.grant(friends.seen_by_owner["carol"]), diolkos.KeyRefusedError)
    with alice.register(memory, "rw") as region:
        stolen = diolkos.Key.from_bytes(bytes(region.key))
        assert friends.tries("carol", stolen) == DONE
    with alice.register(memory, "r") as region:
        assert friends.tries("carol", region.key) == ["done", *REFUSED[1:]]
        # A byte of the secret; the highest of the length, with the right to write; the region.
        for place, bit, wanted in ((20, 1, REFUSED), (39, 0x80, None), (33, 1, None), (8, 1, None)):
            raw = bytearray(bytes(region.key))
            raw[place] ^= bit
            forged = diolkos.Key.from_bytes(raw)
            results = friends.tries("carol", forged)
            assert results == wanted or set(results[1:]) == {"KeyRefusedError"}
            beyond = bytearray(64)
            carol = friends.ends["carol"]
            with pytest.raises((diolkos.RangeError, diolkos.KeyRefusedError)):
                ended(carol.endpoint.irdma_read(beyond, carol.peer, forged, 4096), alice)
            assert beyond == bytes(64)


def test_a_key_in_another_partition(alice: diolkos.Endpoint) -> None:
    """Its owner cannot be reached from there, and no region of anybody there opens to it."""
    memory = memory_of(alice, "granted", 4096)
    before = bytes(memory)
    with (
        alice.register(memory, "rw") as region,
        diolkos.Endpoint("dave", partition="other", start_backend=False) as dave,
        ExitStack() as stack,
    ):
        others = Friends(stack, dave, "erin", partition="other")
        refused(lambda: dave.connect("alice", timeout=0.01), diolkos.DiolkosError)
        stolen = diolkos.Key.from_bytes(bytes(region.key))
        of_dave = memory_of(dave, "granted", 4096)
        with dave.register(of_dave, "rw") as own:
            assert others.tries("erin", stolen) == REFUSED
            assert bytes(of_dave) == bytes([OLD]) * 4096
            assert others.tries("erin", own.key) == DONE
        assert bytes(memory) == before
        others.forget()


@pytest.mark.parametrize("kind", ["granted", "copied"])
def test_keys_replayed(alice: diolkos.Endpoint, friends: Friends, kind: str) -> None:
    """After the revoke, after the same memory was registered again, and never for another."""
    memory = memory_of(alice, kind, 4096)
    bob = friends.seen_by_owner["bob"]
    dead: list[diolkos.Key] = []
    for bound in (bob, None, bob, None):
        with alice.register(memory, "rw", peer=bound) as region:
            assert friends.tries("bob", region.key) == DONE
            for key in dead:
                assert set(friends.tries("bob", key)) <= OVER
        before = bytes(memory)
        dead.append(region.key)
        for key in dead:
            assert set(friends.tries("bob", key)) <= OVER
            assert set(friends.tries("carol", key)) <= OVER
        assert bytes(memory) == before
        refused(lambda region=region: region.grant(bob), diolkos.RevokedError)
    assert len(set(dead)) == len(dead)


def test_a_key_of_the_endpoint_before(backend: RunningBackend) -> None:
    """An owner that comes back under its name and number does not know its old keys."""
    keys = []
    for _ in range(2):
        with (
            diolkos.Endpoint("owner", number=7, start_backend=False) as owner,
            ExitStack() as stack,
        ):
            friends = Friends(stack, owner, "bob")
            with owner.register(memory_of(owner, "granted", 4096), "rw") as region:
                keys.append(region.key)
                assert friends.tries("bob", keys[-1]) == DONE
                for old in keys[:-1]:
                    assert friends.tries("bob", old) == REFUSED
            friends.forget()


def test_the_owner_is_closed(alice: diolkos.Endpoint) -> None:
    """Regions end with it; memory, views and loans outlive it."""
    owner = diolkos.Endpoint("owner", start_backend=False)
    with ExitStack() as stack:
        friends = Friends(stack, owner, "bob")
        bob = friends.ends["bob"]
        memory = memory_of(owner, "granted", 4096)
        region = owner.register(memory, "rw")
        assert friends.tries("bob", region.key) == DONE
        lent = owner.lend(memory, friends.seen_by_owner["bob"], match=LOAN)
        loan = bob.endpoint.recv_loan(match=LOAN, timeout=PATIENCE_S)
        before = bytes(loan)
        owner.close()
        assert region.revoked
        region.revoke()
        refused(lambda: lent.wait(PATIENCE_S), diolkos.ClosedError)
        for call in (
            lambda: owner.alloc(1),
            lambda: owner.register(memory),
            lambda: owner.lend(memory, friends.seen_by_owner["bob"]),
            lambda: region.grant(friends.seen_by_owner["bob"]),
        ):
            with pytest.raises((diolkos.ClosedError, diolkos.RevokedError)):
                call()
        np.asarray(memory)[:] = NEW
        assert bytes(memory) == bytes([NEW]) * 4096
        until("the farewell", lambda: is_gone(bob.endpoint, bob.peer))
        ops = (
            lambda: bob.endpoint.rdma_read(bytearray(8), bob.peer, region.key),
            lambda: bob.endpoint.rdma_write(bytes(8), bob.peer, region.key),
            lambda: bob.endpoint.fetch_add(bob.peer, region.key, 0, 1),
        )
        for call in ops:
            refused(call, diolkos.PeerError)
        assert (
            bytes(loan)[1000:] == bytes([OLD]) * 3096 or bytes(loan)[1000:] == bytes([NEW]) * 3096
        )
        assert len(before) == 4096
        loan.release()
        friends.forget()


# --- memory that is short, freed, or used a thousand times --------------------------------------


def test_an_arena_at_its_limit(backend: RunningBackend) -> None:
    """The error says what there is and what to do; freeing is one of it."""
    with diolkos.Endpoint(arena_nbytes=MIB, start_backend=False) as ep:
        kept = [ep.alloc(256 * KIB) for _ in range(4)]
        assert ep.arena.used_nbytes == ep.arena.limit_nbytes == MIB
        with pytest.raises(diolkos.ArenaFullError) as caught:
            ep.alloc(1)
        text = f"{caught.value} {caught.value.hint}"
        assert "arena_nbytes" in text
        assert "free" in text.lower()
        assert str(MIB) in text
        refused(lambda: ep.alloc(2 * MIB), diolkos.ArenaFullError)
        view = memoryview(kept[0])
        kept[0].free()
        refused(lambda: ep.alloc(256 * KIB), diolkos.ArenaFullError)
        view.release()
        kept[0] = ep.alloc(256 * KIB)
        # What is cached makes room for what has another size.
        for memory in kept:
            memory.free()
        with ep.alloc(MIB) as whole:
            assert whole.nbytes == MIB
        assert ep.arena.allocations == 0


def test_freed_memory_in_every_call() -> None:
    """`ValueError`, and nothing crosses."""
    with pair() as (alice, bob):
        ep, peer = alice.endpoint, alice.peer
        room = bob.endpoint.register(bytearray(64), "rw")
        memory = ep.alloc(64)
        memory.free()
        assert memory.freed
        for call in (
            lambda: memoryview(memory),
            lambda: bytes(memory),
            lambda: np.asarray(memory),
            lambda: ep.send(memory, peer),
            lambda: ep.isend(memory, peer),
            lambda: ep.issend(memory, peer),
            lambda: ep.send_object(np.frombuffer(memory, "u1"), peer),
            lambda: ep.recv_into(memory),
            lambda: ep.irecv_into(memory),
            lambda: ep.multi_recv(memory),
            lambda: ep.lend(memory, peer),
            lambda: ep.register(memory),
            lambda: ep.register(memory, "rw"),
            lambda: ep.rdma_write(memory, peer, room.key),
            lambda: ep.irdma_write(memory, peer, room.key),
            lambda: ep.rdma_read(memory, peer, room.key),
            lambda: ep.irdma_read(memory, peer, room.key),
        ):
            assert "freed" in refused(call, ValueError)
        memory.free()
        bob.endpoint.progress()
        assert bob.endpoint.iprobe() is None
        counters = ep.counters
        assert {counters[key] for key in ("unexpected", "posted", "requests")} == {0}


def one_cycle(alice: Side, bob: Side, size: int, bound: bool) -> None:
    """Memory that is granted for reading, for writing and as a loan, taken back and freed."""
    peer = alice.peer if bound else None
    with alice.endpoint.alloc(size, peer=peer) as memory:
        view = np.asarray(memory)
        view[:] = OLD
        with alice.endpoint.register(memory, "rw", peer=peer) as region:
            region.grant(alice.peer)
            ended(bob.endpoint.irdma_write(b"new", bob.peer, region.key), alice.endpoint)
            assert bytes(view[:4]) == b"new" + bytes([OLD])
        lent = alice.endpoint.lend(memory, alice.peer, match=LOAN)
        with bob.endpoint.recv_loan(match=LOAN, timeout=PATIENCE_S) as loan:
            assert bytes(memoryview(loan)[:3]) == b"new"
        ended(lent, bob.endpoint)
        del view


@pytest.mark.slow
@pytest.mark.parametrize("bound", [False, True], ids=["for anybody", "for one"])
def test_a_thousand_cycles(dice: random.Random, bound: bool) -> None:
    with pair() as (alice, bob):
        for number in range(CYCLES):
            one_cycle(alice, bob, dice.choice((64, 4096, 100_000, MIB)), bound)
            if number == WARM_UP:
                before, rest = held(), resident()[1]
        assert held() == before
        arena = alice.endpoint.arena
        assert (arena.used_nbytes, arena.allocations, arena.granted_nbytes) == (0, 0, 0)
        # What is cached is mapped at both ends.
        granted_after, rest_after = resident()
        assert granted_after <= 2 * arena.cached_nbytes + MIB
        assert rest_after - rest <= 4 * MIB


@pytest.mark.slow
def test_a_thousand_loans_of_the_same_memory() -> None:
    """A loan costs nothing that stays."""
    with pair() as (alice, bob), closing(bob.endpoint), alice.endpoint.alloc(MIB) as memory:
        for number in range(CYCLES):
            memoryview(memory)[0] = number % 256
            lent = alice.endpoint.lend(memory, alice.peer, immediate=number)
            loan = bob.endpoint.recv_loan(timeout=PATIENCE_S)
            assert (loan.immediate, memoryview(loan)[0]) == (number, number % 256)
            # Half of them are only dropped.
            if number % 2:
                loan.release()
            del loan
            ended(lent, bob.endpoint)
            if number == WARM_UP:
                before, bytes_before = held(), sum(resident())
        assert held() == before
        assert sum(resident()) - bytes_before <= MIB
