# SPDX-License-Identifier: Apache-2.0
"""The backend's log: one JSON object a line, of bounded size, deaf to shouting.

Every line has `time` (UTC), `level`, `event` and the fields of that event. Levels:

=======  ===================================================================================
error    the backend could not do what it should, through no fault of a client
warning  a client broke the rules, reached a limit, or was refused
info     the life of the backend, its endpoints and channels
=======  ===================================================================================

The file is `backend.log`; when it passes LOG_BYTES_MAX it becomes `backend.log.1` and a new one
starts, so the two together never hold more than twice that. Each source of lines (a user) may write
LINES_BURST lines at once and LINES_PER_S in the long run; what it says beyond that is counted and
reported when it calms down, so a flood neither fills the log nor flushes others out of it.

A file system that is full costs lines, which are counted too; never the backend.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import msgspec

from diolkos.backend.limits import TokenBucket

LOG_BYTES_MAX = 1 << 20
LINES_BURST = 64
LINES_PER_S = 8.0
# Sources whose rate is remembered; the longest silent one is forgotten first.
SOURCES_MAX = 256

Level: TypeAlias = Literal["error", "warning", "info"]
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Log:
    """Writes lines into a directory. `copy` is called with each line as well."""

    def __init__(
        self,
        directory: int,
        name: str,
        *,
        copy: Callable[[str], None] | None = None,
        bytes_max: int = LOG_BYTES_MAX,
    ) -> None:
        self._directory = directory
        self._name = name
        self._copy = copy
        self._bytes_max = bytes_max
        self._file: int | None = None
        self._size = 0
        self._lost = 0
        self._buckets: dict[int, TokenBucket] = {}
        self._suppressed: dict[int, int] = {}

    def info(self, event: str, **fields: object) -> None:
        """The ordinary life of the backend."""
        self._write("info", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """The backend itself could not do what it should."""
        self._write("error", event, fields)

    def client(self, level: Level, event: str, uid: int, **fields: object) -> None:
        """A line that a client of user `uid` caused: counted against that user's rate."""
        now = time.monotonic()
        bucket = self._buckets.pop(uid, None)
        if bucket is None:
            bucket = TokenBucket(LINES_BURST, LINES_PER_S, now)
            if len(self._buckets) >= SOURCES_MAX:
                oldest = next(iter(self._buckets))
                del self._buckets[oldest]
                self._suppressed.pop(oldest, None)
        # Taken out and put back, so that the dictionary's order is the order of last use.
        self._buckets[uid] = bucket
        if not bucket.take(now):
            self._suppressed[uid] = self._suppressed.get(uid, 0) + 1
            return
        if suppressed := self._suppressed.pop(uid, 0):
            self._write("warning", "lines suppressed", {"uid": uid, "lines": suppressed})
        self._write(level, event, {"uid": uid, **fields})

    def close(self) -> None:
        """Closes the file; a later line opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, level: Level, event: str, fields: dict[str, object]) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = msgspec.json.encode({"time": moment, "level": level, "event": event, **fields})
        if self._copy is not None:
            self._copy(line.decode())
        try:
            if self._lost:
                notice = {"time": moment, "level": "error", "event": "lines lost"}
                self._append(msgspec.json.encode({**notice, "lines": self._lost}))
                self._lost = 0
            self._append(line)
        except OSError:
            self._lost += 1

    def _append(self, line: bytes) -> None:
        """Raises OSError, and then leaves no half line behind."""
        if self._file is None:
            self._file = os.open(self._name, _FLAGS, 0o600, dir_fd=self._directory)
            self._size = os.fstat(self._file).st_size
        if self._size + len(line) + 1 > self._bytes_max and self._size > 0:
            self._turn_over()
        written = os.write(self._file, line + b"\n")
        if written != len(line) + 1:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise OSError("short write")
        self._size += written

    def _turn_over(self) -> None:
        """Starts a new file; the present one becomes the old one."""
        at = self._directory
        os.rename(self._name, self._name + ".1", src_dir_fd=at, dst_dir_fd=at)
        fresh = os.open(self._name, _FLAGS, 0o600, dir_fd=at)
        assert self._file is not None
        os.close(self._file)
        self._file = fresh
        self._size = 0
