# SPDX-License-Identifier: Apache-2.0
"""A client of the control socket that takes nothing for granted, and nothing from the product.

It speaks JSON over the raw socket, so that the tests hold the protocol itself to
`docs/reference/control.md`, and so that it can be as rude as a test wants.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

PATIENCE_S = 20.0
CHANNEL_FILE_BYTES = 0x420000
HOME_FILE_BYTES = 0x11000


@dataclass
class Packet:
    """One packet from the backend, with the descriptors that came in it."""

    fields: dict[str, Any]
    fds: list[int] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def close(self) -> None:
        """Closes the descriptors that are still here."""
        while self.fds:
            os.close(self.fds.pop())


class Ended(Exception):
    """The backend closed the connection."""


class RawClient:
    """One connection. A context manager that closes everything that came through it."""

    def __init__(self, runtime_dir: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.connect(str(runtime_dir / "backend.sock"))
        except OSError:
            self.socket.close()
            raise
        self.packets: list[Packet] = []
        self._next_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()
        for packet in self.packets:
            packet.close()

    def send(self, kind: str, **fields: Any) -> int:
        """Sends a request; returns its id."""
        self._next_id += 1
        self.send_raw(json.dumps({"type": kind, "id": self._next_id, **fields}).encode())
        return self._next_id

    def send_raw(self, packet: bytes) -> None:
        """Sends any bytes."""
        self.socket.send(packet)

    def receive(self, patience_s: float = PATIENCE_S) -> Packet:
        """The next packet; raises Ended at the end of the connection."""
        if not select.select([self.socket], [], [], patience_s)[0]:
            raise TimeoutError("the backend said nothing")
        room = socket.CMSG_SPACE(64 * 4)
        try:
            data, control, _, _ = self.socket.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            raise Ended from None
        fds = array.array("i")
        for _, _, part in control:
            fds.frombytes(part)
        if not data:
            raise Ended
        packet = Packet(json.loads(data), fds.tolist())
        self.packets.append(packet)
        return packet

    def expect(self, kind: str, **fields: Any) -> Packet:
        """The next packet, which must be of that kind with those fields."""
        packet = self.receive()
        assert packet["type"] == kind, packet
        for key, value in fields.items():
            assert packet[key] == value, (key, packet)
        return packet

    def expect_end(self) -> None:
        """The backend closes the connection, whatever it says before."""
        with contextlib.suppress(Ended):
            while True:
                self.receive()

    def is_silent(self) -> bool:
        """Nothing has come. Only proves something after an exchange that came later."""
        return not select.select([self.socket], [], [], 0)[0]

    def open(self, name: str | None = None, **fields: Any) -> Packet:
        """Becomes an endpoint."""
        wanted = self.send("open", version=1, name=name, **fields)
        return self.expect("opened", id=wanted)

    def round_trip(self) -> None:
        """Afterwards everything sent before has been handled, and the answers are here first."""
        wanted = self.send("connect", target="nobody-is-called-so", timeout_ms=0)
        self.expect("error", id=wanted, code="not_found")


@dataclass
class End:
    """One end of a channel, mapped."""

    outgoing: mmap.mmap
    incoming: mmap.mmap
    packet: Packet

    @property
    def bell(self) -> int:
        """The doorbell."""
        return self.packet.fds[2]

    @property
    def process(self) -> int:
        """The other end's process."""
        return self.packet.fds[3]


@contextlib.contextmanager
def mapped(packet: Packet) -> Iterator[End]:
    """The end of a channel that a packet brought."""
    assert len(packet.fds) == 4, packet
    with (
        mmap.mmap(packet.fds[0], CHANNEL_FILE_BYTES) as outgoing,
        mmap.mmap(packet.fds[1], CHANNEL_FILE_BYTES, prot=mmap.PROT_READ) as incoming,
    ):
        yield End(outgoing, incoming, packet)


def check_end(packet: Packet, direction: int) -> None:
    """The files of an end are sealed, of the right size, and opened for what they are for."""
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    for fd, mode in zip(packet.fds[:2], (os.O_RDWR, os.O_RDONLY), strict=True):
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & seals == seals
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == mode
        assert os.fstat(fd).st_size == CHANNEL_FILE_BYTES
    for fd, way in zip(packet.fds[:2], (direction, 1 - direction), strict=True):
        header = struct.unpack("<8sIIQIIIIQI12x", os.pread(fd, 64, 0))
        expected = (0, packet["channel"], 512, 64, 0x1000, 0x10000, 0x410000, way)
        assert header == (b"DIOLKOS\x01", 1, *expected)


def ring(bell: int) -> None:
    """Rings the other end."""
    with socket.socket(fileno=os.dup(bell)) as sock:
        sock.send(b"!", socket.MSG_DONTWAIT)


def is_readable(fd: int, patience_s: float = 0.0) -> bool:
    """Whether a descriptor is readable, or becomes so in time."""
    return bool(select.select([fd], [], [], patience_s)[0])


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked child, which then ends without running any more of the tests;
    returns its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def exit_code_of(child: int) -> int:
    """Waits for a child; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
