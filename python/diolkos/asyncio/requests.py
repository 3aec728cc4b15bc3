# SPDX-License-Identifier: Apache-2.0
"""What is under way: requests, claimed messages, multi-receives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable
from typing import TYPE_CHECKING, Any

from diolkos import _core
from diolkos._core import Delivery, Loan, Message, Peer, Status
from diolkos.asyncio.waiting import Watch, limited
from diolkos.errors import Timeout

if TYPE_CHECKING:
    from diolkos._core import _Buffer as Buffer


class Request:
    """Something under way. Await it, or its `wait`."""

    __slots__ = ("_request", "_watch")

    def __init__(self, watch: Watch, request: _core.Request) -> None:
        self._watch = watch
        self._request = request

    async def wait(self, timeout: float | None = None) -> Status:
        """Waits until the request is complete. `timeout` is in seconds; when it passes, `Timeout`
        is raised and the request goes on."""
        return await limited(self._watch.completion(self._request), timeout)

    def __await__(self) -> Generator[Any, None, Status]:
        return self.wait().__await__()

    def test(self) -> Status | None:
        """The status if the request is complete."""
        return self._request.test()

    def cancel(self) -> bool:
        """Cancels a receive that has not matched, or a connect; false when it is too late."""
        return self._request.cancel()

    @property
    def done(self) -> bool:
        """Whether the request is known to have ended. Does not look."""
        return self._request.done

    @property
    def message(self) -> Message | None:
        """What a complete `irecv` received; `None` for other requests."""
        return self._request.message

    @property
    def loan(self) -> Loan | None:
        """What a complete `irecv_loan` received; `None` for other requests."""
        return self._request.loan

    @property
    def peer(self) -> Peer | None:
        """The other side, once the request has ended: of a connect, the new peer."""
        return self._request.peer


class ClaimedMessage:
    """A message that a probe found and took; only its holder can receive it."""

    __slots__ = ("_claimed", "_watch")

    def __init__(self, watch: Watch, claimed: _core.ClaimedMessage) -> None:
        self._watch = watch
        self._claimed = claimed

    async def recv(self) -> Message:
        """Receives the message into memory of its own."""
        request = self._claimed.irecv()
        await self._watch.completion(request)
        return owned(request)

    async def recv_into(self, buffer: Buffer) -> Status:
        """Receives the message into `buffer`."""
        return await self._watch.completion(self._claimed.irecv_into(buffer))

    def discard(self) -> None:
        """Gives the message up: it is consumed unseen."""
        self._claimed.discard()

    @property
    def status(self) -> Status:
        """What is known of the message."""
        return self._claimed.status

    @property
    def source(self) -> Peer:
        """The sender."""
        return self._claimed.source

    @property
    def match(self) -> int:
        """Match info."""
        return self._claimed.match

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self._claimed.nbytes

    @property
    def immediate(self) -> int:
        """Immediate data."""
        return self._claimed.immediate


class MultiReceive:
    """One large buffer that takes many messages: `async for delivery in ...`."""

    __slots__ = ("_multi", "_next_delivery", "_watch")

    def __init__(self, watch: Watch, multi: _core.MultiReceive) -> None:
        self._watch = watch
        self._multi = multi
        #: Taken by the predicate of a task that has not woken up yet.
        self._next_delivery: Delivery | None = None

    async def next(self, timeout: float | None = None) -> Delivery | None:
        """The next message, or `None` when the buffer is the program's again."""
        return await limited(self._next(), timeout)

    async def _next(self) -> Delivery | None:
        while not self._ready():
            await self._watch.event(self._ready)
        return self.poll()

    def _ready(self) -> bool:
        if self._next_delivery is None:
            self._next_delivery = self._multi.poll()
        return self._next_delivery is not None or self._multi.released

    def poll(self) -> Delivery | None:
        """The next message if there is one."""
        if (delivery := self._next_delivery) is not None:
            self._next_delivery = None
            return delivery
        return self._multi.poll()

    def cancel(self) -> None:
        """Takes no more messages."""
        self._multi.cancel()

    @property
    def released(self) -> bool:
        """Whether the buffer is the program's again."""
        return self._multi.released

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while (delivery := await self._next()) is not None:
            yield delivery


def owned(request: _core.Request) -> Message:
    """The message of a complete receive into memory of its own."""
    message = request.message
    assert message is not None, "a receive into memory of its own leaves a message"
    return message


def borrowed(request: _core.Request) -> Loan:
    """The loan of a complete receive for one."""
    loan = request.loan
    assert loan is not None, "a receive for a loan leaves a loan"
    return loan


async def wait_any(requests: Iterable[Request], timeout: float | None = None) -> tuple[int, Status]:
    """Waits until one of the requests has ended: its place, and its status."""
    requests = list(requests)
    if not requests:
        raise ValueError("wait_any() needs at least one request")
    tasks = [asyncio.ensure_future(request.wait()) for request in requests]
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for place, task in enumerate(tasks):
            if task in done:
                return place, task.result()
        raise Timeout("none of the requests was complete in time")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
