# SPDX-License-Identifier: Apache-2.0
"""Where automatic numbers start, so that a newcomer never gets the number of a guest who is about
to come back.

A backend that is killed leaves guests behind who still have their numbers; some of them come back
to its successor at once, others after hours of computing. So the lock file, which outlives a
backend, holds one mark: every number at or above it has never been given to anybody who could come
back. A successor gives out numbers from the mark on, and a backend that ends without guests takes
the mark back to 0.

When the mark has passed the last number, or the file cannot be written (a full file system), a
newcomer may take such a number after all. The guest is then told that it is in use, and asks again.
"""

from __future__ import annotations

import contextlib
import os

from diolkos.backend.limits import ENDPOINT_NUMBER_MAX

_MARK_BYTES_MAX = 16


class Numbering:
    """The mark in the open file `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # The first number that this backend gives out by itself.
        self.start = self._mark = self._read()

    def note(self, number: int) -> None:
        """A number was given to an endpoint, by itself or as wished."""
        if number >= self._mark:
            self._write(number + 1)

    def forget(self) -> None:
        """The backend ends, and nobody is left who could come back."""
        self._write(0)

    def _read(self) -> int:
        """The mark that a predecessor left; 0 if there is none or it makes no sense."""
        try:
            mark = int(os.pread(self._descriptor, _MARK_BYTES_MAX, 0))
        except (OSError, ValueError):
            return 0
        return mark if 0 <= mark <= ENDPOINT_NUMBER_MAX else 0

    def _write(self, mark: int) -> None:
        self._mark = mark
        # Of one length always, so that it is replaced as a whole.
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, b"%-15d\n" % mark, 0)
