# SPDX-License-Identifier: Apache-2.0
"""What the messages of a verification pass contain, for the sides written in Python.

The content of a message depends on the iteration, on the place in the message and on the
direction: it is a window that slides over a block of random bytes, one block each way. A message
that is stale, shifted, torn or sent back by mistake differs from the expected one, and both
filling and checking run at the speed of ``memcpy``.
"""

from __future__ import annotations

import random

#: The window slides over so many offsets before it repeats; the step is odd, so all are visited.
_OFFSETS = 4096
_STEP = 509


class VerificationError(Exception):
    """A message arrived with the wrong content."""


class Pattern:
    """The contents of all messages of ``size`` bytes in one direction (0 or 1)."""

    def __init__(self, size: int, direction: int) -> None:
        self._size = size
        self._block = random.Random(direction + 1).randbytes(size + _OFFSETS)

    def message(self, iteration: int) -> bytes:
        """The content of one message."""
        offset = iteration * _STEP % _OFFSETS
        return self._block[offset : offset + self._size]

    def fill(self, outgoing: memoryview, iteration: int) -> None:
        """Writes the content of a message to send."""
        outgoing[:] = self.message(iteration)

    def check(self, incoming: memoryview, iteration: int) -> None:
        """Compares every byte of a received message. Raises :class:`VerificationError`."""
        expected = self.message(iteration)
        received = bytes(incoming)
        if received != expected:
            places = (i for i, (a, b) in enumerate(zip(received, expected, strict=False)) if a != b)
            raise VerificationError(
                f"message {iteration} of {self._size} bytes is wrong from byte {next(places, 0)}"
            )
