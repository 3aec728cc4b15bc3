# SPDX-License-Identifier: Apache-2.0
"""What is to be measured, and what was: the values that pass between the parts of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diolkos.bench.contenders.base import Contender
from diolkos.bench.control import Operation
from diolkos.bench.slices import SLICE_LIMIT_S, SLICE_TARGET_S, Histogram


@dataclass(frozen=True)
class Plan:
    """What to measure. The first contender is the reference; it must not fail."""

    operation: Operation
    sizes: Sequence[int]
    contenders: Sequence[Contender]
    rounds: int = 25
    #: Messages of a stream between two acknowledgements.
    window: int = 64
    #: Each size is also compared with the smallest one, which is the first.
    compares_sizes: bool = False
    #: Microseconds that the initiator sleeps before each round trip.
    pause_us: int = 0
    #: Both sides write their message anew before each round trip, outside of the time.
    touched: bool = False
    busy_neighbours: int = 0
    #: Also measured after each size, of contenders that know how, and compared with nobody.
    beside: Operation | None = None

    def slice_target_s(self) -> float:
        """Seconds that a slice aims at: longer where a slice holds few round trips."""
        crowded = self.busy_neighbours > 0 or self.pause_us > 0
        return 0.9 * SLICE_LIMIT_S if crowded else SLICE_TARGET_S


@dataclass
class Slice:
    """What one slice gave: a time for each iteration, or the rate of a stream."""

    times: Histogram | None = None
    messages_per_s: float = 0.0


@dataclass
class Result:
    """Everything that one contender gave for one size."""

    contender: Contender
    operation: Operation
    size: int
    library: str
    #: The road that was taken, which for ours may differ from the one asked for; None for rivals.
    road: str | None
    times: Histogram = field(default_factory=Histogram)
    #: Calls that each of the ``times`` stands for.
    calls: int = 1
    messages_per_s: list[float] = field(default_factory=list)
    #: Reference over this contender, one value for each pair of adjacent slices.
    ratios: list[float] = field(default_factory=list)
    ratios_p99: list[float] = field(default_factory=list)
    ratios_mean: list[float] = field(default_factory=list)
    #: This size over the smallest one, same contender, one value for each pair of slices.
    over_smallest: list[float] = field(default_factory=list)

    def add(self, piece: Slice) -> None:
        """Takes in one slice."""
        if piece.times is not None:
            self.times.add(piece.times)
        else:
            self.messages_per_s.append(piece.messages_per_s)

    def compare(self, reference: Slice, own: Slice) -> None:
        """Takes in the ratios of two adjacent slices."""
        if reference.times is None or own.times is None:
            self.ratios.append(reference.messages_per_s / own.messages_per_s)
            return
        theirs = own.times.percentiles((0.5, 0.99))
        ours = reference.times.percentiles((0.5, 0.99))
        # A time of 0 ns cannot be measured, but a coarse clock may report it.
        self.ratios.append(ours[0] / max(theirs[0], 1))
        self.ratios_p99.append(ours[1] / max(theirs[1], 1))
        self.ratios_mean.append(reference.times.mean() / max(own.times.mean(), 1.0))

    def compare_sizes(self, smallest: Slice, own: Slice) -> None:
        """Takes in the ratio of two adjacent slices of this contender at two sizes."""
        assert smallest.times is not None, "sizes are compared by their times"
        assert own.times is not None, "sizes are compared by their times"
        (below,) = smallest.times.percentiles((0.5,))
        (above,) = own.times.percentiles((0.5,))
        self.over_smallest.append(above / max(below, 1))
