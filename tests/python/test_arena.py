# SPDX-License-Identifier: Apache-2.0
"""Memory of the arena: what it looks like, who keeps it, and when it goes back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import diolkos
from diolkos._core import local_pair
from diolkos.testing import Side


def address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, dtype="u1").__array_interface__["data"][0])


def test_an_array_lies_in_the_memory_itself(alice: Side) -> None:
    memory = alice.endpoint.alloc((2, 3), "f8")
    array = np.asarray(memory)
    assert (array.shape, array.dtype, array.flags.writeable) == ((2, 3), np.dtype("f8"), True)
    array[1, 2] = 7.5
    assert address(array) == address(memory) == address(np.asarray(memory))
    assert memoryview(memory)[1, 2] == 7.5
    assert memory.nbytes == 48
    assert (memory.shape, memory.format, memory.itemsize) == ((2, 3), "d", 8)
    assert "48 bytes" in repr(memory)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (5, (5,)),
        (0, (0,)),
        ((), ()),
        ([2, 3], (2, 3)),
        ((3, 0, 2), (3, 0, 2)),
        (np.int64(4), (4,)),
        ((1,) * 32, (1,) * 32),
    ],
    ids=repr,
)
def test_shapes(alice: Side, shape: Any, expected: tuple[int, ...]) -> None:
    memory = alice.endpoint.alloc(shape, "i4")
    assert memory.shape == expected
    array = np.asarray(memory)
    assert array.shape == expected
    assert memory.nbytes == array.nbytes == memoryview(memory).nbytes
    assert array.flags.c_contiguous


@pytest.mark.parametrize(
    "shape", [-1, (2, -1), 1 << 62, (1 << 40, 1 << 40), 1 << 70, (-(1 << 70),)]
)
def test_shapes_that_cannot_be(alice: Side, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"shape|bytes"):
        alice.endpoint.alloc(shape, "f8")
    assert alice.endpoint.arena.used_nbytes == 0


@pytest.mark.parametrize("shape", [1.5, "12", None, (1, "2"), [[1]]], ids=repr)
def test_shapes_that_are_none(alice: Side, shape: Any) -> None:
    with pytest.raises(TypeError, match="integer"):
        alice.endpoint.alloc(shape)


def test_too_many_dimensions(alice: Side) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        alice.endpoint.alloc((1,) * 65)


@pytest.mark.parametrize(
    "dtype",
    [
        *("u1", "i2", "f4", "f8", "float64", "int32", "bool", "?", "d", "L", "complex128", "c8"),
        *(float, int, bool, complex, np.float32, np.dtype(">u4"), np.dtype("<i8"), "S5", ">f8"),
        np.dtype([("x", "f8"), ("n", "i4")]),
        [("x", "f8"), ("n", "i4")],
    ],
    ids=repr,
)
def test_types_of_elements_are_those_of_numpy(alice: Side, dtype: Any) -> None:
    memory = alice.endpoint.alloc(3, dtype)
    array = np.asarray(memory)
    assert array.dtype == np.dtype(dtype)
    assert memory.itemsize == np.dtype(dtype).itemsize
    array[...] = np.zeros(3, dtype)


@pytest.mark.parametrize(
    ("dtype", "error"),
    [
        ("O", TypeError),
        (np.dtype([("x", "O")]), TypeError),
        ("S", ValueError),
        ("M8[s]", ValueError),
        (np.dtype(("f4", 3)), ValueError),
        ("no such type", TypeError),
        (object(), TypeError),
    ],
    ids=repr,
)
def test_types_that_cannot_be_shared(alice: Side, dtype: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        alice.endpoint.alloc(3, dtype)
    assert alice.endpoint.arena.allocations == 0


def test_plain_types_need_no_numpy() -> None:
    source = """
        import sys
        from diolkos.testing import pair
        with pair() as (alice, bob):
            for dtype in ("u1", "f8", "float64", "i", int, "?"):
                alice.endpoint.alloc(4, dtype)
            assert "numpy" not in sys.modules
            sys.modules["numpy"] = None
            try:
                alice.endpoint.alloc(4, "S3")
            except TypeError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "without NumPy" in done.stdout


@pytest.mark.parametrize("align", [1, 64, 4096, 1 << 16, 2 << 20])
def test_alignment(alice: Side, align: int) -> None:
    assert address(alice.endpoint.alloc(100, align=align)) % max(align, 64) == 0


@pytest.mark.parametrize("align", [0, 3, 1 << 22])
def test_alignments_that_cannot_be(alice: Side, align: int) -> None:
    with pytest.raises(ValueError, match="align"):
        alice.endpoint.alloc(100, align=align)


def test_views_ask_for_what_they_want(alice: Side) -> None:
    from ctypes import c_char

    memory = alice.endpoint.alloc((2, 2), "u1")
    assert len((c_char * 4).from_buffer(memory)) == 4
    view = memoryview(memory)
    assert (view.contiguous, view.c_contiguous, view.readonly) == (True, True, False)
    assert view.strides == (2, 1)
    assert bytes(memory) == view.tobytes()


def test_use_after_free(alice: Side) -> None:
    memory = alice.endpoint.alloc(8)
    memory.free()
    memory.free()
    assert memory.freed
    for use in (memoryview, np.asarray, np.frombuffer, bytes):
        with pytest.raises(ValueError, match="was freed"):
            use(memory)  # type: ignore[call-overload]
    uses: list[Callable[[], object]] = [
        lambda: alice.endpoint.send(memory, alice.peer),
        lambda: alice.endpoint.recv_into(memory),
        lambda: alice.endpoint.lend(memory, alice.peer),
        lambda: alice.endpoint.register(memory),
    ]
    for each in uses:
        with pytest.raises(ValueError, match="was freed"):
            each()
    assert alice.endpoint.arena.used_nbytes == 0


