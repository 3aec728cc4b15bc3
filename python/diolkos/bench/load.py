# SPDX-License-Identifier: Apache-2.0
"""Busy neighbours: processes that do nothing but compute, on the contenders' own processors.

``--load N`` measures what happens when the machine is shared. The neighbours run while slices
run. They are stopped (SIGSTOP) for the probes of the cache line between slices, which would
otherwise measure the scheduler.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diolkos.bench.processes import ProcessGroup

_SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    pass
"""


class Neighbours:
    """``count`` busy processes, laid round the two ``processors``; born stopped."""

    def __init__(self, group: ProcessGroup, count: int, processors: Sequence[int]) -> None:
        self._pids = [
            group.start(
                [sys.executable, "-S", "-c", _SPIN, str(processors[i % len(processors)])],
                os.environ,
            ).pid
            for i in range(count)
        ]
        self._signal(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lets the neighbours compute inside the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            os.kill(pid, number)
