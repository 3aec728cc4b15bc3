# SPDX-License-Identifier: Apache-2.0
"""How tasks wait on an endpoint: the predicates and the descriptor of the package's essay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from diolkos import _core
from diolkos._core import Message, Peer, Status
from diolkos.errors import ClosedError, Timeout

_T = TypeVar("_T")

#: What a receive looks for: match, mask, source, untagged.
Selector: TypeAlias = tuple[int | None, int | None, Peer | None, bool]

#: As a selector, or for a loan, which is neither tagged nor untagged.
Wanted: TypeAlias = tuple[int | None, int | None, Peer | None, bool | None]

_ALL_BITS = (1 << 64) - 1
#: When to ask first whether memory is idle, in seconds.
_REST_S = 1.0


class _Waiter:
    """A task that waits: whether to wake it, and how."""

    __slots__ = ("future", "ready", "selector")

    def __init__(
        self,
        future: asyncio.Future[None],
        ready: Callable[[], bool],
        selector: Wanted | None,
    ) -> None:
        self.future = future
        self.ready = ready
        self.selector = selector

    def wake_if_ready(self) -> bool:
        """Wakes it if it can go on, or cannot ever; says whether it is woken."""
        if not self.future.done():
            try:
                if not self.ready():
                    return False
            except Exception as error:
                self.future.set_exception(error)
            else:
                self.future.set_result(None)
        return True


class Watch:
    """The tasks that wait on one endpoint, and the event loop that watches it for them."""

    def __init__(self, core: _core.Endpoint) -> None:
        self._core = core
        self._waiters: list[_Waiter] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = core.fileno()
        self._armed = False
        #: Asks later whether memory has been idle; while somebody waits, or has lately.
        self._resting: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiters

    def must_queue(self, selector: Wanted) -> bool:
        """Whether a task that came earlier may want the same message or loan."""
        for waiter in self._waiters:
            if waiter.selector is not None and overlap(waiter.selector, selector):
                return True
        return False

    async def event(self, ready: Callable[[], bool], selector: Wanted | None = None) -> None:
        """Waits until `ready` holds and whoever came earlier has had a turn."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        # A message that answers one of ours is mostly here sooner than a trip through the loop
        # takes; how long it is worth to look for it, the endpoint learns.
        if not self._waiters and self._core.linger() and ready():
            return
        waiter = _Waiter(loop.create_future(), ready, selector)
        self._waiters.append(waiter)
        try:
            if not self._armed:
                self._arm()
            elif ready():
                # Those that came earlier first: they may want the same message.
                self.wake()
                await asyncio.sleep(0)
            await waiter.future
        finally:
            self._waiters.remove(waiter)
            if not self._waiters:
                self._disarm()

    async def completion(self, request: _core.Request) -> Status:
        """Waits until a request is complete."""
        while (status := request.test()) is None:
            await self.event(lambda: request.test() is not None)
        return status

    def wake(self) -> bool:
        """Wakes every task that can go on; true when that is all of them."""
        woken = [waiter.wake_if_ready() for waiter in self._waiters]
        return all(woken)

    def end(self) -> None:
        """The endpoint was closed, by whomever."""
        self._armed = False
        self._stop_resting()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
        self._loop = None
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(ClosedError("the endpoint is closed"))

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stop_resting()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
        self._descriptor = self._core.fileno()
        loop.add_reader(self._descriptor, self._on_readable)
        self._loop = loop

    def _on_readable(self) -> None:
        """Something may have happened."""
        self._armed = False
        try:
            self._core.disarm()
            if not self.wake():
                self._arm()
        except ClosedError:
            self.end()

    def _arm(self) -> None:
        """Says that we sleep. What came before that is looked at in the next round."""
        self._armed = True
        if self._resting is None and self._loop is not None:
            self._resting = self._loop.call_later(_REST_S, self._rest)
        came = self._core.arm()
        if not self.wake() and came and self._loop is not None:
            self._loop.call_soon(self._on_readable)

    def _rest(self) -> None:
        """Gives idle memory back, now or in a moment."""
        self._resting = None
        if self._loop is not None and not self._core.closed:
            again = self._core.rest()
            if again is not None:
                self._resting = self._loop.call_later(again, self._rest)

    def _disarm(self) -> None:
        if self._armed and not self._core.closed:
            self._core.disarm()
        self._armed = False


def overlap(one: Wanted, other: Wanted) -> bool:
    """Whether a message or a loan can fit both."""
    match, mask, source, untagged = one
    other_match, other_mask, other_source, other_untagged = other
    if match is not None and other_match is not None:
        # By far the most usual case first: two different numbers and no mask.
        if mask is None and other_mask is None:
            if match != other_match:
                return False
        elif (match ^ other_match) & _bits(mask) & _bits(other_mask):
            return False
    if untagged != other_untagged:
        return False
    return source is None or other_source is None or source == other_source


def fits(selector: Selector, message: Message) -> bool:
    """Whether a message is what is looked for."""
    match, mask, source, untagged = selector
    if match is not None and (match ^ message.match) & _bits(mask):
        return False
    if source is not None and source != message.source:
        return False
    return message.status.untagged == untagged


def _bits(mask: int | None) -> int:
    return _ALL_BITS if mask is None else mask


async def limited(work: Awaitable[_T], timeout: float | None) -> _T:
    """Awaits with a time limit in seconds."""
    if timeout is None:
        return await work
    try:
        async with asyncio.timeout(timeout):
            return await work
    except Timeout:
        raise
    except TimeoutError:
        raise Timeout(f"nothing came within {timeout:g} s") from None