def test_the_last_view_frees(alice: Side) -> None:
    with alice.endpoint.alloc(1000) as memory:
        array = np.asarray(memory)
        part = memoryview(memory)[10:20]
        array[:] = 3
    assert memory.freed
    assert alice.endpoint.arena.allocations == 1
    other = alice.endpoint.alloc(1000)
    np.asarray(other)[:] = 4
    assert set(array) == {3}
    del array
    assert alice.endpoint.arena.allocations == 2
    assert part.tolist() == [3] * 10
    part.release()
    assert alice.endpoint.arena.allocations == 1


def test_dropped_memory_goes_back_after_its_views(alice: Side) -> None:
    memory = alice.endpoint.alloc(1000)
    gone = weakref.ref(memory)
    array = np.asarray(memory)[5:7]
    del memory
    gc.collect()
    assert gone() is not None
    assert alice.endpoint.arena.allocations == 1
    del array
    gc.collect()
    assert gone() is None
    assert alice.endpoint.arena.allocations == 0


def test_memory_outlives_its_endpoint() -> None:
    (endpoint, _), _ = local_pair()
    memory = endpoint.alloc(8)
    array = np.asarray(memory)
    endpoint.close()
    with pytest.raises(diolkos.ClosedError):
        endpoint.alloc(8)
    del endpoint
    gc.collect()
    array[:] = 9
    assert bytes(memory) == b"\x09" * 8
    memory.free()
    del array


def test_freed_memory_is_used_again(alice: Side) -> None:
    memory = alice.endpoint.alloc(1 << 20)
    where = address(memory)
    memory.free()
    status = alice.endpoint.arena
    assert (status.used_nbytes, status.cached_nbytes, status.allocations) == (0, 1 << 20, 0)
    assert status == alice.endpoint.arena
    assert "cached_nbytes=1048576" in repr(status)
    assert address(alice.endpoint.alloc(1 << 20)) == where


def test_memory_that_a_peer_saw_is_only_for_that_peer(alice: Side, bob: Side) -> None:
    memory = alice.endpoint.alloc(4096, peer=alice.peer)
    where = address(memory)
    request = alice.endpoint.lend(memory, alice.peer)
    bob.endpoint.recv_loan().release()
    request.wait(10)
    memory.free()
    del request
    assert address(alice.endpoint.alloc(4096)) != where
    assert address(alice.endpoint.alloc(4096, peer=alice.peer)) == where
    with pytest.raises(ValueError, match="another endpoint"):
        alice.endpoint.alloc(1, peer=bob.peer)
    assert alice.endpoint.alloc(1, peer=alice.endpoint.self_peer).nbytes == 1


def test_a_full_arena_says_so(backend: object) -> None:
    with diolkos.Endpoint("small", arena_nbytes=1 << 20) as endpoint:
        memory = endpoint.alloc(1 << 19)
        with pytest.raises(diolkos.ArenaFullError, match="limit of 1048576") as caught:
            endpoint.alloc((1 << 19) + 1)
        assert caught.value.hint is not None
        assert "arena_nbytes" in caught.value.hint
        assert isinstance(caught.value, diolkos.LimitError)
        memory.free()
        endpoint.alloc((1 << 20) - 4096)
        assert endpoint.arena.limit_nbytes == 1 << 20


def test_a_message_between_memories(alice: Side, bob: Side) -> None:
    """Long enough to be copied straight out of the sender's memory."""
    sent = alice.endpoint.alloc(100_000, "i4")
    np.asarray(sent)[:] = np.arange(100_000)
    got = bob.endpoint.alloc(100_000, "i4")
    receive = bob.endpoint.irecv_into(got)
    request = alice.endpoint.isend(sent, alice.peer)
    sent.free()
    while receive.test() is None or request.test() is None:
        pass
    assert (np.asarray(got) == np.arange(100_000)).all()


def test_threads_allocate_and_free(alice: Side) -> None:
    def work(fill: int) -> None:
        for _ in range(200):
            array = np.asarray(alice.endpoint.alloc(3000))
            array[:] = fill
            wrong.extend(array[array != fill])

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(fill,)) for fill in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert alice.endpoint.arena.allocations == 0


def test_a_forked_child_keeps_its_memory_and_gets_no_more(alice: Side, bob: Side) -> None:
    memory = alice.endpoint.alloc(16)
    np.asarray(memory)[:] = 5
    request = alice.endpoint.lend(memory, alice.peer)
    loan = bob.endpoint.recv_loan()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            alice.endpoint.alloc(16)
        except diolkos.ForkedError:
            code = 0 if bytes(memory) == bytes(loan) == b"\x05" * 16 else 2
        memory.free()
        loan.release()
        del memory, loan, request
        gc.collect()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert request.test() is None
    loan.release()
    request.wait(10)


def test_descriptors_go_with_the_endpoint() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    (endpoint, peer), (other, _) = local_pair()
    memories = [endpoint.alloc(5000) for _ in range(20)]
    request = endpoint.lend(memories[0], peer)
    other.recv_loan().release()
    request.wait(10)
    memories[3].free()
    endpoint.close()
    other.close()
    del endpoint, other, peer, memories, request, _
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
