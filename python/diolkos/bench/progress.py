# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees meanwhile: a bar on stderr, and sentences between its lives."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_PERIOD_S = 0.1
_BAR_CELLS = 24


class ProgressBar:
    """One line that is drawn over and over; nothing at all when stderr is not a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._drawn = False
        self._next_s = 0.0

    def step(self, done: int, total: int, what: str) -> None:
        """Shows that ``done`` of ``total`` steps are over; cheap enough for every slice."""
        now = time.monotonic()
        if not self._shown or now < self._next_s:
            return
        self._next_s = now + _PERIOD_S
        filled = _BAR_CELLS * done // max(total, 1)
        bar = "#" * filled + "." * (_BAR_CELLS - filled)
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{f'[{bar}] {what}'[:width]}")
        self._stream.flush()
        self._drawn = True

    def talk(self, sentence: str) -> None:
        """Prints a sentence on a line of its own."""
        self.clear()
        print(sentence, file=self._stream, flush=True)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False
