# SPDX-License-Identifier: Apache-2.0
"""Board 0 as MX programs of this host see it: its nic id and its names.

The library computes the same (`crates/mx/src/board.rs`), because a C program has no Python. The nic
id is a MAC address as nobody sells one, made of the identity of the running kernel: all processes
and containers of a host agree on it, and hosts differ.

The board is called like the host unless somebody renamed it: then the name is the one line of the
file `mx-hostname` in the runtime directory, which the backend's owner alone can write to.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
from pathlib import Path

from diolkos.backend.paths import RuntimeDir

NAME_FILE = "mx-hostname"
BOARD = 0
#: 80 bytes, less the final zero and the `:0` that says which board.
_NAME_BYTES_MAX = 77
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


class BadName(ValueError):
    """No board can be called that."""


def nic_id() -> int:
    """The nic id of board 0."""
    state = 0xCBF2_9CE4_8422_2325
    for byte in _identity():
        state = (state ^ byte) * 0x100_0000_01B3 & 0xFFFF_FFFF_FFFF_FFFF
    state = (state ^ state >> 48) & 0xFFFF_FFFF_FFFF
    # Locally administered, and not a group.
    return state & 0xFCFF_FFFF_FFFF | 0x0200_0000_0000


def address_text(number: int) -> str:
    """A nic id as people read it: six pairs of digits."""
    return ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big"))


def host_name() -> str:
    """What this host calls itself."""
    return platform.node()


def given_name(directory: RuntimeDir | None) -> str | None:
    """What somebody called the board, or None."""
    if directory is None:
        return None
    try:
        descriptor = os.open(NAME_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory.descriptor)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        name = file.read(_NAME_BYTES_MAX + 1).decode(errors="replace").removesuffix("\n")
    return name if _is_good(name) else None


def name(directory: RuntimeDir | None) -> str:
    """The name of board 0, with the number of the board."""
    plain = given_name(directory) or _fitting(host_name())
    return f"{plain}:{BOARD}"


def rename(directory: RuntimeDir, new_name: str | None) -> None:
    """Calls the board something else, or with None as the host is called.

    Raises :class:`BadName`, or OSError.
    """
    if new_name is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NAME_FILE, dir_fd=directory.descriptor)
        return
    plain = new_name.removesuffix(f":{BOARD}")
    if not _is_good(plain):
        raise BadName(
            f"{new_name!r} is not 1 to {_NAME_BYTES_MAX} letters, digits, dots, dashes, underscores"
        )
    # Beside its place and moved there: whoever reads sees the old name or the new one.
    fresh = f"{NAME_FILE}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(fresh, flags, 0o644, dir_fd=directory.descriptor), "w") as file:
        file.write(f"{plain}\n")
    ends = {"src_dir_fd": directory.descriptor, "dst_dir_fd": directory.descriptor}
    os.replace(fresh, NAME_FILE, **ends)


def _identity() -> bytes:
    for path in (_BOOT_ID, _MACHINE_ID):
        with contextlib.suppress(OSError):
            return path.read_bytes()
    return host_name().encode()


def _is_good(plain: str) -> bool:
    return len(plain.encode()) <= _NAME_BYTES_MAX and _NAME.fullmatch(plain) is not None


def _fitting(plain: str) -> str:
    return plain.encode()[:_NAME_BYTES_MAX].decode(errors="ignore")
