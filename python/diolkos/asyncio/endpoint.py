# SPDX-License-Identifier: Apache-2.0
"""The endpoint for event loops; how it waits is told in the package."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from diolkos import _core
from diolkos._core import ArenaStatus, Key, Loan, Memory, Message, Peer, Region, Status
from diolkos.asyncio.requests import ClaimedMessage, MultiReceive, Request, borrowed, owned
from diolkos.asyncio.waiting import Selector, Wanted, Watch, fits, limited, overlap

if TYPE_CHECKING:
    from diolkos._core import _Access as Access
    from diolkos._core import _Buffer as Buffer
    from diolkos._core import _Shape as Shape


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
        arena_nbytes: int | None = None,
    ) -> None:
        self._adopt(
            _core.Endpoint(
                name,
                number=number,
                partition=partition,
                context_ids=context_ids,
                runtime_dir=runtime_dir,
                start_backend=start_backend,
                arena_nbytes=arena_nbytes,
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
        self._watch = Watch(blocking)
        #: What cancelled receives left, oldest first.
        self._kept: list[Message] = []
        self._kept_loans: list[Loan] = []

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
        self._watch.end()
        self._kept.clear()
        self._kept_loans.clear()

    async def connect(
        self, target: str | int, *, timeout: float | None = None, road: str = "auto"
    ) -> Peer:
        """Connects to an endpoint by name or number and waits until it exists."""
        request = self._core.iconnect(target, timeout=timeout, road=road)
        try:
            return (await self._watch.completion(request)).source
        except asyncio.CancelledError:
            request.cancel()
            raise

    def iconnect(
        self, target: str | int, *, timeout: float | None = None, road: str = "auto"
    ) -> Request:
        """Starts to connect; the request's `peer` is the result."""
        return Request(self._watch, self._core.iconnect(target, timeout=timeout, road=road))

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
            await limited(self._watch.completion(request), timeout)

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
        return Request(self._watch, request)

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
        return Request(self._watch, request)

    async def send_object(
        self, obj: object, dest: Peer, *, match: int = 0, timeout: float | None = None
    ) -> None:
        """Pickles an object and sends it; see `diolkos.objects`."""
        from diolkos import objects

        requests = objects.start_send(self._core, obj, dest, match)
        await limited(self._all(requests), timeout)

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
        selector = (match, mask, source, untagged)
        if not self._kept and (self._watch.idle or not self._watch.must_queue(selector)):
            got = self._core.try_recv_into(buffer, match, mask, source, untagged)
            if type(got) is Status:
                return got
            if got is not None:
                return await limited(self._transfer(got, buffer), timeout)
        return await limited(self._recv_into(buffer, selector), timeout)

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
        selector = (match, mask, source, untagged)
        if not self._kept and (self._watch.idle or not self._watch.must_queue(selector)):
            got = self._core.try_recv(match, mask, source, untagged)
            if type(got) is Message:
                return got
            if got is not None:
                return await limited(self._transfer_owned(got), timeout)
        return await limited(self._recv(selector), timeout)

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

        return await limited(receive(), timeout)

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
        return Request(self._watch, request)

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
        return Request(self._watch, request)

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
        return MultiReceive(self._watch, multi)

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

        return await limited(probe(), timeout)

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
                    return ClaimedMessage(self._watch, claimed)
                await self._message_event(selector)

        return await limited(claim(), timeout)

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
        return None if claimed is None else ClaimedMessage(self._watch, claimed)

    # --- granted memory -----------------------------------------------------------------------

    def alloc(
        self, shape: Shape, dtype: Any = "u1", *, align: int = 64, peer: Peer | None = None
    ) -> Memory:
        """Allocates memory that can be lent, registered, and sent from."""
        return self._core.alloc(shape, dtype, align=align, peer=peer)

    @property
    def arena(self) -> ArenaStatus:
        """How full the arena is that `alloc` takes memory from."""
        return self._core.arena

    def register(self, buffer: Buffer, access: Access = "r", *, peer: Peer | None = None) -> Region:
        """Lets peers read memory, or read and write it, by themselves."""
        return self._core.register(buffer, access, peer=peer)

    async def rdma_write(
        self,
        local: Buffer,
        peer: Peer,
        key: Key,
        offset: int = 0,
        *,
        notify: int | None = None,
        immediate: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Writes a buffer to a region of a peer and waits until it is there."""
        request = self._core.irdma_write(
            local, peer, key, offset, notify=notify, immediate=immediate
        )
        if not request.done:
            await limited(self._watch.completion(request), timeout)

    def irdma_write(
        self,
        local: Buffer,
        peer: Peer,
        key: Key,
        offset: int = 0,
        *,
        notify: int | None = None,
        immediate: int = 0,
    ) -> Request:
        """Starts to write a buffer to a region of a peer."""
        request = self._core.irdma_write(
            local, peer, key, offset, notify=notify, immediate=immediate
        )
        return Request(self._watch, request)

    async def rdma_read(
        self,
        into: Buffer,
        peer: Peer,
        key: Key,
        offset: int = 0,
        *,
        timeout: float | None = None,
    ) -> None:
        """Fills a buffer from a region of a peer."""
        request = self._core.irdma_read(into, peer, key, offset)
        if not request.done:
            await limited(self._watch.completion(request), timeout)

    def irdma_read(self, into: Buffer, peer: Peer, key: Key, offset: int = 0) -> Request:
        """Starts to fill a buffer from a region of a peer."""
        return Request(self._watch, self._core.irdma_read(into, peer, key, offset))

    async def fetch_add(
        self, peer: Peer, key: Key, offset: int, value: int, *, timeout: float | None = None
    ) -> int:
        """Adds to a 64-bit word of a region; returns what was there before."""
        return await self._word(self._core.try_fetch_add(peer, key, offset, value), timeout)

    async def compare_swap(
        self,
        peer: Peer,
        key: Key,
        offset: int,
        expected: int,
        desired: int,
        *,
        timeout: float | None = None,
    ) -> int:
        """Replaces a word of a region if it is as expected; returns what was there before."""
        word = self._core.try_compare_swap(peer, key, offset, expected, desired)
        return await self._word(word, timeout)

    async def _word(self, word: int | _core.Request, timeout: float | None) -> int:
        if isinstance(word, int):
            return word
        return (await limited(self._watch.completion(word), timeout)).match

    async def rdma_fence(self, peer: Peer, *, timeout: float | None = None) -> None:
        """Waits until every operation on regions of this peer that was begun before is complete."""
        request = self._core.try_rdma_fence(peer)
        if request is not None:
            await limited(self._watch.completion(request), timeout)

    def reach(self, peer: Peer, key: Key) -> Literal["granted", "copied", "process_vm", "unknown"]:
        """How operations with a key of a peer are done."""
        return self._core.reach(peer, key)

    def lend(self, buffer: Buffer, peer: Peer, *, match: int = 0, immediate: int = 0) -> Request:
        """Lends memory of `alloc` to a peer; complete when the loan is back."""
        request = self._core.lend(buffer, peer, match=match, immediate=immediate)
        return Request(self._watch, request)

    async def recv_loan(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        dtype: Any = "u1",
        shape: Shape | None = None,
        timeout: float | None = None,
    ) -> Loan:
        """Waits for a loan."""
        loan = await limited(self._recv_loan((match, mask, source, None)), timeout)
        return loan if dtype == "u1" and shape is None else loan.shaped(dtype, shape)

    def irecv_loan(
        self, *, match: int | None = None, mask: int | None = None, source: Peer | None = None
    ) -> Request:
        """Posts a receive for a loan: the request's `loan` is the result."""
        request = self._core.irecv_loan(match=match, mask=mask, source=source)
        return Request(self._watch, request)

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

    async def _recv_into(self, buffer: Buffer, selector: Selector) -> Status:
        waited = False
        while True:
            if waited or not self._watch.must_queue(selector):
                if (message := self._take_kept(selector)) is not None:
                    return message.copy_into(buffer)
                got = self._core.try_recv_into(buffer, *selector)
                if isinstance(got, Status):
                    return got
                if got is not None:
                    return await self._transfer(got, buffer)
            await self._message_event(selector)
            waited = True

    async def _recv(self, selector: Selector) -> Message:
        waited = False
        while True:
            if waited or not self._watch.must_queue(selector):
                if (message := self._take_kept(selector)) is not None:
                    return message
                got = self._core.try_recv(*selector)
                if isinstance(got, Message):
                    return got
                if got is not None:
                    return await self._transfer_owned(got)
            await self._message_event(selector)
            waited = True

    def _look(self, selector: Selector) -> Status | None:
        for message in self._kept:
            if fits(selector, message):
                return message.status
        match, mask, source, untagged = selector
        return self._core.iprobe(match=match, mask=mask, source=source, untagged=untagged)

    def _keep(self, message: Message) -> None:
        """A cancelled receive leaves a message: whoever waits for it may have it."""
        self._kept.append(message)
        self._watch.wake()

    def _take_kept(self, selector: Selector) -> Message | None:
        for place, message in enumerate(self._kept):
            if fits(selector, message):
                return self._kept.pop(place)
        return None

    async def _message_event(self, selector: Selector) -> None:
        """Waits until a message that fits may be here."""
        await self._watch.event(lambda: self._look(selector) is not None, selector)

    async def _recv_loan(self, wanted: Wanted) -> Loan:
        match, mask, source, _ = wanted
        waited = False
        while True:
            if waited or not self._watch.must_queue(wanted):
                if (loan := self._take_kept_loan(wanted)) is not None:
                    return loan
                got = self._core.try_recv_loan(match, mask, source)
                if isinstance(got, Loan):
                    return got
                if got is not None:
                    return await self._transfer_loan(got)
            await self._watch.event(lambda: self._has_loan(wanted), wanted)
            waited = True

    def _has_loan(self, wanted: Wanted) -> bool:
        if any(overlap(wanted, _exactly(loan)) for loan in self._kept_loans):
            return True
        match, mask, source, _ = wanted
        return self._core.has_loan(match, mask, source)

    def _take_kept_loan(self, wanted: Wanted) -> Loan | None:
        for place, loan in enumerate(self._kept_loans):
            if overlap(wanted, _exactly(loan)):
                return self._kept_loans.pop(place)
        return None

    async def _transfer_loan(self, request: _core.Request) -> Loan:
        """As `_transfer`, for a loan that is being copied."""
        try:
            await self._watch.completion(request)
        except asyncio.CancelledError:
            await self._watch.completion(request)
            self._kept_loans.append(borrowed(request))
            self._watch.wake()
            raise
        return borrowed(request)

    async def _all(self, requests: Iterable[_core.Request]) -> None:
        for request in requests:
            await self._watch.completion(request)

    async def _transfer(self, request: _core.Request, buffer: Buffer) -> Status:
        """Waits for the rest of a message that was taken; keeps it when the task is cancelled."""
        try:
            return await self._watch.completion(request)
        except asyncio.CancelledError:
            status = await self._watch.completion(request)
            self._keep(Message.kept(buffer, status))
            raise

    async def _transfer_owned(self, request: _core.Request) -> Message:
        """As `_transfer`, for a message in memory of its own."""
        try:
            await self._watch.completion(request)
        except asyncio.CancelledError:
            await self._watch.completion(request)
            self._keep(owned(request))
            raise
        return owned(request)


def _exactly(loan: Loan) -> Wanted:
    """What only this loan fits, as far as that can be said."""
    return (loan.match, None, loan.source, None)
