# SPDX-License-Identifier: Apache-2.0
"""Peers killed with SIGKILL at every stage of a message, a thousand times over.

::

    third <--- numbered messages, one always under way ---> survivor <--- a stage ---> victim
                                                                                        SIGKILL

A victim goes to its stage (`victims.py`) and stays there, so that the stage is certain; the busy
ones are killed wherever they are. The survivor finds out while it sleeps, polls, or waits in an
event loop. Its requests to the victim must end with `PeerDied`, what had left before must still
arrive, and of a thousand victims nothing may be left anywhere. How long it took is printed, and
not judged: this machine may be busy.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import diolkos
import diolkos.asyncio
from disasters import (
    PATIENCE_S,
    RunningBackend,
    descriptors,
    endpoints,
    mappings,
    shared_memory,
    until,
)
from victims import ANNOUNCED, EAGER, ECHO, FILLER, LONG, MESSAGE, STAGES, TEXT, Nursery

KILLS = 1008
# Rounds until caches, pools and the like have their final size.
WARM_UP = 48
# Nobody sends this: a receive that only the peer's death ends.
NEVER = 9

# Of the endpoint itself, or of its asyncio face where they are awaited.
Requests = list[Any]


class Third:
    """The endpoint that must not notice: one message is under way to it and back all the time."""

    def __init__(self, ep: diolkos.Endpoint, nursery: Nursery, dice: random.Random) -> None:
        nursery.fork("third", "echo")
        nursery.expect("ready")
        self._ep, self._dice, self._number = ep, dice, 0
        self._peer = ep.connect("third", timeout=PATIENCE_S)

    def start(self) -> None:
        """The next message leaves."""
        self._number += 1
        size = self._dice.choice((0, 8, 4096, EAGER, ANNOUNCED))
        start = self._dice.randrange(LONG - size)
        self._sent = TEXT[start : start + size]
        self._back = self._ep.irecv(ANNOUNCED, match=ECHO, source=self._peer)
        self._send = self._ep.isend(self._sent, self._peer, match=ECHO, immediate=self._number)

    def finish(self) -> None:
        """It is back, to the byte."""
        self._send.wait(PATIENCE_S)
        status = self._back.wait(PATIENCE_S)
        assert status.immediate == self._number
        assert self._back.message == self._sent


class Survivor:
    """The endpoint that lives, and what it does with a victim at each stage."""

    def __init__(self, nursery: Nursery, dice: random.Random) -> None:
        self.ep = diolkos.Endpoint("survivor", start_backend=False)
        #: The calls that make the victim's requests: the endpoint's, or its asyncio face's.
        self.face: Any = self.ep
        self.nursery, self.dice = nursery, dice
        self.room = bytearray(LONG)
        # Of the victim.
        self.pid = 0
        self.third = Third(self.ep, nursery, dice)

    def meet(self, name: str, stage: str) -> tuple[diolkos.Peer, Requests]:
        """Brings the victim to its stage; returns the requests that its death must end."""
        if stage in ("streaming", "receiving", "busy"):
            peer = self.ep.connect(name, timeout=PATIENCE_S)
            requests: Requests = getattr(self, stage)(peer)
        else:
            # Not a look at the endpoint before the victim is there: its ring stays as it is.
            self.nursery.expect("ready")
            peer = self.ep.connect(name, timeout=PATIENCE_S)
            requests = getattr(self, stage)(peer)
        requests.append(self.face.irecv_into(bytearray(8), match=NEVER, source=peer))
        return peer, requests

    def before(self, peer: diolkos.Peer) -> Requests:
        """A receive waits for a message that was not sent."""
        return [self.face.irecv_into(self.room, match=MESSAGE, source=peer)]

    def between(self, peer: diolkos.Peer) -> Requests:
        """A part of an eager message comes, before or after its receive."""
        early = self.dice.random() < 0.5
        if early:
            request = self.face.irecv_into(self.room, match=MESSAGE, source=peer)
        until("the first part", lambda: self.ep.iprobe(match=FILLER, source=peer) is not None)
        for _ in range(64):
            self.ep.progress()
        if not early:
            request = self.face.irecv_into(self.room, match=MESSAGE, source=peer)
        return [request]

    def sent(self, peer: diolkos.Peer) -> Requests:
        """A whole message is in the ring; taken in or not."""
        if self.dice.random() < 0.5:
            self.ep.probe(match=MESSAGE, source=peer, timeout=PATIENCE_S)
        return []

    def announced(self, peer: diolkos.Peer) -> Requests:
        """A message was announced, and perhaps asked for; its data will never come."""
        if self.dice.random() < 0.5:
            return []
        return [self.face.irecv_into(self.room, match=MESSAGE, source=peer)]

    def streaming(self, peer: diolkos.Peer) -> Requests:
        """The first bytes of a long message have come."""
        self.nursery.expect("started")
        self.room[0] = TEXT[0] ^ 0xFF
        request = self.face.irecv_into(self.room, match=MESSAGE, source=peer)

        def has_begun() -> bool:
            assert request.test() is None
            return self.room[0] == TEXT[0]

        until("the first bytes", has_begun)
        os.kill(self.pid, signal.SIGUSR1)
        self.nursery.expect("ready")
        return [request]

    def receiving(self, peer: diolkos.Peer) -> Requests:
        """The victim has the first bytes of a long message."""
        request = self.face.isend(TEXT, peer, match=MESSAGE)

        def has_begun() -> bool:
            assert request.test() is None
            return self.nursery.has_line()

        until("the first bytes", has_begun)
        self.nursery.expect("ready")
        return [request]

    def deaf(self, peer: diolkos.Peer) -> Requests:
        """Sends of all kinds that nobody takes in: announced, and out of credit."""
        requests = [self.face.issend(TEXT[:ANNOUNCED], peer, match=MESSAGE)]
        requests += [self.face.isend(TEXT[:EAGER], peer, match=MESSAGE) for _ in range(20)]
        # These have left already, which is all that an eager send promises.
        return [request for request in requests if request.test() is None]

    def busy(self, peer: diolkos.Peer) -> Requests:
        """Messages of all kinds go both ways."""
        self.nursery.expect("ready")
        for _ in range(self.dice.randrange(20)):
            send = self.ep.isend(TEXT[: self.dice.choice((8, EAGER, 1 << 20))], peer, match=MESSAGE)
            self.take(peer)
            send.wait(PATIENCE_S)
        return []

    def take(self, peer: diolkos.Peer) -> None:
        """Receives a message of the victim, exactly."""
        status = self.ep.recv_into(self.room, match=MESSAGE, source=peer, timeout=PATIENCE_S)
        assert memoryview(self.room)[: status.nbytes] == memoryview(TEXT)[: status.nbytes]

    def bury(self, peer: diolkos.Peer, stage: str) -> None:
        """What had left arrives, and nothing else; then the peer is known to be dead."""
        if stage == "sent":
            self.take(peer)
        while stage == "busy" and self.ep.iprobe(match=MESSAGE) is not None:
            self.take(peer)
        fillers = 0
        while (filler := self.ep.improbe(match=FILLER)) is not None:
            filler.discard()
            fillers += 1
        assert (fillers > 0) == (stage == "between")
        for call in (
            lambda: self.ep.recv_into(self.room, match=MESSAGE, source=peer),
            lambda: self.ep.send(b"", peer),
        ):
            with pytest.raises(diolkos.PeerDied):
                call()
        counters = self.ep.counters
        assert {counters[key] for key in ("unexpected", "posted", "requests")} == {0}


def is_over(request: Any) -> bool:
    """Whether it has ended with the peer's death, and never otherwise."""
    try:
        assert request.test() is None, "a request to a dead peer ended well"
    except diolkos.PeerDied:
        return True
    return False


