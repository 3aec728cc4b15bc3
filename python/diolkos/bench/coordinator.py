# SPDX-License-Identifier: Apache-2.0
"""The coordinator: brings the contenders up, gives them turns, and keeps what they measured.

For each size, in this order::

    every contender   a verification pass: each byte of each message, both ways, no clock
    every contender   a few slices of growing length, to learn how many round trips 20 ms are
    rounds            pairs of adjacent slices (slices.turns), and between pairs one probe of the
                      bare cache line; all other contenders sleep

The first contender of a plan is the reference that all ratios are formed against: ours. A rival
that fails is reported and left out of the rest of the run; one that cannot carry a size is left
out of that size. A message with the wrong content ends the run, whoever carried it: a comparison
with a broken contender is worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import TracebackType

from diolkos.bench.backend import PrivateBackend
from diolkos.bench.contenders.base import Contender, Workspace
from diolkos.bench.control import Fault
from diolkos.bench.load import Neighbours
from diolkos.bench.machine import Watch
from diolkos.bench.native import CompileError
from diolkos.bench.processes import ProcessGroup
from diolkos.bench.results import Plan, Result, Slice
from diolkos.bench.running import ContenderError, RunningContender
from diolkos.bench.scratch import scratch_directory
from diolkos.bench.slices import Pair, turns
from diolkos.bench.taking import SliceTaker

_SHARED_MEMORY = Path("/dev/shm")

Talk = Callable[[str], None]
Progress = Callable[[int, int, str], None]


class Coordinator:
    """A run of one plan; a context manager that leaves no process and no file.

    ``talk`` gets sentences for the user, ``progress`` steps done, steps in all, and what is done.
    """

    def __init__(self, plan: Plan, watch: Watch, talk: Talk, progress: Progress) -> None:
        self._plan = plan
        self._watch = watch
        self._talk = talk
        self._progress = progress
        self._taker = SliceTaker(plan)
        self._stack = ExitStack()
        self._running: dict[str, RunningContender] = {}
        self._neighbours: Neighbours | None = None

    def __enter__(self) -> Coordinator:
        """Starts all contenders. Raises :class:`ContenderError` when the reference does not."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is None:
                for running in self._running.values():
                    running.stop()

    def measure(self) -> Iterator[list[Result]]:
        """The results, size by size. Raises :class:`ContenderError`."""
        for number, size in enumerate(self._plan.sizes):
            yield self._measure_size(size, number)
            if self._plan.beside is not None:
                yield [
                    self._taker.beside(running, size, self._plan.beside)
                    for running in self._running.values()
                    if self._plan.beside in running.contender.operations
                ]

    # Bringing up.

    def _start(self) -> None:
        # Undone in the opposite order: the processes end before their files are removed.
        directory = scratch_directory(self._stack)
        shared = scratch_directory(self._stack, _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
        self._stack.callback(self._remove_segments)
        group = self._stack.enter_context(ProcessGroup())
        wanted = self._plan.contenders
        runtime_directory = None
        if any(each.needs_backend and each.missing() is None for each in wanted):
            runtime_directory = PrivateBackend(group, directory).start()
        for number, contender in enumerate(wanted):
            self._progress(number, len(wanted), f"starting {contender.name}")
            own = directory / str(number)
            own.mkdir()
            workspace = Workspace(
                own, shared, self._plan.window, self._plan.operation, runtime_directory
            )
            if self._can_take_part(contender):
                self._bring_up(RunningContender(contender, group, workspace))
        if self._plan.busy_neighbours:
            processors = self._watch.machine.pinning
            self._neighbours = Neighbours(group, self._plan.busy_neighbours, processors)

    def _can_take_part(self, contender: Contender) -> bool:
        """Says why not. Raises :class:`ContenderError` for the reference."""
        missing = contender.missing()
        if missing is not None:
            message = f"is missing: {missing.reason}; to install it: {missing.install}"
        elif self._plan.operation not in contender.operations:
            message = f"is left out: it has no {self._plan.operation.name.lower()} benchmark"
        else:
            return True
        if contender is self._plan.contenders[0]:
            raise ContenderError(contender.name, Fault.LIBRARY, message)
        self._talk(f"{contender.name} {message}")
        return False

    def _bring_up(self, running: RunningContender) -> None:
        """Starts one contender; a rival that does not come up is talked about and left out."""
        self._stack.callback(running.hang_up)
        try:
            running.start(self._watch.machine.pinning)
        except (ContenderError, CompileError) as error:
            if running.contender is self._plan.contenders[0]:
                raise
            running.stop()
            self._talk(f"{running.name} is left out: {error}")
        else:
            self._running[running.name] = running

    def _remove_segments(self) -> None:
        for contender in self._plan.contenders:
            for pattern in contender.segment_patterns():
                for leftover in _SHARED_MEMORY.glob(pattern):
                    leftover.unlink(missing_ok=True)

    # One size.

    def _measure_size(self, size: int, number: int) -> list[Result]:
        results: dict[str, Result] = {}
        for running in list(self._running.values()):
            self._progress(0, 1, f"{size} B: verifying {running.name}")
            try:
                self._taker.verify(running, size)
                with self._loaded():
                    self._taker.calibrate(running, size)
            except ContenderError as error:
                self._leave_out(error, size)
            else:
                results[running.name] = self._taker.empty_result(running, size)
        reference = self._plan.contenders[0].name
        rivals = [name for name in results if name != reference]
        pairs = list(turns(rivals or [reference], self._plan.rounds))
        with self._watch.meter:
            for step, pair in enumerate(pairs, number * len(pairs)):
                self._progress(step, len(self._plan.sizes) * len(pairs), f"{size} B: {pair.rival}")
                if pair.rival not in results:
                    continue
                try:
                    self._take_pair(pair, size, results)
                except ContenderError as error:
                    self._leave_out(error, size)
                    del results[pair.rival]
            if self._plan.compares_sizes and size != self._plan.sizes[0]:
                self._compare_with_smallest(size, results)
        return list(results.values())

    def _compare_with_smallest(self, size: int, results: dict[str, Result]) -> None:
        """Pairs of adjacent slices of one contender at two sizes."""
        smallest = self._plan.sizes[0]
        for number in range(self._plan.rounds):
            order = [smallest, size] if number % 2 == 0 else [size, smallest]
            for name, result in list(results.items()):
                running = self._running[name]
                self._progress(number, self._plan.rounds, f"{size} B over {smallest} B: {name}")
                if not self._taker.is_calibrated(running, smallest):
                    continue
                try:
                    with self._loaded():
                        pieces = {each: self._taker.take(running, each) for each in order}
                except ContenderError as error:
                    self._leave_out(error, size)
                    del results[name]
                else:
                    result.compare_sizes(pieces[smallest], pieces[size])

    def _take_pair(self, pair: Pair, size: int, results: dict[str, Result]) -> None:
        """Two adjacent slices, or one where the reference is alone."""
        reference = self._plan.contenders[0].name
        order = [reference, pair.rival] if pair.reference_first else [pair.rival, reference]
        self._watch.probe_cache_line()
        with self._loaded():
            pieces: dict[str, Slice] = {
                name: self._taker.take(self._running[name], size) for name in dict.fromkeys(order)
            }
        for name, piece in pieces.items():
            results[name].add(piece)
        if pair.rival != reference:
            results[pair.rival].compare(pieces[reference], pieces[pair.rival])

    def _leave_out(self, error: ContenderError, size: int) -> None:
        """Leaves a rival out, for a size or for good; raises again what ends the run."""
        is_reference = error.contender == self._plan.contenders[0].name
        if is_reference or error.fault is Fault.VERIFICATION:
            raise error
        if error.fault is Fault.UNSUPPORTED:
            self._talk(f"{error.contender} is left out at {size} B: {error.message}")
            return
        self._talk(f"{error.contender} is left out from here on: {error.message}")
        self._running.pop(error.contender).stop()

    def _loaded(self) -> AbstractContextManager[None]:
        return self._neighbours.running() if self._neighbours else nullcontext()
