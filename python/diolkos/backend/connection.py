# SPDX-License-Identifier: Apache-2.0
"""One client's socket: packets in, bounded packets out.

What a client can do here, and what comes of it:

==============================  =============================================================
sends descriptors               the kernel discards them: no room is offered for any; a fault
sends a packet that is too big  it arrives cut and is not parsed; a fault
sends faster than its rate      it is read more slowly, nobody else is
breaks the rules FAULTS_MAX     it is dropped
times
does not read                   SEND_QUEUE_PACKETS_MAX packets wait for it, then it is dropped
says nothing at all             it is dropped after FIRST_MESSAGE_S
dies, leaving the socket to a   its process handle tells; it is dropped
child
==============================  =============================================================

`drop` never calls back at once: the owner hears of the end from the event loop, so that whoever
sends to many clients need not expect any of them to vanish under its hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from diolkos.backend import memory
from diolkos.backend.limits import (
    FAULTS_MAX,
    FIRST_MESSAGE_S,
    PACKET_BYTES_MAX,
    PACKETS_PER_TURN,
    REQUEST_BURST,
    REQUESTS_PER_S,
    SEND_QUEUE_PACKETS_MAX,
    SOCKET_SEND_BYTES,
    TokenBucket,
)
from diolkos.backend.memory import Credentials
from diolkos.backend.messages import ErrorCode, ErrorReply, Reply, encode

# One buffer for all connections: a packet is parsed before the next one is received.
_receive_buffer = bytearray(PACKET_BYTES_MAX)


class _Packet(NamedTuple):
    data: bytes
    descriptors: list[int]


class Connection:
    """One connected client.

    `on_packet` is called with each packet, in a buffer that is valid during the call; `on_end`
    once, with the reason, after the connection ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        credentials: Credentials,
        process: int | None,
        *,
        on_packet: Callable[[memoryview], None],
        on_end: Callable[[str], None],
    ) -> None:
        self.credentials = credentials
        # Readable when the client's process is gone; closed with the connection.
        self.process = process
        # The home of the endpoint that this connection became; closed with the connection.
        self.home: int | None = None
        self._attention = 0
        self._socket = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Packet] = deque()
        self._pages: Iterator[tuple[Reply, list[int]]] | None = None
        self._faults = 0
        self._open = True
        self._bucket = TokenBucket(REQUEST_BURST, REQUESTS_PER_S, self._loop.time())
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(
            FIRST_MESSAGE_S, self.drop, f"said nothing for {FIRST_MESSAGE_S:.0f} s"
        )
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_SEND_BYTES)
        self._loop.add_reader(sock, self._readable)
        if process is not None:
            self._loop.add_reader(process, self.drop, "its process ended")

    def send(self, reply: Reply, descriptors: list[int] | None = None) -> bool:
        """Sends now or queues; False when the client is gone or has just been dropped. The
        descriptors are owned, and closed when they are sent or cannot be."""
        packet = _Packet(encode(reply), descriptors or [])
        if not self._open:
            memory.close_all(packet.descriptors)
            return False
        if self._queue or not self._transmit(packet):
            if not self._open:
                return False
            if len(self._queue) >= SEND_QUEUE_PACKETS_MAX:
                memory.close_all(packet.descriptors)
                self.drop(f"left {SEND_QUEUE_PACKETS_MAX} packets unread")
                return False
            self._enqueue(packet)
        return True

    def send_pages(self, pages: Iterator[tuple[Reply, list[int]]]) -> bool:
        """Sends an answer of many packets, made as the client reads them; False when an earlier
        one is still under way."""
        if self._pages is not None:
            return False
        self._pages = pages
        self._continue_pages()
        return True

    def fault(self, code: ErrorCode, message: str, request_id: int = 0) -> None:
        """Answers a packet that breaks the rules; too many end the connection."""
        self._faults += 1
        self.send(ErrorReply(id=request_id, code=code, message=message))
        if self._faults >= FAULTS_MAX:
            self.drop(f"broke the protocol {FAULTS_MAX} times, last: {message}")

    def drop(self, reason: str) -> None:
        """Ends the connection; `on_end` follows from the event loop."""
        if not self._open:
            return
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self.process is not None:
            self._loop.remove_reader(self.process)
        for packet in self._queue:
            memory.close_all(packet.descriptors)
        self._queue.clear()
        self._pages = None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._loop.call_soon(self._ended, reason)

    def _ended(self, reason: str) -> None:
        self._on_end(reason)
        memory.close_all([each for each in (self.process, self.home) if each is not None])
        self.process = self.home = None

    def _readable(self) -> None:
        """Takes a fair turn's worth of packets."""
        for _ in range(PACKETS_PER_TURN):
            try:
                # No room for control messages: the kernel closes descriptors that were sent.
                received, _, flags, _ = self._socket.recvmsg_into([_receive_buffer])
            except BlockingIOError:
                return
            except OSError as error:
                self.drop(f"cannot be read: {error.strerror}")
                return
            # A packet may also be empty; that is no request, and reads like the end.
            if received == 0:
                self.drop("closed")
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if flags & socket.MSG_CTRUNC:
                self.fault("invalid", "no request carries descriptors")
            elif flags & socket.MSG_TRUNC:
                self.fault("invalid", f"a packet has at most {PACKET_BYTES_MAX} bytes")
            else:
                with memoryview(_receive_buffer) as buffer, buffer[:received] as packet:
                    self._on_packet(packet)
            if not self._open:
                return
            if not self._bucket.take(self._loop.time()):
                self._rest()
                return

    def _rest(self) -> None:
        """Reads nothing more until the client has earned a turn again."""
        self._loop.remove_reader(self._socket)
        self._timer = self._loop.call_later(self._bucket.wait_s(), self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._socket, self._readable)

    def _transmit(self, packet: _Packet) -> bool:
        """True when the kernel has it. Otherwise the packet must wait, or the connection has ended
        and the packet with it."""
        try:
            socket.send_fds(self._socket, [packet.data], packet.descriptors)
        except BlockingIOError:
            return False
        except OSError as error:
            memory.close_all(packet.descriptors)
            self.drop(f"cannot be written to: {error.strerror}")
            return False
        memory.close_all(packet.descriptors)
        if self.home is not None:
            self._attention += 1
            memory.raise_attention(self.home, self._attention)
        return True

    def _enqueue(self, packet: _Packet) -> None:
        if not self._queue:
            self._loop.add_writer(self._socket, self._writable)
        self._queue.append(packet)

    def _writable(self) -> None:
        while self._queue:
            packet = self._queue.popleft()
            if not self._transmit(packet):
                if self._open:
                    self._queue.appendleft(packet)
                return
        self._loop.remove_writer(self._socket)
        self._continue_pages()

    def _continue_pages(self) -> None:
        """Sends pages until one has to wait."""
        while self._pages is not None and self._open and not self._queue:
            page = next(self._pages, None)
            if page is None:
                self._pages = None
            else:
                self.send(*page)
