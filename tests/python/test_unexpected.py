# SPDX-License-Identifier: Apache-2.0
"""The unexpected handler."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

import diolkos
from diolkos._core import local_pair
from diolkos.testing import Side, pair


def test_it_sees_every_message_without_a_receive(alice: Side, bob: Side) -> None:
    seen: list[tuple[int, bytes | None]] = []
    bob.endpoint.on_unexpected(lambda status, data: seen.append((status.match, data)))
    receive = bob.endpoint.irecv(5, match=1)
    alice.endpoint.send(b"one", alice.peer, match=1)
    alice.endpoint.send(b"two", alice.peer, match=2)
    send = alice.endpoint.isend(bytes(100_000), alice.peer, match=3)
    assert receive.wait(timeout=10).nbytes == 3
    while len(seen) < 2:
        bob.endpoint.progress()
    # What is not all here yet has no data.
    assert seen == [(2, b"two"), (3, None)]
    # A handler that says nothing leaves the messages to receives.
    assert bob.endpoint.recv(match=2) == b"two"
    receive = bob.endpoint.irecv(100_000, match=3)
    while receive.test() is None:
        alice.endpoint.progress()
    send.wait(timeout=10)


def test_a_true_answer_consumes_the_message(alice: Side, bob: Side) -> None:
    bob.endpoint.on_unexpected(lambda status, data: data == b"junk")
    alice.endpoint.send(b"junk", alice.peer)
    alice.endpoint.send(b"good", alice.peer)
    assert bob.endpoint.recv() == b"good"
    assert bob.endpoint.iprobe() is None


def test_it_may_post_the_receive(alice: Side, bob: Side) -> None:
    posted: list[diolkos.Request] = []

    def post(status: diolkos.Status, data: bytes | None) -> None:
        posted.append(bob.endpoint.irecv(status.message_nbytes, match=status.match))

    bob.endpoint.on_unexpected(post)
    alice.endpoint.send(b"hello", alice.peer, match=6)
    while not posted:
        bob.endpoint.progress()
    assert posted[0].wait(timeout=10).nbytes == 5
    assert posted[0].message == b"hello"


def test_it_may_answer(alice: Side, bob: Side) -> None:
    def answer(status: diolkos.Status, data: bytes | None) -> bool:
        bob.endpoint.send(b"echo " + (data or b""), status.source)
        return True

    bob.endpoint.on_unexpected(answer)
    alice.endpoint.send(b"hello", alice.peer)
    bob.endpoint.progress()
    assert alice.endpoint.recv() == b"echo hello"


def test_it_may_be_replaced_from_within_and_taken_away(alice: Side, bob: Side) -> None:
    seen: list[str] = []

    def first(status: diolkos.Status, data: bytes | None) -> bool:
        seen.append("first")
        bob.endpoint.on_unexpected(second)
        return True

    def second(status: diolkos.Status, data: bytes | None) -> bool:
        seen.append("second")
        bob.endpoint.on_unexpected(None)
        return True

    bob.endpoint.on_unexpected(first)
    for word in (b"a", b"b", b"c"):
        alice.endpoint.send(word, alice.peer)
    assert bob.endpoint.recv(timeout=10) == b"c"
    assert seen == ["first", "second"]


def test_its_exceptions_are_reported_and_keep_the_message(
    alice: Side, bob: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reported.append(what.exc_value))

    def fail(status: diolkos.Status, data: bytes | None) -> bool:
        raise LookupError("not today")

    bob.endpoint.on_unexpected(fail)
    alice.endpoint.send(b"hello", alice.peer)
    assert bob.endpoint.recv(timeout=10) == b"hello"
    assert [str(error) for error in reported] == ["not today"]


def test_it_may_close_the_endpoint(alice: Side, bob: Side) -> None:
    bob.endpoint.on_unexpected(lambda status, data: bob.endpoint.close())
    alice.endpoint.send(b"hello", alice.peer)
    with pytest.raises(diolkos.ClosedError):
        bob.endpoint.recv(timeout=10)


def test_messages_to_oneself_are_offered_as_well(alice: Side) -> None:
    seen: list[bytes | None] = []
    alice.endpoint.on_unexpected(lambda status, data: seen.append(data) or True)
    send = alice.endpoint.isend(b"note", alice.endpoint.self_peer)
    assert send.wait(timeout=10).truncated
    assert seen == [b"note"]


class Handler:
    """A handler that knows its endpoint, which knows its handler."""

    def __init__(self, endpoint: diolkos.Endpoint) -> None:
        self.endpoint = endpoint

    def __call__(self, status: diolkos.Status, data: bytes | None) -> None: ...


def test_a_handler_that_knows_its_endpoint_is_collected() -> None:
    with pair() as (_, bob):
        handler = Handler(bob.endpoint)
        bob.endpoint.on_unexpected(handler)
        gone = weakref.ref(handler)
    del handler, _, bob
    gc.collect()
    assert gone() is None


def test_an_open_endpoint_in_a_cycle_with_its_handler_is_collected() -> None:
    (_, _), (endpoint, _) = local_pair()
    endpoint.on_unexpected(Handler(endpoint))
    gone = weakref.ref(endpoint)
    del endpoint
    gc.collect()
    assert gone() is None
