# SPDX-License-Identifier: Apache-2.0
"""What machine this is, how it behaves while we measure, and whether to believe it.

Three things are watched. The bare hand-over of one cache line between the two processors, taken
between slices, says what speed the machine is in: on a virtual machine it moves by a factor of
three within a minute. The load of others is what the processors did that was not ours, together
with what the hypervisor took away (``steal``). And the description names processor, kernel and
pinning, so that a table can be read a year later.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diolkos.bench.processes import process_table, with_descendants
from diolkos.bench.slices import spread

#: Above these a run says of itself that the machine was too busy to believe.
OTHER_LOAD_MAX = 0.2
CACHE_LINE_RATIO_MAX = 3.0

#: Round trips of one probe of the cache line: 0.1 ms on a good day, 1 ms in the worst speed state.
PROBE_ROUND_TRIPS = 2000

#: Columns of /proc/stat in which a processor works, or is taken away: user, nice, system, irq,
#: softirq, steal. (Guest time is in user already.)
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)

CacheLineProbe = Callable[[int, int, int], float]


@dataclass(frozen=True)
class Machine:
    """The machine and the two processors that the sides are pinned to."""

    model: str
    kernel: str
    processor_count: int
    pinning: tuple[int, int]


def this_machine() -> Machine:
    """Describes this machine. With one processor both sides share it, and doubts() says so."""
    allowed = sorted(os.sched_getaffinity(0))
    return Machine(
        model=_processor_model(),
        kernel=platform.release(),
        processor_count=os.cpu_count() or 1,
        pinning=(allowed[0], allowed[min(1, len(allowed) - 1)]),
    )


def _processor_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


@dataclass
class LoadMeter:
    """How many processors others kept busy while the meter ran.

    It runs only while no process of ours starts or ends: the time of one that ends is in nobody's
    account any more and would count as somebody else's.
    """

    other_s: float = 0.0
    wall_s: float = 0.0
    _begin: tuple[float, float, dict[int, float]] | None = None

    def __enter__(self) -> LoadMeter:
        self._begin = (time.monotonic(), _busy_s(), _our_cpu_s())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._begin is not None
        begin_wall_s, begin_busy_s, begin_ours_s = self._begin
        ours = sum(cpu_s - begin_ours_s.get(pid, 0.0) for pid, cpu_s in _our_cpu_s().items())
        self.other_s += max(0.0, _busy_s() - begin_busy_s - ours)
        self.wall_s += time.monotonic() - begin_wall_s

    def other_load(self) -> float:
        """In processors: 0.5 is half of one processor."""
        return self.other_s / self.wall_s if self.wall_s > 0 else 0.0


def _busy_s() -> float:
    first_line = Path("/proc/stat").read_text().partition("\n")[0]
    columns = [int(column) for column in first_line.split()[1:]]
    return sum(columns[i] for i in _BUSY_COLUMNS) / os.sysconf("SC_CLK_TCK")


def _our_cpu_s() -> dict[int, float]:
    table = process_table()
    return {pid: table[pid].cpu_s for pid in with_descendants([os.getpid()], table)}


@dataclass
class Watch:
    """Everything that was seen of the machine during one run."""

    machine: Machine
    probe: CacheLineProbe
    meter: LoadMeter = field(default_factory=LoadMeter)
    cache_line_ns: list[float] = field(default_factory=list)

    def probe_cache_line(self) -> None:
        """Takes one sample; called while every contender sleeps."""
        first, second = self.machine.pinning
        if first != second:
            self.cache_line_ns.append(self.probe(first, second, PROBE_ROUND_TRIPS))

    def doubts(self) -> list[str]:
        """Why this run should not be believed, one sentence each; usually none."""
        found: list[str] = []
        other_load = self.meter.other_load()
        if other_load > OTHER_LOAD_MAX:
            found.append(f"others kept {other_load:.2f} processors busy")
        if len(self.cache_line_ns) >= 10:
            seen = spread(self.cache_line_ns)
            if seen.p90 > CACHE_LINE_RATIO_MAX * seen.p10:
                found.append(
                    f"the hand-over of a cache line moved from {seen.p10:.0f} to {seen.p90:.0f} ns"
                )
        if self.machine.pinning[0] == self.machine.pinning[1]:
            found.append("there is one processor only, and both sides share it")
        return found

    def row(self, command: str) -> dict[str, Any]:
        """The ``machine`` row of the JSON output; ``command`` is what the user typed."""
        doubts = self.doubts()
        cache_line = spread(self.cache_line_ns).as_json(1) if self.cache_line_ns else None
        return {
            "bench": "machine",
            "cache_line_ns": cache_line,
            "other_load": round(self.meter.other_load(), 3),
            "machine": self.machine.model,
            "kernel": self.machine.kernel,
            "cpus": self.machine.processor_count,
            "pinning": list(self.machine.pinning),
            "command": command,
            "believable": not doubts,
            "doubts": doubts,
        }
