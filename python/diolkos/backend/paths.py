# SPDX-License-Identifier: Apache-2.0
"""The runtime directory: where the backend listens, and what makes that place trustworthy.

It is the first of these that applies, for backends and endpoints alike::

    --runtime-dir D, or runtime_dir=D in a program
    $DIOLKOS_RUNTIME_DIR
    $XDG_RUNTIME_DIR/diolkos           if $XDG_RUNTIME_DIR is an existing directory
    /tmp/diolkos-<uid>

and holds `backend.sock`, `backend.lock` (held by `flock` while a backend runs) and `backend.log`.

Whoever can write to this directory can pose as the backend, and whoever poses as the backend can
read every message. So both sides refuse a directory that is a symbolic link, that others can enter
or that a group can write to, and one that somebody else owns. The one exception: an endpoint that
was *told* its directory (the first two rows) takes that word for its owner, which is how it reaches
a backend that another user runs for a group.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SOCKET_NAME = "backend.sock"
LOCK_NAME = "backend.lock"
LOG_NAME = "backend.log"
# `sun_path` has 108 bytes, one of them the final zero.
_SOCKET_PATH_BYTES_MAX = 107


class RuntimeDirError(Exception):
    """The runtime directory cannot be used; `hint` says what would help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Choice:
    """Which directory, and whether somebody named it."""

    path: Path
    named: bool


def choose(option: str | os.PathLike[str] | None = None) -> Choice:
    """The runtime directory by the rules above. Nothing is created or looked into."""
    if option is not None:
        return Choice(Path(option).absolute(), named=True)
    if named := os.environ.get("DIOLKOS_RUNTIME_DIR"):
        return Choice(Path(named).absolute(), named=True)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.path.isabs(session) and os.path.isdir(session):
        return Choice(Path(session) / "diolkos", named=False)
    return Choice(Path(f"/tmp/diolkos-{os.geteuid()}"), named=False)


class RuntimeDir:
    """An open, trusted runtime directory. Close it after use."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def socket_address(self) -> str:
        """The path to bind or connect to. A long one goes round by the open directory."""
        plain = str(self.path / SOCKET_NAME)
        if len(os.fsencode(plain)) <= _SOCKET_PATH_BYTES_MAX:
            return plain
        return f"/proc/self/fd/{self.descriptor}/{SOCKET_NAME}"

    def lock(self) -> int | None:
        """The descriptor that holds the lock of the directory, None when a backend has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(LOCK_NAME, flags, 0o600, dir_fd=self.descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def remove_socket(self) -> None:
        """Removes the socket, ours or a dead backend's. Only for who holds the lock."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=self.descriptor)

    def close(self) -> None:
        """Closes the directory."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_for_backend(choice: Choice, group: int | None = None) -> RuntimeDir:
    """Creates the directory if need be and opens it for a backend whose clients may also be the
    members of `group`; raises RuntimeDirError."""
    try:
        os.mkdir(choice.path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RuntimeDirError(
            f"the runtime directory {choice.path} cannot be created: {error.strerror}",
            "create its parent, or name another with --runtime-dir or DIOLKOS_RUNTIME_DIR",
        ) from None
    directory = _open(choice.path)
    try:
        status = _checked(directory, choice.path)
        if status.st_uid != os.geteuid():
            raise _foreign(choice.path, status.st_uid)
        if group is None:
            if status.st_mode & 0o070:
                raise RuntimeDirError(
                    f"the runtime directory {choice.path} is open to its group",
                    f"run `chmod 700 {choice.path}`, or let a group in with --group",
                )
        else:
            os.fchown(directory, -1, group)
            os.fchmod(directory, 0o750)
    except OSError as error:
        os.close(directory)
        raise RuntimeDirError(
            f"the runtime directory {choice.path} cannot be given to group {group}: "
            f"{error.strerror}",
            "run the backend as root or as a member of that group",
        ) from None
    except BaseException:
        os.close(directory)
        raise
    return RuntimeDir(choice.path, directory)


def open_for_client(choice: Choice) -> RuntimeDir | None:
    """Opens the directory for one who wants to connect. None when it does not exist; raises
    RuntimeDirError when it cannot be trusted."""
    try:
        directory = _open(choice.path)
    except FileNotFoundError:
        return None
    try:
        status = _checked(directory, choice.path)
        if status.st_uid != os.geteuid() and not choice.named:
            raise _foreign(choice.path, status.st_uid)
    except BaseException:
        os.close(directory)
        raise
    return RuntimeDir(choice.path, directory)


def _open(path: Path) -> int:
    """Raises FileNotFoundError, or RuntimeDirError for what cannot be used."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            reason = "is a symbolic link" if path.is_symlink() else "is not a directory"
        else:
            reason = f"cannot be opened: {error.strerror}"
        raise RuntimeDirError(
            f"the runtime directory {path} {reason}",
            "name a directory of your own with --runtime-dir or DIOLKOS_RUNTIME_DIR",
        ) from None


def _checked(directory: int, path: Path) -> os.stat_result:
    """What both sides demand of the mode; raises RuntimeDirError."""
    status = os.fstat(directory)
    if stat.S_IMODE(status.st_mode) & 0o027:
        raise RuntimeDirError(
            f"the runtime directory {path} has mode {stat.S_IMODE(status.st_mode):04o}: "
            "others could pose as the backend",
            f"name a directory of yours, or run `chmod 700 {path}` if that is one",
        )
    return status


def _foreign(path: Path, owner: int) -> RuntimeDirError:
    return RuntimeDirError(
        f"the runtime directory {path} belongs to user {owner}, not to you",
        "name a directory of your own with --runtime-dir or DIOLKOS_RUNTIME_DIR",
    )
