# SPDX-License-Identifier: Apache-2.0
"""Loans: a peer looks at memory where it lies, until it lets go."""

from __future__ import annotations

import gc
import signal
import threading
from typing import Any

import numpy as np
import pytest

import diolkos
from diolkos._core import local_pair
from diolkos.testing import Side
from programs import Program


def test_the_borrower_sees_the_lenders_own_bytes(alice: Side, bob: Side) -> None:
    memory = alice.endpoint.alloc((2, 3), "f8")
    array = np.asarray(memory)
    array[:] = 1
    request = alice.endpoint.lend(memory, alice.peer, match=7, immediate=9)
    loan = bob.endpoint.recv_loan(match=7, dtype="f8", shape=(2, 3), timeout=10)
    seen = np.asarray(loan)
    assert (seen.shape, seen.dtype, seen.flags.writeable) == ((2, 3), np.dtype("f8"), False)
    assert (loan.nbytes, loan.match, loan.immediate, loan.copied) == (48, 7, 9, False)
    assert loan.source == bob.peer
    assert request.test() is None
    array[0, 0] = 5
    assert seen[0, 0] == 5, "the same memory"
    assert "48 bytes" in repr(loan)
    del seen
    loan.release()
    status = request.wait(10)
    assert (status.nbytes, status.match) == (48, 7)


def test_a_loan_cannot_be_written(alice: Side, bob: Side) -> None:
    request = alice.endpoint.lend(alice.endpoint.alloc(64), alice.peer)
    with bob.endpoint.recv_loan() as loan:
        assert memoryview(loan).readonly
        with pytest.raises(BufferError, match="read-only"):
            bob.endpoint.recv_into(loan)
        with pytest.raises(BufferError, match="read-only"):
            bob.endpoint.register(loan, "rw")
        with pytest.raises(ValueError, match=r"assignment destination|read-only"):
            np.asarray(loan)[0] = 1
    request.wait(10)


def test_release_waits_for_the_last_view(alice: Side, bob: Side) -> None:
    request = alice.endpoint.lend(alice.endpoint.alloc(64), alice.peer)
    with bob.endpoint.recv_loan() as loan:
        view = memoryview(loan)
        array = np.asarray(loan)[3:5]
    assert loan.released
    loan.release()
    for use in (memoryview, np.asarray, bytes):
        with pytest.raises(ValueError, match="was released"):
            use(loan)  # type: ignore[call-overload]
    view.release()
    assert request.test() is None
    del array
    gc.collect()
    request.wait(10)


def test_a_dropped_loan_goes_back(alice: Side, bob: Side) -> None:
    request = alice.endpoint.lend(alice.endpoint.alloc(64), alice.peer)
    array = np.asarray(bob.endpoint.recv_loan())
    gc.collect()
    assert request.test() is None
    del array
    gc.collect()
    request.wait(10)


@pytest.mark.parametrize(
    "wanted",
    [
        {"dtype": "f8"},
        {"dtype": "u1", "shape": 11},
        {"dtype": "i4", "shape": (2, 2)},
        {"shape": ()},
        {"shape": (-1,)},
    ],
    ids=repr,
)
def test_one_that_does_not_fit_goes_back(alice: Side, bob: Side, wanted: dict[str, Any]) -> None:
    request = alice.endpoint.lend(memoryview(alice.endpoint.alloc(100))[:12], alice.peer)
    with pytest.raises(ValueError):
        bob.endpoint.recv_loan(**wanted)
    request.wait(10)


