# SPDX-License-Identifier: Apache-2.0
"""The backend killed and restarted: what flows goes on, and everybody is taken back.

::

    alice <------ numbered messages, all the time ------> bob
       \\______ backend: SIGKILL, nobody, another ______/
                               ^ carol comes after
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import diolkos
from diolkos.backend.client import NoBackend
from disasters import (
    PATIENCE_S,
    Program,
    RunningBackend,
    backend_pid,
    descriptors,
    endpoints,
    kill_and_await,
    until,
)

# Another process that gives back what it gets, numbered; each empty message is a question after
# its number of peers.
BOB = """
with diolkos.Endpoint("bob", start_backend=False) as ep:
    say("open")
    while True:
        message = ep.recv()
        ep.send(message, message.source, immediate=message.immediate)
"""
# Longest and shortest of the messages: eager, in parts, announced.
SIZES = (8, 5000, 60_000, 200_000)


class Traffic:
    """Numbered messages to a peer and back. `flow` also is what keeps looking for a backend: an
    endpoint does so whenever it is used."""

    def __init__(self, ep: diolkos.Endpoint, peer: diolkos.Peer) -> None:
        self.ep, self.peer, self.number = ep, peer, 0

    def flow(self, count: int = 1) -> None:
        """So many round trips, exact and in order."""
        for _ in range(count):
            self.number += 1
            size = SIZES[self.number % len(SIZES)]
            data = self.number.to_bytes(8, "little") * (size // 8)
            back = self.ep.irecv(size, source=self.peer)
            self.ep.send(data, self.peer, immediate=self.number, timeout=PATIENCE_S)
            assert back.wait(PATIENCE_S).immediate == self.number
            assert back.message == data

    def flow_until(self, what: str, done: object) -> None:
        """Round trips until something is so."""
        assert callable(done)

        def flown() -> bool:
            self.flow()
            return bool(done())

        until(what, flown)


@pytest.fixture
def alice(backend: RunningBackend) -> Iterator[diolkos.Endpoint]:
    """An endpoint that does not start a backend of its own."""
    with diolkos.Endpoint("alice", start_backend=False) as ep:
        yield ep


@pytest.fixture
def bob(alice: diolkos.Endpoint) -> Iterator[Program]:
    """A peer in another process."""
    with Program(BOB) as program:
        assert program.line() == "open"
        yield program


def known(runtime_dir: Path) -> dict[str, int] | None:
    """Endpoints and their channels; `None` while there is no backend."""
    try:
        return endpoints(runtime_dir)
    except (NoBackend, OSError):
        return None


@pytest.mark.slow
def test_messages_flow_while_backends_come_and_go(
    backend: RunningBackend, alice: diolkos.Endpoint, bob: Program
) -> None:
    traffic = Traffic(alice, alice.connect("bob", timeout=PATIENCE_S))
    traffic.flow(20)
    open_before = 0
    for restart in range(5):
        backend.end(signal.SIGKILL)
        assert known(backend.runtime_dir) is None
        traffic.flow(100)
        backend.start()
        traffic.flow_until(
            "taken back", lambda: known(backend.runtime_dir) == {"alice": 1, "bob": 1}
        )
        # Somebody new meets somebody old, at the one side and at the other.
        with diolkos.Endpoint("carol", start_backend=False) as carol:
            Traffic(carol, carol.connect("bob", timeout=PATIENCE_S)).flow(4)
            assert alice.connect("carol", timeout=PATIENCE_S).name == "carol"
        traffic.flow(4)
        assert alice.connect("bob", timeout=PATIENCE_S) == traffic.peer
        traffic.flow_until("carol's farewell", lambda: len(alice.peers) == 1)
        if restart == 0:
            open_before = descriptors()
    assert descriptors() == open_before
    assert traffic.peer.is_connected


def test_a_connect_that_waits_outlives_the_backend(
    backend: RunningBackend, alice: diolkos.Endpoint
) -> None:
    waiting = alice.iconnect("carol")
    assert waiting.test() is None
    backend.end(signal.SIGKILL)
    lost = alice.iconnect("dave")
    assert waiting.test() is None
    assert lost.test() is None
    backend.start()
    with (
        diolkos.Endpoint("carol", start_backend=False),
        diolkos.Endpoint("dave", start_backend=False),
    ):
        assert waiting.wait(PATIENCE_S).source.name == "carol"
        assert lost.wait(PATIENCE_S).source.name == "dave"


def test_without_a_backend_a_connect_says_so(
    backend: RunningBackend, alice: diolkos.Endpoint
) -> None:
    backend.end(signal.SIGKILL)
    with pytest.raises(diolkos.BackendError) as caught:
        alice.connect("bob", timeout=0)
    assert "diolkos backend" in (caught.value.hint or "")
    with pytest.raises(diolkos.Timeout):
        alice.connect("bob", timeout=0.01)
    with pytest.raises(diolkos.BackendError):
        diolkos.Endpoint("carol", start_backend=False)
    # That it is gone harms nothing that does not need it.
    send = alice.isend(b"hello", alice.self_peer)
    assert alice.recv(timeout=PATIENCE_S) == b"hello"
    send.wait(PATIENCE_S)


@pytest.mark.slow
def test_nobody_restarts_it_by_hand(runtime_dir: Path) -> None:
    """The first endpoint starts one; when that is killed, the next connect starts another."""
    with diolkos.Endpoint("alice") as alice, Program(BOB) as bob:
        assert bob.line() == "open"
        traffic = Traffic(alice, alice.connect("bob", timeout=PATIENCE_S))
        first = backend_pid(runtime_dir)
        kill_and_await(first, signal.SIGKILL)
        traffic.flow(50)
        assert known(runtime_dir) is None, "messages alone need no backend"
        connect = alice.iconnect("carol", timeout=PATIENCE_S)
        traffic.flow_until("another backend", lambda: known(runtime_dir) == {"alice": 1, "bob": 1})
        assert backend_pid(runtime_dir) != first
        with diolkos.Endpoint("carol") as carol:
            peer = connect.wait(PATIENCE_S).source
            alice.send(b"hello", peer)
            assert carol.recv(timeout=PATIENCE_S) == b"hello"
        traffic.flow(4)
