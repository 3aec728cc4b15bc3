# SPDX-License-Identifier: Apache-2.0
"""The asking side of `info`, in pure Python: what `diolkos info` is made of.

An endpoint's counters are in its home file, of which the backend hands out a read-only descriptor.
`Home` reads them where they are: no endpoint and no backend is disturbed, however often one looks.
Each counter is one aligned 64-bit word, read by itself: two counters of one line may be of
different moments.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import struct
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from diolkos.backend import memory, paths
from diolkos.backend.limits import PACKET_BYTES_MAX
from diolkos.backend.memory import HOME_FILE_BYTES
from diolkos.backend.messages import (
    BackendInfo,
    ChannelInfo,
    EndpointInfo,
    ErrorReply,
    Info,
    InfoPage,
)

ANSWER_TIMEOUT_S = 10.0
_HOMES_PER_PACKET_MAX = 64
_COUNTERS_OFFSET = 0x1000
_LINE = struct.Struct("<8Q")
ENDPOINT_COUNTERS = (
    "channels_used",
    "wakeups",
    "sleeps",
    "polls_with_work",
    "unexpected_messages_now",
    "unexpected_bytes_now",
    "posted_now",
    "requests_now",
)
CHANNEL_COUNTERS = (
    "tx_messages",
    "tx_bytes",
    "rx_messages",
    "rx_bytes",
    "doorbells_rung",
    "tx_queued_now",
    "rx_unexpected_now",
)
_SLOTS = 1000


class NoBackend(Exception):
    """There is no backend to ask; `hint` says how to get one."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Home:
    """The counters of one endpoint, live. Owns the descriptor it is given until `close`."""

    def __init__(self, descriptor: int) -> None:
        try:
            self._map = mmap.mmap(descriptor, HOME_FILE_BYTES, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)

    def endpoint(self) -> dict[str, int]:
        """The endpoint's own counters, by name."""
        return dict(zip(ENDPOINT_COUNTERS, self._line(0), strict=True))

    def channels(self) -> dict[int, dict[str, int]]:
        """The counters of each channel, by channel number."""
        found: dict[int, dict[str, int]] = {}
        for slot in range(1, _SLOTS + 1):
            number, *counters = self._line(slot)
            if number:
                found[number] = dict(zip(CHANNEL_COUNTERS, counters, strict=True))
        return found

    def _line(self, index: int) -> tuple[int, ...]:
        return _LINE.unpack_from(self._map, _COUNTERS_OFFSET + index * _LINE.size)

    def close(self) -> None:
        """Lets the memory go."""
        self._map.close()


@dataclass
class Snapshot:
    """One answer to `info`, with the homes that its counters are read from."""

    backend: BackendInfo
    endpoints: list[tuple[EndpointInfo, Home]]
    channels: list[ChannelInfo]

    def close(self) -> None:
        """Lets all homes go."""
        for _, home in self.endpoints:
            home.close()


def query(option: str | os.PathLike[str] | None = None) -> Snapshot:
    """Asks the backend of the runtime directory (`option`, or by the rules of `paths`).

    Raises NoBackend, paths.RuntimeDirError, or OSError when the backend does not answer.
    """
    with connect(option) as sock:
        sock.settimeout(ANSWER_TIMEOUT_S)
        # A backend that turns us away has closed already, and its reason is there to be read.
        with contextlib.suppress(BrokenPipeError):
            sock.send(msgspec.json.encode(Info(id=1)))
        return _receive(sock)


def connect(option: str | os.PathLike[str] | None = None) -> socket.socket:
    """A connection to the backend; raises NoBackend or paths.RuntimeDirError.

    Whoever listens is the directory's owner (or root): nobody else can put a socket there.
    """
    choice = paths.choose(option)
    absent = NoBackend(
        f"no backend is running in {choice.path}",
        "the first endpoint starts one; `diolkos backend` does so by hand",
    )
    directory = paths.open_for_client(choice)
    if directory is None:
        raise absent
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with directory:
            sock.connect(directory.socket_address())
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        raise absent from None
    except PermissionError:
        sock.close()
        raise NoBackend(f"the backend in {choice.path} is not for this user") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _receive(sock: socket.socket) -> Snapshot:
    """Reads pages until the last; raises NoBackend when the backend refuses or goes away."""
    backend: BackendInfo | None = None
    endpoints: list[tuple[EndpointInfo, Home]] = []
    channels: list[ChannelInfo] = []
    decoder = msgspec.json.Decoder(InfoPage | ErrorReply)
    while True:
        try:
            packet, control = _receive_packet(sock)
        except ConnectionResetError:
            # It closed without having read all of ours. What it sent before comes after.
            packet, control = _receive_packet(sock)
        with memory.Descriptors() as held:
            for descriptor in _descriptors(control):
                held.add(descriptor)
            if not packet:
                raise NoBackend("the backend went away")
            page = decoder.decode(packet)
            if isinstance(page, ErrorReply):
                raise NoBackend(f"the backend refuses: {page.message}", page.hint)
            homes = held.release()
        endpoints += zip(page.endpoints, map(Home, homes), strict=True)
        channels += page.channels
        backend = page.backend or backend
        if not page.more:
            break
    if backend is None:
        raise NoBackend("the backend's answer lacks the backend")
    return Snapshot(backend, endpoints, channels)


_Control: TypeAlias = list[tuple[int, int, bytes]]


def _receive_packet(sock: socket.socket) -> tuple[bytes, _Control]:
    """A packet and its control messages; raises OSError."""
    room = socket.CMSG_SPACE(_HOMES_PER_PACKET_MAX * array.array("i").itemsize)
    packet, control, _, _ = sock.recvmsg(PACKET_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    return packet, control


def _descriptors(control: _Control) -> list[int]:
    """The descriptors in a packet's control messages."""
    found = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
