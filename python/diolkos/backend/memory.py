# SPDX-License-Identifier: Apache-2.0
"""Memory and handles that the backend makes for others: channel files, homes, doorbells, pidfds.

A channel is two files, one per direction. The backend creates a file, writes its header, fixes its
size by seals, and gives the writable descriptor to the one side that writes and a descriptor opened
read-only to the other. The backend never maps a file: whatever a client does to its memory cannot
fault this process.

Who may write: a read-only descriptor cannot be made writable through `/proc` by another user,
because the file belongs to the backend's user and has mode 0400. A process of the *backend's own*
user could change that mode back; what it would gain is to scribble over a file that it only reads,
and whose writer never reads it. So no side may base a decision on its own outgoing file
(`docs/reference/channel.md`).

Sizes and the header are the layout of `docs/reference/channel.md`, little-endian throughout.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

CHANNEL_MAGIC = b"DIOLKOS\x01"
CHANNEL_VERSION = 1
CELL_COUNT = 512
CELL_BYTES = 64
CELLS_OFFSET = 0x1000
AREA_OFFSET = 0x10000
AREA_BYTES = 0x410000
CHANNEL_FILE_BYTES = AREA_OFFSET + AREA_BYTES
HOME_FILE_BYTES = 0x1000 + 0x10000
# magic, version, features, channel, cells, cell bytes, cells offset, area offset, bytes, direction
_CHANNEL_HEADER = struct.Struct("<8sIIQIIIIQI12x")
assert _CHANNEL_HEADER.size == 64
_ATTENTION = struct.Struct("<I")

# The size is fixed for ever, and so is that.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

CONNECTER_TO_TARGET = 0
TARGET_TO_CONNECTER = 1

# Values of the Linux interface that the standard library does not name.
_MFD_NOEXEC_SEAL = 0x0008
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
# `socket.getsockopt` takes at most 1024 bytes: 256 groups.
_PEERGROUPS_BYTES_MAX = 1024
_UCRED = struct.Struct("3i")

# What a process that has run out of something answers to a call that would make more of it.
EXHAUSTED = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN}
    | {errno.ETOOMANYREFS}
)


class Descriptors:
    """Descriptors that are closed together unless `release`d: nothing is left half-made."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def add(self, descriptor: int) -> int:
        """Takes ownership of `descriptor`, and returns it."""
        self._held.append(descriptor)
        return descriptor

    def release(self) -> list[int]:
        """Hands all of them to the caller."""
        held, self._held = self._held, []
        return held

    def close(self) -> None:
        """Closes all that are still held."""
        close_all(self.release())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def close_all(descriptors: list[int]) -> None:
    """Closes every one; a descriptor has nothing left to report."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _sealed_file(name: str, size: int, header: bytes, mode: int) -> int:
    """A memfd of exactly `size` bytes for ever, starting with `header`; raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        # Kernels before 6.3 do not know the flag.
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(name, flags)
    try:
        os.ftruncate(descriptor, size)
        if os.pwrite(descriptor, header, 0) != len(header):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fchmod(descriptor, mode)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def channel_file(channel: int, direction: int) -> int:
    """A new channel file, open for its writer; raises OSError."""
    header = _CHANNEL_HEADER.pack(
        CHANNEL_MAGIC,
        CHANNEL_VERSION,
        0,
        channel,
        CELL_COUNT,
        CELL_BYTES,
        CELLS_OFFSET,
        AREA_OFFSET,
        AREA_BYTES,
        direction,
    )
    return _sealed_file("diolkos-channel", CHANNEL_FILE_BYTES, header, 0o400)


def home_file() -> int:
    """A new home of an endpoint, open for writing; raises OSError."""
    return _sealed_file("diolkos-home", HOME_FILE_BYTES, _ATTENTION.pack(0), 0o400)


def read_only(descriptor: int) -> int:
    """A second, read-only opening of the same file; raises OSError."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def raise_attention(home: int, count: int) -> None:
    """Writes `count` where the endpoint looks for news of its control socket. Written after the
    packet, so whoever sees the new value finds the packet. A system without memory for that page
    loses the hint only: the socket is readable all the same."""
    with contextlib.suppress(OSError):
        os.pwrite(home, _ATTENTION.pack(count & 0xFFFF_FFFF), 0)


def doorbells() -> tuple[int, int]:
    """Two doorbells that ring each other: datagram sockets, each an open file of its own, so that
    nothing done to the one can make a call on the other wait. Raises OSError."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    return a.detach(), b.detach()


def channel_end(
    held: Descriptors, own: int, other: int, doorbell: int, process: int | None
) -> list[int]:
    """The descriptors of one end, in the order of the protocol: outgoing (read and write),
    incoming (read-only), its doorbell, the process of the other end.

    `own` and `other` are the files that the two ends write. `own` and `doorbell` become part of the
    result; of the rest there are copies, which belong to `held`. Raises OSError.
    """
    end = [own, held.add(read_only(other)), doorbell]
    if process is not None:
        end.append(held.add(duplicate(process)))
    return end


def duplicate(descriptor: int) -> int:
    """A second descriptor of the same opening; raises OSError."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)


@dataclass(frozen=True)
class Credentials:
    """Who the kernel says is at the other end of a socket, when it connected."""

    pid: int
    uid: int
    gids: frozenset[int]


def peer_credentials(sock: socket.socket) -> Credentials:
    """The kernel's word on the other end of `sock`; raises OSError."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    gids = {gid}
    # More groups than fit are treated as no supplementary groups: less access, never more.
    with contextlib.suppress(OSError):
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PEERGROUPS_BYTES_MAX)
        gids.update(each for (each,) in _group_ids(packed))
    return Credentials(pid=pid, uid=uid & 0xFFFF_FFFF, gids=frozenset(gids))


def _group_ids(packed: bytes) -> Iterator[tuple[int]]:
    whole = len(packed) - len(packed) % 4
    return struct.iter_unpack("=I", packed[:whole])


def peer_process(sock: socket.socket, pid: int) -> int | None:
    """A handle that becomes readable when the other end's process is gone.

    None where there is no such thing: an old kernel and a process in another PID namespace.
    Raises ProcessLookupError when the process has gone already, OSError otherwise.
    """
    try:
        descriptor = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENODATA):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
        if error.errno != errno.ENOPROTOOPT:
            raise
        # Before Linux 6.5. Between the connect and here the number may have changed hands; the
        # worst outcome is that a peer's death is noticed through its socket only.
        return os.pidfd_open(pid) if pid > 0 else None
    os.set_inheritable(descriptor, False)
    return descriptor


def own_process() -> int:
    """A handle of this process, for those whose channel ends in it; raises OSError."""
    return os.pidfd_open(os.getpid())


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