def polling(survivor: Survivor, requests: Requests, kill: Callable[[], None]) -> None:
    """The survivor only tests."""
    kill()
    left = list(requests)

    def all_over() -> bool:
        left[:] = [request for request in left if not is_over(request)]
        return not left

    until("the death of a peer", all_over)


def sleeping(survivor: Survivor, requests: Requests, kill: Callable[[], None]) -> None:
    """The survivor sleeps; another thread sees that it does, and kills."""
    slept = survivor.ep.counters["sleeps"]

    def kill_when_asleep() -> None:
        until("sleep", lambda: survivor.ep.counters["sleeps"] > slept)
        kill()

    killer = threading.Thread(target=kill_when_asleep)
    killer.start()
    try:
        # The last one waits for nothing but the death.
        for request in reversed(requests):
            with pytest.raises(diolkos.PeerDied):
                request.wait(PATIENCE_S)
    finally:
        killer.join()


def in_asyncio(survivor: Survivor, requests: Requests, kill: Callable[[], None]) -> None:
    """The survivor awaits."""

    async def main() -> None:
        waits = [asyncio.create_task(request.wait(PATIENCE_S)) for request in requests]
        # Each of them has looked, and waits, by the time that this runs.
        asyncio.get_running_loop().call_soon(kill)
        for result in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(result, diolkos.PeerDied), result

    asyncio.run(main())


