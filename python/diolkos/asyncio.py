# SPDX-License-Identifier: Apache-2.0
"""Endpoints for programs with an event loop: the names of `diolkos`, with `await`.

    async with diolkos.asyncio.Endpoint("alice") as ep:
        bob = await ep.connect("bob", timeout=5)
        await ep.send(array, bob, match=7)
        n = (await ep.recv_into(array, match=7)).nbytes

How it waits
------------
A call first does its work at once: when the message is here already, `await` costs no trip through
the event loop. Otherwise the call becomes a *waiter*: a predicate that says whether to try again,
and a future. While there are waiters the endpoint is *armed*: its descriptor, watched by the loop,
becomes readable when something happens. Each time it does, the endpoint is disarmed, every waiter
whose predicate holds is woken, and the endpoint is armed again for the others::

    try --- nothing ---> waiter --- descriptor readable, predicate holds ---> try
     |
     +--- here ---> return

Predicates only look. The message is taken by the awaiting task itself, in the step in which it
returns, so cancelling a task never loses a message, and messages go to tasks in the order in which
the tasks came.

One case remains: a long message whose transfer has begun. Then a cancellation is held back until the
transfer ends (it ends with an error if the peer dies); what arrived is kept, and the next receive
that matches gets it. A second cancellation gives the message up.

An endpoint belongs to one event loop at a time. Other threads may use `Endpoint.blocking` meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from diolkos import _core
from diolkos._core import Delivery, Message, Peer, Status
from diolkos.errors import ClosedError, Timeout

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ClaimedMessage", "Endpoint", "MultiReceive", "Request", "wait_any"]

_Selector: TypeAlias = tuple[int | None, int | None, Peer | None, bool]

_T = TypeVar("_T")

_ALL_BITS = (1 << 64) - 1


class Request:
    """Something under way. Await it, or its `wait`."""

    __slots__ = ("_endpoint", "_request")

    def __init__(self, endpoint: Endpoint, request: _core.Request) -> None:
        self._endpoint = endpoint
        self._request = request

    async def wait(self, timeout: float | None = None) -> Status:
        """Waits until the request is complete. `timeout` is in seconds; when it passes, `Timeout`
        is raised and the request goes on."""
        return await _limited(self._endpoint._completion(self._request), timeout)

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
    def peer(self) -> Peer | None:
        """The other side, once the request has ended: of a connect, the new peer."""
        return self._request.peer


class ClaimedMessage:
    """A message that a probe found and took; only its holder can receive it."""

    __slots__ = ("_claimed", "_endpoint")

    def __init__(self, endpoint: Endpoint, claimed: _core.ClaimedMessage) -> None:
        self._endpoint = endpoint
        self._claimed = claimed

    async def recv(self) -> Message:
        """Receives the message into memory of its own."""
        request = self._claimed.irecv()
        await self._endpoint._completion(request)
        return _owned(request)

    async def recv_into(self, buffer: Buffer) -> Status:
        """Receives the message into `buffer`."""
        return await self._endpoint._completion(self._claimed.irecv_into(buffer))

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

    __slots__ = ("_endpoint", "_multi", "_next_delivery")

    def __init__(self, endpoint: Endpoint, multi: _core.MultiReceive) -> None:
        self._endpoint = endpoint
        self._multi = multi
        #: Taken by the predicate of a task that has not woken up yet.
        self._next_delivery: Delivery | None = None

    async def next(self, timeout: float | None = None) -> Delivery | None:
        """The next message, or `None` when the buffer is the program's again."""
        return await _limited(self._next(), timeout)

    async def _next(self) -> Delivery | None:
        while not self._ready():
            await self._endpoint._event(self._ready)
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