def test_all_ways_to_call(alice: Side, bob: Side) -> None:
    """Short calls and general ones mean the same."""
    memory = alice.endpoint.alloc(8)
    calls: list[dict[str, Any]] = [
        {},
        {"match": 0, "immediate": 0},
        {"match": np.int64(0), "immediate": np.uint8(0)},
    ]
    for options in calls:
        alice.endpoint.lend(memory, alice.peer, **options)
        alice.endpoint.lend(buffer=memory, peer=alice.peer, **options)
    for options in (
        {},
        {"match": 0, "mask": 0xFF, "source": bob.peer, "timeout": 10},
        {"match": None, "mask": None, "source": None, "timeout": None},
        {"match": 0, "timeout": 1},
        {"dtype": "u1", "shape": None},
        {"dtype": "u1", "shape": 8},
    ):
        assert bob.endpoint.recv_loan(**options).nbytes == 8  # type: ignore[arg-type]
    for wrong in ({"untagged": False}, {"matching": 1}, {"source": "alice"}, {"match": "1"}):
        with pytest.raises(TypeError):
            bob.endpoint.recv_loan(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        bob.endpoint.recv_loan(1)  # type: ignore[misc]
    for wrong in ({"timeout": 1}, {"match": "1"}, {"synchronous": True}):
        with pytest.raises(TypeError):
            alice.endpoint.lend(memory, alice.peer, **wrong)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        alice.endpoint.lend(memory, alice.peer, match=-1)


def test_an_unknown_type_costs_no_loan(alice: Side, bob: Side) -> None:
    alice.endpoint.lend(alice.endpoint.alloc(8), alice.peer)
    with pytest.raises(TypeError):
        bob.endpoint.recv_loan(dtype="no such type")
    assert bob.endpoint.recv_loan(dtype="i8").nbytes == 8


def test_loans_come_in_order_and_apart_from_messages(alice: Side, bob: Side) -> None:
    memories = [alice.endpoint.alloc(8, "i8") for _ in range(5)]
    for number, memory in enumerate(memories):
        np.asarray(memory)[:] = number
    requests = []
    for number, memory in enumerate(memories):
        alice.endpoint.send(b"message", alice.peer, match=1)
        requests.append(alice.endpoint.lend(memory, alice.peer, match=number % 2))
    assert bytes(bob.endpoint.recv(match=1)) == b"message"
    odd = [bob.endpoint.recv_loan(match=1) for _ in range(2)]
    even = [bob.endpoint.recv_loan(match=0, mask=1, source=bob.peer) for _ in range(3)]
    assert [np.frombuffer(loan, "i8")[0] for loan in odd + even] == [1, 3, 0, 2, 4]
    with pytest.raises(diolkos.Timeout):
        bob.endpoint.recv_loan(timeout=0)
    # Let go in another order than they came.
    while odd:
        odd.pop().release()
    del even
    for request in requests:
        request.wait(10)


def test_a_part_of_memory_can_be_lent(alice: Side, bob: Side) -> None:
    array = np.asarray(alice.endpoint.alloc(1000, "i4"))
    array[:] = np.arange(1000)
    request = alice.endpoint.lend(array[10:20], alice.peer)
    empty = alice.endpoint.lend(array[:0], alice.peer)
    with bob.endpoint.recv_loan(dtype="i4") as loan:
        assert np.asarray(loan).tolist() == list(range(10, 20))
    with bob.endpoint.recv_loan() as loan:
        assert (loan.nbytes, bytes(loan)) == (0, b"")
    request.wait(10)
    empty.wait(10)


@pytest.mark.parametrize("buffer", [bytearray(8), b"bytes", np.zeros(4)], ids=["a", "b", "c"])
def test_other_memory_is_not_lent(alice: Side, buffer: Any) -> None:
    with pytest.raises(ValueError, match=r"ep\.alloc"):
        alice.endpoint.lend(buffer, alice.peer)


def test_nobody_lends_what_is_not_theirs(alice: Side, bob: Side) -> None:
    memory = bob.endpoint.alloc(8)
    with pytest.raises(ValueError, match=r"ep\.alloc"):
        alice.endpoint.lend(memory, alice.peer)
    with pytest.raises(ValueError, match="itself"):
        bob.endpoint.lend(memory, bob.endpoint.self_peer)
    bob.endpoint.close()
    with pytest.raises(diolkos.ClosedError):
        bob.endpoint.lend(memory, bob.peer)


def test_lent_memory_is_held(alice: Side, bob: Side) -> None:
    memory = alice.endpoint.alloc(64)
    np.asarray(memory)[:] = 3
    request = alice.endpoint.lend(memory, alice.peer)
    assert not request.cancel()
    memory.free()
    del memory, request
    gc.collect()
    assert alice.endpoint.arena.allocations == 1
    with bob.endpoint.recv_loan() as loan:
        assert set(bytes(loan)) == {3}
    while alice.endpoint.arena.allocations:
        alice.endpoint.progress()


def test_a_posted_receive_gets_its_loan(alice: Side, bob: Side) -> None:
    posted = bob.endpoint.irecv_loan(match=3)
    with pytest.raises(ValueError, match="not ended"):
        _ = posted.loan
    request = alice.endpoint.lend(alice.endpoint.alloc(16), alice.peer, match=3)
    assert posted.wait(10).nbytes == 16
    loan = posted.loan
    assert loan is not None
    assert loan is posted.loan
    assert posted.message is None
    assert request.test() is None
    whole = loan.shaped("i8", (2,))
    assert loan.released
    assert np.asarray(whole).shape == (2,)
    with pytest.raises(ValueError, match="released"):
        loan.shaped("i8")
    view = memoryview(whole)
    with pytest.raises(BufferError):
        whole.shaped("u1")
    view.release()
    with pytest.raises(ValueError):
        whole.shaped("i8", 3)
    assert request.wait(10).nbytes == 16
    assert request.loan is None


def test_a_dropped_receive_takes_no_loan(alice: Side, bob: Side) -> None:
    posted = bob.endpoint.irecv_loan()
    assert posted.cancel()
    posted = bob.endpoint.irecv_loan()
    del posted
    assert bob.endpoint.counters["posted"] == 0
    # One that has come already goes back.
    posted = bob.endpoint.irecv_loan()
    request = alice.endpoint.lend(alice.endpoint.alloc(16), alice.peer)
    bob.endpoint.progress()
    assert not bob.endpoint.cancel(posted)
    del posted
    request.wait(10)


def test_timeouts(alice: Side, bob: Side) -> None:
    for timeout in (0, 0.01):
        with pytest.raises(diolkos.Timeout):
            bob.endpoint.recv_loan(timeout=timeout)
    request = alice.endpoint.lend(alice.endpoint.alloc(16), alice.peer)
    with pytest.raises(diolkos.Timeout):
        request.wait(timeout=0.01)
    bob.endpoint.recv_loan(timeout=0).release()
    request.wait(10)


def test_a_borrower_that_closes_gives_back(alice: Side, bob: Side) -> None:
    request = alice.endpoint.lend(alice.endpoint.alloc(16), alice.peer)
    unseen = alice.endpoint.lend(alice.endpoint.alloc(16), alice.peer)
    loan = bob.endpoint.recv_loan()
    bob.endpoint.close()
    for each in (request, unseen):
        with pytest.raises(diolkos.PeerClosed):
            each.wait(10)
    with pytest.raises(diolkos.PeerError):
        alice.endpoint.lend(alice.endpoint.alloc(16), alice.peer)
    assert len(bytes(loan)) == 16
    loan.release()


def test_a_loan_outlives_its_lender(alice: Side, bob: Side) -> None:
    memory = alice.endpoint.alloc(16)
    np.asarray(memory)[:] = 4
    alice.endpoint.lend(memory, alice.peer)
    loan = bob.endpoint.recv_loan()
    alice.endpoint.close()
    memory.free()
    del memory
    gc.collect()
    assert bytes(loan) == b"\x04" * 16
    with pytest.raises(diolkos.PeerClosed):
        bob.endpoint.recv_loan(source=bob.peer, timeout=10)


def test_odd_orders_of_ends() -> None:
    for order in range(6):
        (a, to_b), (b, _) = local_pair()
        memory = a.alloc(4096)
        request = a.lend(memory, to_b)
        loan = b.recv_loan()
        view = memoryview(loan)
        things: list[Any] = [a, b, memory, request, loan, view]
        del a, b, memory, request, loan, view, to_b, _
        things = things[order:] + things[:order]
        while things:
            things.pop()
            gc.collect()


def test_a_waiting_thread_gets_the_loan(alice: Side, bob: Side) -> None:
    got: list[bytes] = []

    def borrow() -> None:
        with bob.endpoint.recv_loan(timeout=60) as loan:
            got.append(bytes(loan))

    thread = threading.Thread(target=borrow)
    thread.start()
    memory = alice.endpoint.alloc(5)
    np.asarray(memory)[:] = 6
    alice.endpoint.lend(memory, alice.peer).wait(60)
    thread.join()
    assert got == [b"\x06" * 5]


BORROWER = """
    with diolkos.Endpoint("bob") as ep:
        say("ready")
        loan = ep.recv_loan(match=1)
        say(loan.nbytes, loan.copied, bytes(loan)[-1])
        hear()
        loan.release()
        say("released")
        hear()
"""


@pytest.mark.slow
@pytest.mark.parametrize("road", ["direct", "switched"])
def test_loans_between_processes(backend: object, program: type[Program], road: str) -> None:
    child = program(BORROWER)
    assert child.line() == "ready"
    with diolkos.Endpoint("alice") as endpoint:
        bob = endpoint.connect("bob", timeout=60, road=road)
        memory = endpoint.alloc(300_000)
        np.asarray(memory)[:] = 8
        request = endpoint.lend(memory, bob, match=1)
        while not request.done and road == "switched":
            # A copied loan is back as soon as it has left.
            request.wait(60)
        assert child.line() == f"300000 {road == 'switched'} 8"
        if road == "direct":
            assert request.test() is None
        child.tell()
        assert child.line() == "released"
        request.wait(60)
        child.tell()
        child.succeed()


@pytest.mark.slow
def test_a_borrower_that_dies_gives_back(backend: object, program: type[Program]) -> None:
    child = program(BORROWER)
    assert child.line() == "ready"
    with diolkos.Endpoint("alice") as endpoint:
        bob = endpoint.connect("bob", timeout=60)
        memory = endpoint.alloc(1000)
        request = endpoint.lend(memory, bob, match=1)
        assert child.line().startswith("1000 False")
        child.kill()
        with pytest.raises(diolkos.PeerDied):
            request.wait(60)
        memory.free()
        assert endpoint.arena.allocations == 0


@pytest.mark.slow
def test_no_room_for_a_copy(backend: object) -> None:
    with (
        diolkos.Endpoint("small", arena_nbytes=1 << 16) as small,
        diolkos.Endpoint("lender") as lender,
    ):
        peer = lender.connect("small", timeout=60, road="switched")
        request = lender.lend(lender.alloc(1 << 20), peer)
        with pytest.raises(diolkos.ArenaFullError, match="went back"):
            small.recv_loan(timeout=60)
        request.wait(60)


@pytest.mark.slow
def test_interrupts_end_the_wait(program: type[Program]) -> None:
    child = program(
        """
        with pair() as (alice, bob):
            try:
                say("waiting")
                bob.endpoint.recv_loan()
            except KeyboardInterrupt:
                say("interrupted", bob.endpoint.counters["posted"])
        """
    )
    assert child.line() == "waiting"
    child.signal(signal.SIGINT)
    assert child.line() == "interrupted 0"
    child.succeed()


@pytest.mark.parametrize("dtype", ["u1", "H", "u4", "Q", "L", "i4", "i8", "f4", "f8", "b", "h"])
def test_a_loan_gives_single_elements_as_its_view_does(alice: Side, bob: Side, dtype: str) -> None:
    memory = alice.endpoint.alloc(48)
    memoryview(memory)[:] = bytes(range(200, 248))
    request = alice.endpoint.lend(memory, alice.peer)
    loan = bob.endpoint.recv_loan(dtype=dtype)
    view = memoryview(loan)
    assert len(loan) == len(view)
    for index in range(-len(view), len(view)):
        assert repr(loan[index]) == repr(view[index])
    assert bytes(loan[1:3]) == bytes(view[1:3])
    for wrong in (len(view), -len(view) - 1):
        with pytest.raises(IndexError):
            loan[wrong]
    with pytest.raises(TypeError):
        loan["0"]
    view.release()
    loan.release()
    with pytest.raises(ValueError, match="released"):
        loan[0]
    request.wait(10)