MANNERS = (polling, sleeping, in_asyncio)


def one_round(survivor: Survivor, number: int, stage: str, manner: Callable[..., None]) -> float:
    """One life and death; returns the seconds from the signal to the end of all requests."""
    name = f"victim-{number}"
    survivor.pid = survivor.nursery.fork(name, stage, survivor.dice.getrandbits(32))
    killed = 0.0

    def kill() -> None:
        nonlocal killed
        killed = time.perf_counter()
        os.kill(survivor.pid, signal.SIGKILL)

    in_loop = manner is in_asyncio
    survivor.face = diolkos.asyncio.Endpoint.of(survivor.ep) if in_loop else survivor.ep
    peer, requests = survivor.meet(name, stage)
    survivor.third.start()
    manner(survivor, requests, kill)
    seconds = time.perf_counter() - killed
    survivor.third.finish()
    survivor.bury(peer, stage)
    survivor.nursery.reap(alive=1)
    return seconds


def left_behind(survivor: Survivor, backend: RunningBackend, most: int) -> dict[str, object]:
    """Everything that a victim could have left, once the backend has heard of the last one."""
    known = {"survivor": 1, "third": 1}
    # Endpoints of tests before this one, closed but still referred to by a cycle, hold descriptors.
    gc.collect()
    until("the backend's farewell", lambda: endpoints(backend.runtime_dir) == known)
    # It also closes the connections of those who asked, this test among them.
    until("the backend letting go", lambda: descriptors(backend.pid) <= most)
    return {
        "survivor's descriptors": descriptors(),
        "survivor's granted memory": mappings()[1],
        "backend's granted memory": mappings(backend.pid)[1],
        "runtime directory": sorted(os.listdir(backend.runtime_dir)),
        "shared memory": shared_memory(),
        "peers": [peer.name for peer in survivor.ep.peers],
    }


@pytest.mark.slow
def test_a_thousand_peers_killed_at_every_stage(
    backend: RunningBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("DIOLKOS_KILL_SEED") or random.getrandbits(32))
    dice = random.Random(seed)
    figures: dict[str, list[float]] = {manner.__name__: [] for manner in MANNERS}
    cases = list(itertools.product(STAGES, MANNERS))
    # A leak of one descriptor a kill would be a thousand.
    idle = descriptors(backend.pid) + 16
    before: dict[str, object] = {}
    with Nursery() as nursery:
        survivor = Survivor(nursery, dice)
        with survivor.ep:
            for number in range(KILLS):
                if number % len(cases) == 0:
                    dice.shuffle(cases)
                if number == WARM_UP:
                    before, mapped = left_behind(survivor, backend, idle), mappings()[0]
                stage, manner = cases[number % len(cases)]
                try:
                    figures[manner.__name__].append(one_round(survivor, number, stage, manner))
                except BaseException as error:
                    case = f"round {number}, {stage}, {manner.__name__}"
                    error.add_note(f"{case}; again with DIOLKOS_KILL_SEED={seed}")
                    raise
            assert left_behind(survivor, backend, idle) == before
            # The C library's arenas and threads' stacks come and go; victims would be many more.
            assert mappings()[0] - mapped < (KILLS - WARM_UP) / 10
    with capsys.disabled():
        print(f"\nfrom SIGKILL to the end of all requests (seed {seed}):")
        for how, seconds in figures.items():
            ms = sorted(1000 * each for each in seconds)
            p50, p99 = ms[len(ms) // 2], ms[len(ms) * 99 // 100]
            print(f"  {how:10} p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {ms[-1]:.2f} ms")
