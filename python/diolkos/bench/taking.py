# SPDX-License-Identifier: Apache-2.0
"""Taking a slice: the commands that a contender gets, and what its replies mean.

How long a slice shall be is learned from the ones before it. The first few are short; each tells
how many round trips the next one may have, so that a change of the machine's speed in the middle
of a run does not make slices longer than they may be.
"""

from __future__ import annotations

import time

from diolkos.bench.control import Command, Operation, seconds_from, times_from
from diolkos.bench.results import Plan, Result, Slice
from diolkos.bench.running import RunningContender
from diolkos.bench.slices import ITERATIONS_MIN, Histogram, next_iterations, warm_up_of

#: The C loops keep so many requests.
WINDOW_MAX = 4096

#: A verification pass carries about so many bytes, in so many messages at least and at most.
_VERIFY_BYTES = 4 << 20
_VERIFY_MESSAGES_MIN = 8
_VERIFY_MESSAGES_MAX = 256

#: Calibration ends when the next slice would be less than so much longer, or after some slices.
_CALIBRATED_GROWTH = 2
_CALIBRATION_SLICES_MAX = 8

#: Messages that wait for their receiver in one slice of the ``already there`` measure.
_READY_MESSAGES = 64
_READY_SLICES_PER_ROUND = 4

#: One-sided operations of up to so many bytes are too short to be timed alone.
_SHORT_BYTES = 64
_OPERATIONS_PER_BATCH = 100

#: One slice of tests: batches, each long enough that reading the clock costs it nothing.
_TEST_BATCHES = 32
_TESTS_PER_BATCH = 10_000


def batch_of(operation: Operation, size: int) -> int:
    """How many one-sided operations a time stands for."""
    short = size <= _SHORT_BYTES or operation is Operation.RDMA_ATOMIC
    return _OPERATIONS_PER_BATCH if short and operation.is_one_sided else 1


class SliceTaker:
    """Takes slices of any contender of a plan, and remembers how long theirs should be.

    All methods raise :class:`ContenderError`, which names the contender.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._iterations: dict[tuple[str, int], int] = {}

    def empty_result(self, running: RunningContender, size: int) -> Result:
        """A result to be filled."""
        return Result(
            contender=running.contender,
            operation=self._plan.operation,
            size=size,
            library=running.description.get("library", ""),
            road=running.description.get("road"),
            calls=batch_of(self._plan.operation, size),
        )

    def verify(self, running: RunningContender, size: int) -> None:
        """The pass that looks at every byte."""
        count = _VERIFY_BYTES // max(size, 1)
        count = max(_VERIFY_MESSAGES_MIN, min(_VERIFY_MESSAGES_MAX, count))
        window = self._plan.window
        if not self._plan.operation.takes_times:
            count = max(count // window, 1) * window
        running.run(Command(self._plan.operation, size, count, window, verify=True))

    def calibrate(self, running: RunningContender, size: int) -> None:
        """Learns how many iterations make a slice."""
        key = running.name, size
        timed = self._plan.operation.takes_times
        self._iterations[key] = ITERATIONS_MIN if timed else self._plan.window
        for _ in range(_CALIBRATION_SLICES_MAX):
            before = self._iterations[key]
            self.take(running, size)
            if self._iterations[key] < _CALIBRATED_GROWTH * before:
                return

    def is_calibrated(self, running: RunningContender, size: int) -> bool:
        """Whether :meth:`take` knows how long a slice shall be."""
        return (running.name, size) in self._iterations

    def take(self, running: RunningContender, size: int) -> Slice:
        """One timed slice."""
        plan, key = self._plan, (running.name, size)
        count = self._iterations[key]
        window = batch_of(plan.operation, size) if plan.operation.is_one_sided else plan.window
        begin = time.monotonic()
        command = Command(plan.operation, size, count, window, plan.pause_us, touched=plan.touched)
        payload = running.run(command)
        elapsed_s = time.monotonic() - begin
        target_s = plan.slice_target_s()
        if plan.operation.takes_times:
            times = times_from(payload)
            if not (plan.operation.is_one_sided or plan.touched):  # which leave something out
                elapsed_s = sum(times) * 1e-9 + count * plan.pause_us * 1e-6
            floor = 1 if plan.pause_us else ITERATIONS_MIN
            self._iterations[key] = next_iterations(count, elapsed_s, target_s, floor)
            return Slice(Histogram(times[0 if plan.pause_us else warm_up_of(count) :]))
        seconds = seconds_from(payload)
        following = next_iterations(count, seconds, target_s)
        self._iterations[key] = max(following // plan.window, 1) * plan.window
        return Slice(messages_per_s=count / seconds)

    def beside(self, running: RunningContender, size: int, operation: Operation) -> Result:
        """What is measured beside exchanges; no contender is compared."""
        result = self.empty_result(running, size)
        result.operation = operation
        if operation is Operation.ALREADY_THERE:
            slices = self._plan.rounds * _READY_SLICES_PER_ROUND
            command = Command(operation, size, _READY_MESSAGES)
        else:
            slices = self._plan.rounds
            command = Command(operation, size, _TEST_BATCHES, _TESTS_PER_BATCH)
            result.calls = _TESTS_PER_BATCH
        for _ in range(slices):
            payload = running.run(command)
            result.times.add(Histogram(times_from(payload)))
        return result
