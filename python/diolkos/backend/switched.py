# SPDX-License-Identifier: Apache-2.0
"""The switched road: two channels that meet in this process, and a relay between them.

Each end sees an ordinary channel whose other end happens to be the backend. The relay is native
code with a thread that sleeps on its doorbells; this file only makes the memory and hands the
middle's two ends over. The channel lives as long as the relay, so not longer than the backend.
"""

from __future__ import annotations

import asyncio

from diolkos.backend import memory
from diolkos.backend.limits import RELAY_GRACE_S, RELAY_LOOK_S, RELAYS_ENDING_MAX
from diolkos.backend.memory import CONNECTER_TO_TARGET, TARGET_TO_CONNECTER, Descriptors
from diolkos.backend.registry import Middle


class NoRelay(Exception):
    """This installation has no native module, so it has no relay."""


def make(
    channel: int, processes: tuple[int | None, int | None], held: Descriptors
) -> tuple[list[int], list[int], Middle]:
    """Makes a switched channel: the connecter's end, the target's end, and the middle.

    The descriptors of the two ends belong to `held`. `processes` are those of (connecter, target).
    Raises OSError, or NoRelay.
    """
    try:
        from diolkos._core import Relay
    except ImportError as error:
        raise NoRelay(f"the native module cannot be loaded: {error}") from None
    with Descriptors() as middle, Descriptors() as handle:
        own = handle.add(memory.own_process())
        outer: list[list[int]] = []
        inner: list[list[int]] = []
        # An end's outgoing file has the direction that this end has in the whole channel.
        ways = (
            (CONNECTER_TO_TARGET, TARGET_TO_CONNECTER),
            (TARGET_TO_CONNECTER, CONNECTER_TO_TARGET),
        )
        for (out, back), process in zip(ways, processes, strict=True):
            end = held.add(memory.channel_file(channel, out))
            here = middle.add(memory.channel_file(channel, back))
            end_bell, here_bell = memory.doorbells()
            held.add(end_bell)
            middle.add(here_bell)
            outer.append(memory.channel_end(held, end, here, end_bell, own))
            inner.append(memory.channel_end(middle, here, end, here_bell, process))
        # From the call on the descriptors are the relay's, also when it raises.
        middle.release()
        relay: Middle = Relay(inner[0], inner[1])
    return outer[0], outer[1], relay


class EndingRelays:
    """Relays whose channels are given up. What the one end wrote last may still be on the way to
    the other, so each gets a moment; a crowd of them does not."""

    def __init__(self) -> None:
        self._count = 0

    def let_go(self, relay: Middle) -> None:
        """Ends a relay, soon or now."""
        if self._count >= RELAYS_ENDING_MAX:
            relay.stop()
            return
        self._count += 1
        relay.finish()
        self._look(relay, asyncio.get_running_loop().time() + RELAY_GRACE_S)

    def _look(self, relay: Middle, deadline_s: float) -> None:
        """Looks now and then whether a relay has finished, and stops it when it takes too long."""
        loop = asyncio.get_running_loop()
        if relay.is_alive() and loop.time() < deadline_s:
            loop.call_later(RELAY_LOOK_S, self._look, relay, deadline_s)
            return
        self._count -= 1
        relay.stop()
