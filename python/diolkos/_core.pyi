# SPDX-License-Identifier: Apache-2.0
"""The native module. Import these names from `diolkos`, not from here.

All times are in seconds, all lengths in bytes. A `timeout` of `None` waits for ever; when a time
limit passes, `diolkos.Timeout` is raised. Any wait ends with Ctrl-C. Calls on an endpoint raise
`ClosedError` once it is closed, and `ForkedError` in a forked child of the process that opened it.
Threads may share an endpoint.
"""

import os
from collections.abc import Callable, Sequence
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NoReturn,
    Protocol,
    Self,
    SupportsIndex,
    TypeAlias,
    final,
)

from typing_extensions import Buffer

__all__ = [
    "ArenaStatus",
    "ClaimedMessage",
    "Delivery",
    "Endpoint",
    "Key",
    "Loan",
    "Memory",
    "Message",
    "MultiReceive",
    "Peer",
    "Region",
    "Relay",
    "Request",
    "Status",
    "bench_pingpong",
    "bench_rate",
    "bench_rdma",
    "cache_line_ns",
    "eventfd_wake",
    "local_pair",
    "wait_any",
]

_Road: TypeAlias = Literal["direct", "switched"]
_Access: TypeAlias = Literal["r", "rw"]

class _Array(Protocol):
    """NumPy arrays, whose stubs know of the buffer protocol only from Python 3.12 on."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

class _Context:
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

_Buffer: TypeAlias = Buffer | _Array
_Reach: TypeAlias = Literal["granted", "copied", "process_vm", "unknown"]
_Shape: TypeAlias = SupportsIndex | Sequence[SupportsIndex]

@final
class Endpoint(_Context):
    """A port on which messages are sent, received and matched.

    >>> with diolkos.Endpoint("alice") as ep:
    ...     bob = ep.connect("bob", timeout=5)
    ...     ep.send(b"hello", bob, match=7)

    A message carries 64 bits of match info. A receive names a value and a mask of the bits that
    count: `match` alone compares all bits, neither of them takes any message. `source` takes
    messages of one peer only. Messages between two endpoints are matched in the order in which
    they were sent. `untagged` is a second match space, apart from the first.

    Buffers are used where they lie, without a copy: anything that is C-contiguous (bytes,
    bytearray, memoryview, array, NumPy arrays). Raises `BufferError` for other memory and for
    read-only buffers to receive into, `TypeError` for what is not a buffer.
    """

    def __new__(
        cls,
        name: str | None = None,
        *,
        number: int | None = None,
        partition: str | None = None,
        context_ids: tuple[int, int] | None = None,
        runtime_dir: str | os.PathLike[str] | None = None,
        start_backend: bool = True,
        arena_nbytes: int | None = None,
    ) -> Self:
        """Opens an endpoint at this host's backend.

        Without a `name` it is called `ep-<number>`, without a `number` it gets the lowest free
        one. `partition` defaults to `$DIOLKOS_PARTITION`, else "default": only endpoints of one
        partition see each other. `context_ids=(bits, shift)` says where a context id lies in the
        match info: receives must then fix these bits. `runtime_dir` is where the backend listens
        (default: `$DIOLKOS_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/diolkos`, else
        `/tmp/diolkos-<uid>`). With `start_backend`, a backend is started if none runs.
        `arena_nbytes` limits `alloc` (default: half of the machine's memory).

        Raises `BusyError` when the name or number is taken, `DeniedError` and `LimitError` when
        the backend refuses, `BackendError` when there is none.
        """

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def partition(self) -> str:
        """Its partition."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    @property
    def self_peer(self) -> Peer:
        """Itself, to send to. Such a send is complete when its receive has matched."""

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The peers that are connected now, whoever asked for it."""

    @property
    def counters(self) -> dict[str, int]:
        """What crossed so far, and what is here now: messages and bytes each way (`tx_messages`,
        `tx_bytes`, `rx_messages`, `rx_bytes`) with the peers that are connected, `doorbells_rung`,
        `sleeps`, and the messages without a receive (`unexpected`), receives without a message
        (`posted`) and `requests` at the moment."""

    def connect(
        self, target: str | int, *, timeout: float | None = None, road: str = "auto"
    ) -> Peer:
        """Connects to an endpoint by name or number, and waits until it exists.

        `road` is "auto", "direct" (shared memory) or "switched" (through the backend). Connecting
        to a connected endpoint gives the same peer. Raises `Timeout`, `DeniedError`, or
        `BackendError`. An endpoint that may not be seen is an endpoint that does not exist.
        """

    def iconnect(
        self, target: str | int, *, timeout: float | None = None, road: str = "auto"
    ) -> Request:
        """As `connect`, without waiting: the request's `peer` is the result."""

    def disconnect(self, peer: Peer) -> None:
        """Parts from a peer. Requests with it end with `NotConnected`."""

    def send(
        self,
        buffer: _Buffer,
        dest: Peer,
        *,
        match: int = 0,
        immediate: int = 0,
        synchronous: bool = False,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Sends a message and waits until the buffer may be used again.

        Up to 64 KiB that is usually at once; longer messages wait for their receive, and so do
        all messages with `synchronous`. `immediate` is 32 bits that ride along. A receiver that
        took less than the message is no error here.

        Raises `PeerError` when the peer is gone, `BusyError` when too many sends wait for it
        already, `Timeout` when it was not done in time: it cannot be taken back, may still be
        delivered, and uses the buffer until then.
        """

    def isend(
        self,
        buffer: _Buffer,
        dest: Peer,
        *,
        match: int = 0,
        immediate: int = 0,
        synchronous: bool = False,
        untagged: bool = False,
    ) -> Request:
        """As `send`, without waiting. The buffer must not change until the request is complete."""

    def issend(
        self,
        buffer: _Buffer,
        dest: Peer,
        *,
        match: int = 0,
        immediate: int = 0,
        untagged: bool = False,
    ) -> Request:
        """As `isend`, complete only once a receive has matched the message."""

    def send_object(
        self, obj: object, dest: Peer, *, match: int = 0, timeout: float | None = None
    ) -> None:
        """Pickles an object and sends it; for `recv_object`. See `diolkos.objects`."""

    def recv_object(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        max_nbytes: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Receives an object that was sent with `send_object`.

        **Unpickling trusts the sender**: receive objects only from peers that you would let run
        code here. Objects longer than `max_nbytes` (1 GiB unless given) and messages that are no
        objects raise `NotAnObject`.
        """

    def recv_into(
        self,
        buffer: _Buffer,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> Status:
        """Receives a message into a buffer and waits for it.

        A message that is longer than the buffer is cut off, and the status says `truncated`.
        Raises `Timeout`, in which case nothing was received, and `PeerError` when `source` is gone
        or the last peer died.
        """

    def recv(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> Message:
        """Receives a message into memory of its own size and waits for it."""

    def irecv_into(
        self,
        buffer: _Buffer,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> Request:
        """As `recv_into`, without waiting. The buffer is the request's until it is complete."""

    def irecv(
        self,
        max_nbytes: int,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> Request:
        """Receives a message of at most `max_nbytes` into memory of its own: the request's
        `message`, once it is complete."""

    def probe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> Status:
        """Waits for a message without a receive, and leaves it for one."""

    def iprobe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> Status | None:
        """As `probe`, without waiting."""

    def mprobe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
        timeout: float | None = None,
    ) -> ClaimedMessage:
        """Waits for a message without a receive, and claims it: nobody else can receive it."""

    def improbe(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> ClaimedMessage | None:
        """As `mprobe`, without waiting."""

    def multi_recv(
        self,
        buffer: _Buffer,
        *,
        min_free: int = 1,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        untagged: bool = False,
    ) -> MultiReceive:
        """Posts one buffer for many messages, which are packed into it until fewer than `min_free`
        bytes are left."""

    def alloc(
        self, shape: _Shape, dtype: Any = "u1", *, align: int = 64, peer: Peer | None = None
    ) -> Memory:
        """Allocates memory that peers can be given a view of: to `lend`, to `register`, or to send
        from, which then takes one copy less.

        `shape` is a number of elements, or one for each dimension. `dtype` is anything that
        `numpy.dtype` takes, or a letter of the `struct` module; NumPy is only needed for types that
        are not plain numbers. `align` is a power of two of at most 2 MiB, in bytes. What the memory
        holds at first is undefined, though never another program's data.

        Memory that a peer has seen is not used again for anybody else. With a `peer`, only that one
        will be sent or lent the memory, so what it has seen before may be used again.

        Raises `ArenaFullError` when the limit is reached, `SystemRefusal` when the system has no
        memory or descriptors, `ValueError` for shapes and alignments that cannot be.
        """

    @property
    def arena(self) -> ArenaStatus:
        """How full the arena is that `alloc` takes memory from."""

    def register(
        self, buffer: _Buffer, access: _Access = "r", *, peer: Peer | None = None
    ) -> Region:
        """Lets peers read memory ("r"), or read and write it ("rw"), by themselves: all that are
        given the region's key, or only `peer`, which is told at once.

        Memory of `alloc` is granted, the whole allocation: peers use it where it lies, and this
        program has to do nothing for it. Other memory is served by copies, whenever this program
        makes progress. The buffer is the region's until it is revoked. Do not write to it during
        the call: memory may have to move, at its address.

        Raises `BufferError` for read-only memory with "rw", `LimitError` for too many regions.
        """

    def rdma_write(
        self,
        local: _Buffer,
        peer: Peer,
        key: Key,
        offset: int = 0,
        *,
        notify: int | None = None,
        immediate: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Writes a buffer to a region of a peer, from byte `offset` on, and waits until it is
        there.

        With `notify`, an empty message with this match info and `immediate` is sent after it:
        whoever receives that sees the data. Operations on the regions of one peer are done in the
        order of the calls.

        Raises `KeyRefusedError` for a key that opens no region of this peer for writing,
        `RevokedError`, `RangeError` for a place outside, `PeerError`; `Timeout` when it was not
        done in time: it cannot be taken back, and uses the buffer until it is done.
        """

    def irdma_write(
        self,
        local: _Buffer,
        peer: Peer,
        key: Key,
        offset: int = 0,
        *,
        notify: int | None = None,
        immediate: int = 0,
    ) -> Request:
        """As `rdma_write`, without waiting. The buffer must not change until it is complete."""

    def rdma_read(
        self, into: _Buffer, peer: Peer, key: Key, offset: int = 0, *, timeout: float | None = None
    ) -> None:
        """Fills a buffer from a region of a peer, from byte `offset` on. Raises as `rdma_write`."""

    def irdma_read(self, into: _Buffer, peer: Peer, key: Key, offset: int = 0) -> Request:
        """As `rdma_read`, without waiting. The buffer is the request's until it is complete."""

    def fetch_add(
        self, peer: Peer, key: Key, offset: int, value: int, *, timeout: float | None = None
    ) -> int:
        """Adds to an unsigned 64-bit word of a region, at a multiple of 8 bytes, and returns what
        was there before. The sum wraps around. Atomic with respect to all such operations, and to
        aligned 64-bit loads and stores of the owner. Raises as `rdma_write`, and `OverflowError`.
        """

    def compare_swap(
        self,
        peer: Peer,
        key: Key,
        offset: int,
        expected: int,
        desired: int,
        *,
        timeout: float | None = None,
    ) -> int:
        """Puts `desired` into a word if `expected` is there; returns what was there before."""

    def rdma_fence(self, peer: Peer, *, timeout: float | None = None) -> None:
        """Waits until every operation begun before on regions of this peer has ended."""

    def reach(self, peer: Peer, key: Key) -> _Reach:
        """How operations with a key of a peer are done: in "granted" memory, by the peer's program
        as it makes progress ("copied", or by the kernel's copies, "process_vm"), or "unknown"
        until the first one has asked."""

    def lend(self, buffer: _Buffer, peer: Peer, *, match: int = 0, immediate: int = 0) -> Request:
        """Lends memory of `alloc`, or a part of it, to a peer, which looks at it where it lies: for
        `recv_loan`. The request is complete when the loan is back; the memory must not change until
        then.

        All of the allocation can be seen by the peer. Raises `ValueError` for other memory, and for
        lending to oneself. When the peer is gone it ends with `PeerError`, and the memory is back.
        """

    def recv_loan(
        self,
        *,
        match: int | None = None,
        mask: int | None = None,
        source: Peer | None = None,
        dtype: Any = "u1",
        shape: _Shape | None = None,
        timeout: float | None = None,
    ) -> Loan:
        """Waits for a loan. Loans are matched apart from messages, in the order in which they were
        lent.

        `dtype` and `shape` say what the loan looks like, as for `alloc`; without a shape it is a
        row of elements. A loan of another length raises `ValueError` and goes back. Raises as
        `recv_into`, and `ArenaFullError` when there is no room for a copy (on the switched road).
        """

    def irecv_loan(
        self, *, match: int | None = None, mask: int | None = None, source: Peer | None = None
    ) -> Request:
        """As `recv_loan`, without waiting: the request's `loan` is the result, as bytes."""

    def cancel(self, request: Request) -> bool:
        """As `request.cancel()`."""

    def on_unexpected(self, handler: Callable[[Status, bytes | None], object] | None, /) -> None:
        """Offers each message that finds no receive to `handler(status, data)`, or to nobody.

        `data` is the message when all of it is here, else `None`. A true result consumes the
        message; otherwise it is matched once more (the handler may have posted a receive) and then
        waits for a receive. The handler runs inside whatever call makes progress, in that thread.
        Waiting calls make no sense in it. Its exceptions go to `sys.unraisablehook`.
        """

    def progress(self) -> None:
        """Takes in what came. Every other call does so as well; nothing else does."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when something happens after `arm`."""

    def linger(self) -> bool:
        """For event loops: looks for some microseconds whether something happens, if that paid."""

    def rest(self) -> float | None:
        """For event loops: gives memory that has been idle for a second back to the system. The
        seconds after which to ask again, or None once it has."""

    def arm(self) -> bool:
        """For event loops: says that the program is about to wait for `fileno()`. True when
        something is here already. Undo it with `disarm` in any case."""

    def disarm(self) -> None:
        """Ends what `arm` began, takes in what came, and makes the descriptor quiet."""

    def try_send(
        self,
        buffer: _Buffer,
        dest: Peer,
        match: int,
        immediate: int,
        synchronous: bool,
        untagged: bool,
        /,
    ) -> Request | None:
        """For event loops: `None` when the message has left, else its request."""

    def try_recv_into(
        self,
        buffer: _Buffer,
        match: int | None,
        mask: int | None,
        source: Peer | None,
        untagged: bool,
        /,
    ) -> Status | Request | None:
        """For event loops: the status of a message that is here, the request of one whose rest is
        still coming, `None` when there is none."""

    def try_recv(
        self,
        match: int | None,
        mask: int | None,
        source: Peer | None,
        untagged: bool,
        /,
    ) -> Message | Request | None:
        """As `try_recv_into`, into memory of its own."""

    def try_fetch_add(self, peer: Peer, key: Key, offset: int, value: int, /) -> int | Request:
        """For event loops: the old value, or a request whose status has it as `match`."""

    def try_compare_swap(
        self, peer: Peer, key: Key, offset: int, expected: int, desired: int, /
    ) -> int | Request:
        """As `try_fetch_add`."""

    def try_rdma_fence(self, peer: Peer, /) -> Request | None:
        """For event loops: `None` when there is nothing to wait for, else its request."""

    def try_recv_loan(
        self, match: int | None, mask: int | None, source: Peer | None, /
    ) -> Loan | Request | None:
        """For event loops: a loan that is here, or the request of one that is being copied."""

    def has_loan(self, match: int | None, mask: int | None, source: Peer | None, /) -> bool:
        """For event loops: whether a loan is here that no receive has taken."""

    @property
    def has_regions(self) -> bool:
        """For `send_object`: whether there are regions whose keys may be in an object."""

    def grant_key(self, key: Key, peer: Peer, /) -> bool:
        """For `send_object`: grants a region to a peer; false when it is not ours, or bound."""

    def close(self) -> None:
        """Closes the endpoint. Peers are told, messages that have left still arrive, requests
        under way end with `ClosedError`, regions are revoked. Memory and loans can still be used.
        Closing twice is fine."""

    def __reduce__(self) -> NoReturn: ...

@final
class Peer:
    """Somebody to send to. Two are equal when they are the same peer of the same endpoint."""

    @property
    def number(self) -> int:
        """The peer's endpoint number."""

    @property
    def name(self) -> str:
        """The peer's name."""

    @property
    def road(self) -> _Road:
        """The road that messages take."""

    @property
    def reason(self) -> str:
        """Why this road was chosen."""

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there, as far as is known."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Status:
    """What became of a message, or what a probe saw."""

    @property
    def source(self) -> Peer:
        """The sender; of a send, the receiver."""

    @property
    def match(self) -> int:
        """Match info of the message."""

    @property
    def nbytes(self) -> int:
        """Bytes that were transferred; 0 for a probe."""

    @property
    def message_nbytes(self) -> int:
        """Length of the message in bytes."""

    @property
    def truncated(self) -> bool:
        """Whether the receive was shorter than the message. The rest is lost."""

    @property
    def immediate(self) -> int:
        """32 bits that rode along."""

    @property
    def untagged(self) -> bool:
        """Whether the message was sent in the untagged space."""

    @property
    def code(self) -> Literal["success", "truncated"]:
        """How it ended. All that is worse raises."""

@final
class Message:
    """A received message in memory of its own: a writable buffer that knows where it came from.

    `bytes(message)` copies, `memoryview(message)` and `numpy.frombuffer(message)` do not, and keep
    the memory alive. Equal to any buffer with the same bytes.
    """

    @property
    def status(self) -> Status:
        """What came with it."""

    @property
    def source(self) -> Peer:
        """The sender."""

    @property
    def match(self) -> int:
        """Match info."""

    @property
    def nbytes(self) -> int:
        """Length in bytes."""

    @property
    def immediate(self) -> int:
        """Immediate data."""

    def copy_into(self, buffer: _Buffer) -> Status:
        """Copies to a buffer; the status is that of a receive into it."""

    @staticmethod
    def kept(buffer: _Buffer, status: Status) -> Message:
        """A message made of what a receive with this status left in `buffer`."""

    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Request:
    """A send, receive, connect, loan or operation under way.

    One thread at a time may wait for it. A request that is dropped goes on: a send is delivered, an
    operation is done, a receive that has not matched is cancelled.
    """

    def wait(self, timeout: float | None = None) -> Status:
        """Waits until it is complete. When the time passes, `Timeout` is raised and the request
        goes on. Raises `PeerError` when it failed, `Cancelled` when it was cancelled. May be
        called again."""

    def test(self) -> Status | None:
        """As `wait`, without waiting: `None` while it is under way. Makes progress."""

    def cancel(self) -> bool:
        """Cancels a receive that has not matched, or a connect. False when it is too late, as it
        always is for a send, a loan to a peer, or an operation."""

    @property
    def done(self) -> bool:
        """Whether it is known to have ended. Does not look."""

    @property
    def message(self) -> Message | None:
        """What a complete `irecv` received; `None` for other requests. Raises `ValueError` for a
        request that has not ended well."""

    @property
    def loan(self) -> Loan | None:
        """What a complete `irecv_loan` received; `None` for other requests. Raises as `message`."""

    @property
    def peer(self) -> Peer | None:
        """The other side, once the request has ended: of a connect, the new peer."""

@final
class ClaimedMessage:
    """A message that a probe found and took; only its holder can receive it, or loses it."""

    def recv(self) -> Message:
        """Receives it into memory of its own."""

    def recv_into(self, buffer: _Buffer) -> Status:
        """Receives it into a buffer."""

    def irecv(self) -> Request:
        """As `recv`, without waiting: the request's `message` is the result."""

    def irecv_into(self, buffer: _Buffer) -> Request:
        """As `recv_into`, without waiting."""

    def discard(self) -> None:
        """Gives it up: it is consumed unseen."""

    @property
    def status(self) -> Status:
        """What is known of it."""

    @property
    def source(self) -> Peer:
        """The sender."""

    @property
    def match(self) -> int:
        """Match info."""

    @property
    def nbytes(self) -> int:
        """Length in bytes."""

    @property
    def immediate(self) -> int:
        """Immediate data."""

@final
class MultiReceive:
    """One large buffer that takes many messages: iterate over it, or call `next`."""

    def next(self, timeout: float | None = None) -> Delivery | None:
        """The next message; `None` when the buffer is full and the program's again."""

    def poll(self) -> Delivery | None:
        """The next message if there is one."""

    def cancel(self) -> None:
        """Takes no more messages. Those under way still come, then the buffer is released."""

    @property
    def released(self) -> bool:
        """Whether the buffer is the program's again."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Delivery: ...

@final
class Delivery:
    """A message in a buffer of `multi_recv`."""

    @property
    def offset(self) -> int:
        """Where it lies in the buffer, in bytes."""

    @property
    def status(self) -> Status:
        """What came with it."""

    @property
    def data(self) -> memoryview:
        """A view of it, which keeps the buffer alive."""

@final
class Memory(_Context):
    """Memory of an endpoint's arena, from `alloc`: a writable buffer with a shape.

    `numpy.asarray(memory)` and `memoryview(memory)` make no copy. The memory goes back to the arena
    after `free`, or when nobody has this object any more, but never before the last view of it has
    gone: views, arrays, requests, regions. It may be used longer than its endpoint.
    """

    def free(self) -> None:
        """Lets no more views be made (`ValueError`); it goes back when the last one is gone."""

    @property
    def freed(self) -> bool:
        """Whether it was freed."""

    @property
    def nbytes(self) -> int:
        """Length in bytes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions, in elements."""

    @property
    def format(self) -> str:
        """An element, as the `struct` module writes it."""

    @property
    def itemsize(self) -> int:
        """Length of an element in bytes."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class ArenaStatus:
    """How full an arena is. Its memory is counted in the steps in which the arena makes it: whole
    pages, and beyond 64 KiB a quarter of a power of two."""

    #: The most bytes that used and cached memory may have together.
    limit_nbytes: Final[int]
    #: Bytes in use.
    used_nbytes: Final[int]
    #: Bytes that were freed and are kept for the next `alloc`.
    cached_nbytes: Final[int]
    #: Allocations in use.
    allocations: Final[int]
    #: Bytes in use that some peer can see now.
    granted_nbytes: Final[int]

    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]

@final
class Loan(_Context):
    """Memory that a peer has lent: a read-only buffer with a shape, in the lender's own memory.

    `numpy.asarray(loan)` and `memoryview(loan)` make no copy. It goes back after `release`, or when
    nobody has this object any more, but never before its last view has gone. It can be read also
    when the lender is gone. A hostile lender may change it meanwhile.
    """

    def release(self) -> None:
        """Lets no more views be made (`ValueError`); it goes back when the last one is gone."""

    def shaped(self, dtype: Any = "u1", shape: _Shape | None = None) -> Loan:
        """The same loan with elements and a shape, as for `recv_loan`; this object has it no more.
        Raises `ValueError` when they do not fit, and it goes back; `BufferError` with views."""

    @property
    def released(self) -> bool:
        """Whether it was released."""

    @property
    def copied(self) -> bool:
        """Whether it is a copy, as the lender's memory cannot be reached from here."""

    @property
    def nbytes(self) -> int:
        """Length in bytes."""

    @property
    def source(self) -> Peer:
        """The lender."""

    @property
    def match(self) -> int:
        """Match info."""

    @property
    def immediate(self) -> int:
        """Immediate data."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Region(_Context):
    """Memory that peers with its key may use, until it is revoked or nobody has this object.
    Closing the endpoint ends it, too; but only what is revoked has moved out of their sight."""

    @property
    def key(self) -> Key:
        """The right to use it, for those who shall."""

    @property
    def access(self) -> _Access:
        """What its key allows: reading, or also writing."""

    @property
    def nbytes(self) -> int:
        """Length in bytes."""

    @property
    def reach(self) -> Literal["granted", "copied"]:
        """How peers on the direct road use it: where it lies, or by copies that we make."""

    @property
    def revoked(self) -> bool:
        """Whether it was taken back."""

    def grant(self, peer: Peer) -> None:
        """Grants it to a peer ahead, as `send_object` does: its first use then needs nothing of
        this program. Raises `RevokedError`, or `KeyRefusedError` when it is bound."""

    def revoke(self) -> None:
        """Takes it back: from here on, nothing that peers do reads or changes this memory. That of
        `alloc` moves, at its address; do not write to it during the call. Raises `SystemRefusal`
        when there is no memory to move to: call again. Revoking twice is fine."""

@final
class Key:
    """The right to use a region, of 40 bytes. Whoever has it has the right, unless the region is
    bound to a peer. It can be pickled, and is good for nothing once the region is revoked."""

    @classmethod
    def from_bytes(cls, data: _Buffer, /) -> Key:
        """The key of `bytes(key)`. Raises `ValueError` for other bytes."""

    @property
    def nbytes(self) -> int:
        """Length of the region in bytes."""

    @property
    def access(self) -> _Access:
        """What it allows: reading, or also writing."""

    def __bytes__(self) -> bytes: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Relay:
    """Carries messages between two channels; for the backend only."""

    def __new__(cls, fds_a: Sequence[int], fds_b: Sequence[int]) -> Self:
        """Starts. The descriptors belong to the relay from the call on, also when it raises: an
        `OSError` when the system is short of something, `ValueError` when they are no channels."""

    def finish(self) -> None:
        """Ends it when what is on the way has been forwarded. Returns at once."""

    def stop(self) -> None:
        """Ends it now."""

    def is_alive(self) -> bool:
        """Whether it still carries messages."""

def wait_any(requests: Sequence[Request], timeout: float | None = None) -> tuple[int, Status]:
    """Waits until one of the requests has ended: its place in the list, and its status. They may be
    of several endpoints. One that failed raises, with `index` set to its place."""

def local_pair() -> tuple[tuple[Endpoint, Peer], tuple[Endpoint, Peer]]:
    """Two endpoints of this process that are joined without a backend: `diolkos.testing.pair`."""

def bench_pingpong(
    endpoint: Endpoint,
    peer: Peer,
    size: int,
    iterations: int,
    initiator: bool,
    verify: bool,
    *,
    arena: bool = False,
) -> bytes:
    """Round trips without Python between them: native-endian 32-bit nanoseconds of each, nothing
    for the responder or with `verify`, which checks every byte; with `arena`, out of the arena."""

def bench_rdma(
    endpoint: Endpoint,
    peer: Peer,
    memory: _Buffer,
    key: Any,
    op: Literal["write", "read", "fetch_add"],
    iterations: int,
    window: int,
    verify: bool,
) -> bytes:
    """Operations on a region: native-endian 32-bit nanoseconds of each, or of `window` in a row;
    nothing for the region's owner, who has `None` for a key."""

def bench_rate(
    endpoint: Endpoint, peer: Peer, size: int, count: int, window: int, initiator: bool
) -> float:
    """Seconds for `count` messages in windows, each answered with an empty message."""

def cache_line_ns(cpu_a: int, cpu_b: int, round_trips: int) -> float:
    """Half a round trip of one bare cache line between two processors, in nanoseconds."""

def eventfd_wake(cpu_a: int, cpu_b: int, round_trips: int) -> float:
    """Half a round trip between two threads that block on an eventfd each, in nanoseconds."""