class _Waiter:
    """A task that waits: whether to wake it, and how."""

    __slots__ = ("future", "ready", "selector")

    def __init__(
        self,
        future: asyncio.Future[None],
        ready: Callable[[], bool],
        selector: _Selector | None,
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


class Endpoint:
    """A port on which messages are sent, received and matched, for one event loop.

    Takes the arguments of `diolkos.Endpoint`. Opening asks the backend, which takes a millisecond,
    or some tenths of a second when the backend has to be started: `await Endpoint.open(...)` does
    it without holding up the event loop.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        number: int | None = None,
        partition: str | None = None,
        context_ids: tuple[int, int] | None = None,
        runtime_dir: str | os.PathLike[str] | None = None,
        start_backend: bool = True,
    ) -> None:
        self._adopt(
            _core.Endpoint(
                name,
                number=number,
                partition=partition,
                context_ids=context_ids,
                runtime_dir=runtime_dir,
                start_backend=start_backend,
            )
        )

    @classmethod
    async def open(cls, name: str | None = None, **options: Any) -> Self:
        """As the constructor, without holding up the event loop."""
        return cls.of(await asyncio.to_thread(_core.Endpoint, name, **options))

    @classmethod
    def of(cls, blocking: _core.Endpoint) -> Self:
        """The asyncio face of an endpoint that is open already."""
        endpoint = cls.__new__(cls)
        endpoint._adopt(blocking)
        return endpoint

    def _adopt(self, blocking: _core.Endpoint) -> None:
        self._core = blocking
        self._waiters: list[_Waiter] = []
        #: What cancelled receives left, oldest first.
        self._kept: list[Message] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._armed = False

    # --- what it is ---------------------------------------------------------------------------

    @property
    def blocking(self) -> _core.Endpoint:
        """The same endpoint with blocking calls."""
        return self._core

    @property
    def name(self) -> str:
        """Its name."""
        return self._core.name

    @property
    def number(self) -> int:
        """Its number."""
        return self._core.number

    @property
    def partition(self) -> str:
        """Its partition."""
        return self._core.partition

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._core.closed

    @property
    def self_peer(self) -> Peer:
        """Itself, to send to."""
        return self._core.self_peer

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The peers that are connected now."""
        return self._core.peers

    @property
    def counters(self) -> dict[str, int]:
        """What crossed so far, and what is here now."""
        return self._core.counters

    def fileno(self) -> int:
        """The descriptor that the event loop watches."""
        return self._core.fileno()

    def __repr__(self) -> str:
        return repr(self._core).replace("diolkos.Endpoint", "diolkos.asyncio.Endpoint", 1)

    # --- its life -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the endpoint. Whoever waits gets `ClosedError`."""
        self._core.close()
        self._end_waiting()
        self._kept.clear()

    async def connect(
        self, target: str | int, *, timeout: float | None = None, road: str = "auto"
    ) -> Peer:
        """Connects to an endpoint by name or number and waits until it exists."""
        request = self._core.iconnect(target, timeout=timeout, road=road)
        try:
            return (await self._completion(request)).source
        except asyncio.CancelledError:
            request.cancel()
            raise

    def iconnect(
        self, target: str | int, *, timeout: float | None = None, road: str = "auto"
    ) -> Request:
        """Starts to connect; the request's `peer` is the result."""
        return Request(self, self._core.iconnect(target, timeout=timeout, road=road))

    def disconnect(self, peer: Peer) -> None:
        """Parts from a peer."""
        self._core.disconnect(peer)

    # --- sending ------------------------------------------------------------------------------

    async def send(
        self,
        buffer: Buffer,
        dest: Peer,
        *,
        match: int = 0,
        immediate: int = 0,
        synchronous: bool = False,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Sends a message and waits until the buffer is free again."""
        request = self._core.try_send(buffer, dest, match, immediate, synchronous, untagged)
        if request is not None:
            await _limited(self._completion(request), timeout)

    def isend(
        self,
        buffer: Buffer,
        dest: Peer,
        *,
        match: int = 0,
        immediate: int = 0,
        synchronous: bool = False,
        untagged: bool = False,
    ) -> Request:
        """Starts to send a message."""
        request = self._core.isend(
            buffer,
            dest,
            match=match,
            immediate=immediate,
            synchronous=synchronous,
            untagged=untagged,
        )
        return Request(self, request)

    def issend(
        self,
        buffer: Buffer,
        dest: Peer,
        *,
        match: int = 0,
        immediate: int = 0,
        untagged: bool = False,
    ) -> Request:
        """Starts to send a message; complete once a receive has matched it."""
        request = self._core.issend(
            buffer, dest, match=match, immediate=immediate, untagged=untagged
        )
        return Request(self, request)

    async def send_object(
        self, obj: object, dest: Peer, *, match: int = 0, timeout: float | None = None
    ) -> None:
        """Pickles an object and sends it; see `diolkos.objects`."""
        from diolkos import objects

        requests = objects.start_send(self._core, obj, dest, match)
        await _limited(self._all(requests), timeout)

    # --- receiving ----------------------------------------------------------------------------

    async def recv_into(
        self,
        buffer: Buffer,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> Status:
        """Receives a message into a buffer."""
        if not self._waiters and not self._kept:
            got = self._core.try_recv_into(buffer, match, mask, source, untagged)
            if type(got) is Status:
                return got
            if got is not None:
                return await _limited(self._transfer(got, buffer), timeout)
        selector = (match, mask, source, untagged)
        return await _limited(self._recv_into(buffer, selector), timeout)

    async def recv(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> Message:
        """Receives a message into memory of its own size."""
        if not self._waiters and not self._kept:
            got = self._core.try_recv(match, mask, source, untagged)
            if type(got) is Message:
                return got
            if got is not None:
                return await _limited(self._transfer_owned(got), timeout)
        return await _limited(self._recv((match, mask, source, untagged)), timeout)

    async def recv_object(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        max_nbytes: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Receives a pickled object. Only from peers that you would let run code here; see
        `diolkos.objects`."""
        from diolkos import objects

        async def receive() -> Any:
            header = await self._recv((match, mask, source, False))
            parts = objects.start_recv(self._core, header, max_nbytes)
            await self._all(parts.requests)
            return parts.load()

        return await _limited(receive(), timeout)

    def irecv_into(
        self,
        buffer: Buffer,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> Request:
        """Posts a receive into a buffer."""
        request = self._core.irecv_into(
            buffer, match=match, mask=mask, source=source, untagged=untagged
        )
        return Request(self, request)

    def irecv(
        self,
        max_nbytes: int,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> Request:
        """Posts a receive into memory of its own."""
        request = self._core.irecv(
            max_nbytes, match=match, mask=mask, source=source, untagged=untagged
        )
        return Request(self, request)

    def multi_recv(
        self,
        buffer: Buffer,
        *,
        min_free: int = 1,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> MultiReceive:
        """Posts one buffer for many messages."""
        multi = self._core.multi_recv(
            buffer, min_free=min_free, match=match, mask=mask, source=source, untagged=untagged
        )
        return MultiReceive(self, multi)

    async def probe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> Status:
        """Waits for a message and leaves it."""

        async def probe() -> Status:
            selector = (match, mask, source, untagged)
            while True:
                if (status := self._look(selector)) is not None:
                    return status
                await self._message_event(selector)

        return await _limited(probe(), timeout)

    def iprobe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> Status | None:
        """Looks for a message and leaves it."""
        return self._look((match, mask, source, untagged))

    async def mprobe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> ClaimedMessage:
        """Waits for a message and claims it."""

        async def claim() -> ClaimedMessage:
            selector = (match, mask, source, untagged)
            while True:
                claimed = self._core.improbe(
                    match=match, mask=mask, source=source, untagged=untagged
                )
                if claimed is not None:
                    return ClaimedMessage(self, claimed)
                await self._message_event(selector)

        return await _limited(claim(), timeout)

    def improbe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> ClaimedMessage | None:
        """Looks for a message and claims it."""
        claimed = self._core.improbe(match=match, mask=mask, source=source, untagged=untagged)
        return None if claimed is None else ClaimedMessage(self, claimed)

    def cancel(self, request: Request) -> bool:
        """Cancels a receive that has not matched, or a connect; false when it is too late."""
        return self._core.cancel(request._request)

    def on_unexpected(self, handler: Callable[[Status, bytes | None], object] | None) -> None:
        """Offers messages without a receive to a function, or to none."""
        self._core.on_unexpected(handler)

    def progress(self) -> None:
        """Makes progress without waiting."""
        self._core.progress()

    # --- how it waits -------------------------------------------------------------------------

    async def _recv_into(self, buffer: Buffer, selector: _Selector) -> Status:
        if self._kept and (message := self._take_kept(selector)) is not None:
            return message.copy_into(buffer)
        waited = False
        while True:
            if waited or not self._must_queue(selector):
                got = self._core.try_recv_into(buffer, *selector)
                if isinstance(got, Status):
                    return got
                if got is not None:
                    return await self._transfer(got, buffer)
            await self._message_event(selector)
            waited = True

    async def _recv(self, selector: _Selector) -> Message:
        if self._kept and (message := self._take_kept(selector)) is not None:
            return message
        waited = False
        while True:
            if waited or not self._must_queue(selector):
                got = self._core.try_recv(*selector)
                if isinstance(got, Message):
                    return got
                if got is not None:
                    return await self._transfer_owned(got)
            await self._message_event(selector)
            waited = True

    def _must_queue(self, selector: _Selector) -> bool:
        """Whether a task that came earlier may want the same message."""
        return any(
            waiter.selector is not None and _overlap(waiter.selector, selector)
            for waiter in self._waiters
        )

    def _look(self, selector: _Selector) -> Status | None:
        for message in self._kept:
            if _fits(selector, message):
                return message.status
        match, mask, source, untagged = selector
        return self._core.iprobe(match=match, mask=mask, source=source, untagged=untagged)

    def _take_kept(self, selector: _Selector) -> Message | None:
        for place, message in enumerate(self._kept):
            if _fits(selector, message):
                return self._kept.pop(place)
        return None

    async def _message_event(self, selector: _Selector) -> None:
        """Waits until a message that fits may be here."""
        await self._event(lambda: self._look(selector) is not None, selector)

    async def _completion(self, request: _core.Request) -> Status:
        """Waits until a request is complete."""
        while (status := request.test()) is None:
            await self._event(lambda: request.test() is not None)
        return status

    async def _all(self, requests: Iterable[_core.Request]) -> None:
        for request in requests:
            await self._completion(request)

    async def _transfer(self, request: _core.Request, buffer: Buffer) -> Status:
        """Waits for the rest of a message that was taken; keeps it when the task is cancelled."""
        try:
            return await self._completion(request)
        except asyncio.CancelledError:
            status = await self._completion(request)
            self._kept.append(Message.kept(buffer, status))
            raise

    async def _transfer_owned(self, request: _core.Request) -> Message:
        """As `_transfer`, for a message in memory of its own."""
        try:
            await self._completion(request)
        except asyncio.CancelledError:
            await self._completion(request)
            self._kept.append(_owned(request))
            raise
        return _owned(request)

    async def _event(self, ready: Callable[[], bool], selector: _Selector | None = None) -> None:
        """Waits until `ready` holds, and at least once for the event loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._watch(loop)
        waiter = _Waiter(loop.create_future(), ready, selector)
        self._waiters.append(waiter)
        if self._armed:
            waiter.wake_if_ready()
        else:
            self._arm()
        try:
            await waiter.future
        finally:
            self._waiters.remove(waiter)
            if not self._waiters:
                self._disarm()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
        self._descriptor = self._core.fileno()
        loop.add_reader(self._descriptor, self._on_readable)
        self._loop = loop

    def _on_readable(self) -> None:
        """Something may have happened."""
        if self._core.closed:
            self._end_waiting()
            return
        self._core.disarm()
        self._armed = False
        # A list, not a generator: every waiter that can go on is woken.
        if not all([waiter.wake_if_ready() for waiter in self._waiters]):
            self._arm()

    def _arm(self) -> None:
        """Says that we sleep. What came before that is looked at in the next round."""
        self._armed = True
        came = self._core.arm()
        woken = [waiter.wake_if_ready() for waiter in self._waiters]
        if came and not all(woken) and self._loop is not None:
            self._loop.call_soon(self._on_readable)

    def _disarm(self) -> None:
        if self._armed and not self._core.closed:
            self._core.disarm()
        self._armed = False

    def _end_waiting(self) -> None:
        """The endpoint was closed, by whomever."""
        self._armed = False
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
        self._loop = None
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(ClosedError("the endpoint is closed"))


def _owned(request: _core.Request) -> Message:
    """The message of a complete receive into memory of its own."""
    message = request.message
    assert message is not None, "a receive into memory of its own leaves a message"
    return message


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


def _overlap(one: _Selector, other: _Selector) -> bool:
    """Whether a message can fit both."""
    if one[3] != other[3]:
        return False
    if one[2] is not None and other[2] is not None and one[2] != other[2]:
        return False
    (value, mask), (other_value, other_mask) = _bits(one), _bits(other)
    return (value ^ other_value) & mask & other_mask == 0


def _fits(selector: _Selector, message: Message) -> bool:
    value, mask = _bits(selector)
    _, _, source, untagged = selector
    if source is not None and source != message.source:
        return False
    return message.match & mask == value and message.status.untagged == untagged


def _bits(selector: _Selector) -> tuple[int, int]:
    """Match info and mask with the defaults filled in."""
    match, mask, _, _ = selector
    if match is None:
        return 0, 0
    return match, _ALL_BITS if mask is None else mask


async def _limited(work: Awaitable[_T], timeout: float | None) -> _T:
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
