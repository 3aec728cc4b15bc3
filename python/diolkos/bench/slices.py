# SPDX-License-Identifier: Apache-2.0
"""Turns, percentiles and ratios: the arithmetic of a comparison, without a clock or a process.

A virtual machine changes its speed between slices of a second, by a factor of two or three. Two
contenders measured one after the other for a second each are therefore not comparable, and an
average over a minute hides which of them met the slow state. So contenders take turns::

    round 0:   ours A   ours B   ours C        pairs of adjacent slices;
    round 1:   A ours   B ours   C ours        every other round turned round,
    round 2:   ours A   ours B   ours C        so that a drift favours nobody

Each slice lasts at most 50 ms, and a ratio is formed only inside a pair: the median of our slice
over the median of the other. The ratios of all rounds are then reported as p10, p50 and p90.

Percentiles are nearest-rank on what was measured: no value is reported that did not occur.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

#: What a slice aims at, and what it may not pass.
SLICE_TARGET_S = 0.020
SLICE_LIMIT_S = 0.050

#: Round trips at the start of a slice that are not counted: the two sides just woke up.
WARM_UP_ITERATIONS = 16

#: A slice has at least so many counted round trips, whatever it costs.
ITERATIONS_MIN = 4
ITERATIONS_MAX = 1_000_000


@dataclass(frozen=True)
class Pair:
    """Two adjacent slices: of the reference contender and of one rival."""

    rival: str
    reference_first: bool


def turns(rivals: Sequence[str], rounds: int) -> Iterator[Pair]:
    """The pairs of a comparison in the order in which they are taken."""
    for number in range(rounds):
        for rival in rivals:
            yield Pair(rival, reference_first=number % 2 == 0)


def warm_up_of(iterations: int) -> int:
    """How many of the first round trips of a slice of ``iterations`` are dropped."""
    return min(WARM_UP_ITERATIONS, iterations // 4)


def next_iterations(
    iterations: int, elapsed_s: float, target_s: float = SLICE_TARGET_S, floor: int = ITERATIONS_MIN
) -> int:
    """How long the next slice shall be, after one of ``iterations`` took ``elapsed_s`` seconds.

    It aims at ``target_s`` and grows at most eightfold at a time, because the first slices are
    short and tell little; it shrinks as fast as it must.
    """
    per_iteration_s = max(elapsed_s, 1e-9) / max(iterations, 1)
    wanted = int(target_s / per_iteration_s)
    return max(floor, min(wanted, iterations * 8, ITERATIONS_MAX))


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile of values in ascending order. Raises ValueError for none."""
    if not ordered:
        raise ValueError("a percentile of no values")
    return ordered[_rank(len(ordered), fraction) - 1]


def _rank(count: int, fraction: float) -> int:
    """The one-based nearest rank of ``fraction`` among ``count`` values."""
    # The tiny subtraction undoes what binary fractions add: 0.7 of 10 is rank 7, not 8.
    return max(1, min(count, math.ceil(count * fraction - 1e-9)))


@dataclass(frozen=True)
class Spread:
    """How a handful of values scatter."""

    p10: float
    p50: float
    p90: float

    def as_json(self, digits: int = 4) -> dict[str, float]:
        """The object of the JSON rows."""
        return {
            "p10": round(self.p10, digits),
            "p50": round(self.p50, digits),
            "p90": round(self.p90, digits),
        }


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value, in any order."""
    ordered = sorted(values)
    return Spread(*(percentile(ordered, fraction) for fraction in (0.1, 0.5, 0.9)))


class Histogram:
    """How often each time in nanoseconds occurred: small, mergeable, and exact.

    A comparison takes tens of millions of times. Most are one of a few hundred values, so
    counting them costs a tenth of sorting them.
    """

    def __init__(self, times_ns: Iterable[int] = ()) -> None:
        self._counts = Counter(times_ns)

    def add(self, other: Histogram) -> None:
        """Takes in all times of ``other``."""
        self._counts.update(other._counts)

    def __len__(self) -> int:
        return self._counts.total()

    def percentiles(self, fractions: Sequence[float]) -> list[int]:
        """The nearest-rank percentiles for ascending fractions. Raises ValueError for no times."""
        total = len(self)
        if total == 0:
            raise ValueError("percentiles of no times")
        found: list[int] = []
        below = 0
        for value, count in sorted(self._counts.items()):
            below += count
            while len(found) < len(fractions) and below >= _rank(total, fractions[len(found)]):
                found.append(value)
        return found

    def mean(self) -> float:
        """The mean time in nanoseconds."""
        return sum(value * count for value, count in self._counts.items()) / len(self)


@dataclass(frozen=True)
class Latency:
    """A distribution of latencies, in microseconds."""

    min: float
    p50: float
    p99: float
    p999: float
    max: float
    mean: float
    iterations: int

    @classmethod
    def of(cls, histogram: Histogram, divisor: int = 2) -> Latency:
        """The distribution of the times in ``histogram`` over ``divisor`` (2: half a trip)."""
        scale = 1e-3 / divisor
        least, p50, p99, p999, most = (
            value * scale for value in histogram.percentiles((0.0, 0.5, 0.99, 0.999, 1.0))
        )
        return cls(least, p50, p99, p999, most, histogram.mean() * scale, len(histogram))

    def as_json(self) -> dict[str, float]:
        """The ``half_rtt_us`` object of the JSON rows."""
        return {
            name: round(getattr(self, name), 4) for name in ("min", "p50", "p99", "p999", "max")
        }


def megabytes_per_second(size: int, seconds_per_message: float) -> float:
    """Bandwidth in 10^6 bytes a second; 0 for messages without bytes."""
    return size / seconds_per_message / 1e6 if seconds_per_message > 0 else 0.0
