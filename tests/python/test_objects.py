# SPDX-License-Identifier: Apache-2.0
"""Objects: what crosses, what is sent from where it lies, and what is refused."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diolkos
from diolkos import objects
from diolkos.testing import Side, pair
from programs import PATIENCE_S


def exchange(alice: Side, bob: Side, obj: object, **options: Any) -> Any:
    """Sends an object from alice to bob; large ones need both at the same time."""
    send = threading.Thread(
        target=alice.endpoint.send_object, args=(obj, alice.peer), kwargs={"match": 7}
    )
    send.start()
    try:
        return bob.endpoint.recv_object(match=7, timeout=PATIENCE_S, **options)
    finally:
        send.join(PATIENCE_S)


@dataclass
class Record:
    name: str
    values: list[float]


@pytest.mark.parametrize(
    "obj",
    [None, 7, "text", {"a": [1, 2.5, None]}, Record("x", [1.0, 2.0]), b"x" * 200_000, {1, 2}],
    ids=["none", "int", "str", "dict", "record", "bytes", "set"],
)
def test_objects_cross(alice: Side, bob: Side, obj: object) -> None:
    got = exchange(alice, bob, obj)
    assert got == obj
    assert type(got) is type(obj)


def test_arrays_are_sent_from_where_they_lie(alice: Side, bob: Side) -> None:
    arrays = {"large": np.arange(100_000.0), "small": np.arange(3), "empty": np.zeros(0)}
    got = exchange(alice, bob, arrays)
    for name, array in arrays.items():
        assert (got[name] == array).all()
    got["large"][0] = 1  # received memory belongs to the program and is writable
    # The head, and one message for the one large array.
    assert alice.endpoint.counters["tx_messages"] == 2


def test_arrays_in_any_order(alice: Side, bob: Side) -> None:
    array = np.arange(60_000.0).reshape(200, 300)
    for sent in (np.asfortranarray(array), array[::2, ::3], array.T):
        assert (exchange(alice, bob, sent) == sent).all()


def test_many_large_arrays(alice: Side, bob: Side) -> None:
    arrays = [np.full(50_000, i, dtype=np.uint8) for i in range(50)]
    got = exchange(alice, bob, arrays)
    assert all((one == other).all() for one, other in zip(got, arrays, strict=True))


def test_threads_exchange_objects_at_the_same_time(alice: Side, bob: Side) -> None:
    wrong: list[int] = []

    def send(i: int) -> None:
        for _ in range(5):
            alice.endpoint.send_object(np.full(40_000, i), alice.peer, match=1)

    def receive() -> None:
        for _ in range(5):
            array = bob.endpoint.recv_object(match=1, timeout=PATIENCE_S)
            if not (array == array[0]).all():
                wrong.append(array[0])

    threads = [threading.Thread(target=send, args=(i,)) for i in range(4)]
    threads += [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert wrong == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    )
)
def test_any_plain_object_crosses(obj: object) -> None:
    with pair() as (alice, bob):
        alice.endpoint.send_object(obj, alice.peer)
        assert bob.endpoint.recv_object() == obj


@given(st.binary(max_size=200))
def test_bytes_that_are_no_object_are_refused(junk: bytes) -> None:
    with pair() as (alice, bob):
        alice.endpoint.send(junk, alice.peer)
        with pytest.raises(diolkos.NotAnObject):
            bob.endpoint.recv_object()


@pytest.mark.parametrize("count", [1, objects.PARTS_MAX + 1, 0xFFFF_FFFF])
def test_heads_that_lie_are_refused(alice: Side, bob: Side, count: int) -> None:
    head = objects._HEAD.pack(b"DIOLKOBJ", 1, count)
    alice.endpoint.send(head, alice.peer)
    with pytest.raises(ValueError):
        bob.endpoint.recv_object()


def test_a_part_that_is_announced_as_enormous_is_refused(alice: Side, bob: Side) -> None:
    head = objects._HEAD.pack(b"DIOLKOBJ", 1, 1) + objects._LENGTH.pack(1 << 60)
    alice.endpoint.send(head + pickle.dumps(None), alice.peer)
    with pytest.raises(diolkos.NotAnObject, match="limit"):
        bob.endpoint.recv_object()


def test_objects_beyond_the_limit_are_refused(alice: Side, bob: Side) -> None:
    array = np.zeros(100_000)
    with pytest.raises(diolkos.NotAnObject, match="limit") as caught:
        exchange(alice, bob, array, max_nbytes=1000)
    assert "max_nbytes" in (caught.value.hint or "")
    # Nothing of it is left, and the next object crosses.
    assert bob.endpoint.iprobe(untagged=True) is None
    assert exchange(alice, bob, "next") == "next"


def test_what_cannot_be_pickled_is_not_sent(alice: Side, bob: Side) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        alice.endpoint.send_object(lambda: None, alice.peer)
    assert bob.endpoint.iprobe() is None


def test_objects_time_out(alice: Side, bob: Side) -> None:
    with pytest.raises(diolkos.Timeout):
        bob.endpoint.recv_object(timeout=0.001)
    with pytest.raises(diolkos.Timeout):
        alice.endpoint.send_object(np.zeros(100_000), alice.peer, timeout=0.001)
