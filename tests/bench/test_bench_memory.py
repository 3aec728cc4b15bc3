# SPDX-License-Identifier: Apache-2.0
"""One-sided operations, loans and the bare copy: the loops, whole runs, and the commands."""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from diolkos.bench import options, table
from diolkos.bench.contenders import Diolkos, rival
from diolkos.bench.control import Command, Operation, times_from
from diolkos.bench.coordinator import Coordinator
from diolkos.bench.machine import Watch, this_machine
from diolkos.bench.processes import process_table, with_descendants
from diolkos.bench.results import Plan, Result, Slice
from diolkos.bench.rows import rows_of
from diolkos.bench.running import ContenderError
from diolkos.bench.sides.lending import LoanStatements, LoanWorker
from diolkos.bench.sides.one_sided import ADDEND, OneSidedStatements, OneSidedWorker
from diolkos.bench.sides.payload import VerificationError
from diolkos.bench.sides.worker import Unsupported, Worker
from diolkos.bench.slices import Histogram
from diolkos.bench.taking import batch_of

ONE_SIDED = [Operation.RDMA_WRITE, Operation.RDMA_READ, Operation.RDMA_ATOMIC]


# --- The loops, with both sides in one process over a library that is two queues. ---------------


class Wire:
    """What the two sides of a library in one process share. ``spoil`` damages what arrives."""

    def __init__(self, spoil: bool = False) -> None:
        self.turns: tuple[queue.Queue[Any], queue.Queue[Any]] = (queue.Queue(), queue.Queue())
        self.memory = memoryview(bytearray(0))
        self.spoil = spoil


class Window(OneSidedWorker):
    """One-sided operations on a ``bytearray`` of this process."""

    statements = OneSidedStatements(
        write="write(local)",
        read="read(local)",
        atomic="old = add(addend)",
        old_value="old",
        give_turn="give(None)",
        wait_turn="wait()",
    )

    def __init__(self, side: int, wire: Wire) -> None:
        super().__init__(side)
        self._wire = wire

    def describe(self) -> dict[str, Any]:
        return {"library": "a bytearray"}

    def open_target(self, size: int) -> memoryview:
        if self.side == 0:
            self._wire.turns[1].get(timeout=5)
            return memoryview(b"")
        self._wire.memory = memoryview(bytearray(size))
        self._wire.turns[1].put(None)
        return self._wire.memory

    def names(self) -> dict[str, Any]:
        return {
            "write": self._write,
            "read": self._read,
            "add": self._add,
            "give": self._wire.turns[self.side].put,
            "wait": lambda: self._wire.turns[1 - self.side].get(timeout=5),
        }

    def _write(self, local: memoryview) -> None:
        self._wire.memory[:] = local
        self._wire.memory[0] ^= self._wire.spoil

    def _read(self, local: memoryview) -> None:
        local[:] = self._wire.memory
        local[0] ^= self._wire.spoil

    def _add(self, addend: int) -> int:
        words = self._wire.memory.cast("Q")
        words[0] += addend + self._wire.spoil
        return words[0] - addend

    def close(self) -> None:
        pass


class Lender(LoanWorker):
    """Loans of a ``bytearray`` of this process."""

    statements = LoanStatements(
        write_word="words_out[0] = i",
        lend="lend(outgoing)",
        receive="loan = borrow()",
        read_word="loan.cast('Q')[0]",
        let_go="loan.release()",
        outgoing="outgoing",
        incoming="loan",
    )

    def __init__(self, side: int, wire: Wire) -> None:
        super().__init__(side)
        self._wire = wire

    def describe(self) -> dict[str, Any]:
        return {"library": "a bytearray"}

    def names(self, size: int) -> dict[str, Any]:
        outgoing = memoryview(bytearray(size))
        return {
            "outgoing": outgoing,
            "words_out": outgoing.cast("Q"),
            "lend": self._wire.turns[self.side].put,
            "borrow": self._borrow,
        }

    def _borrow(self) -> memoryview:
        loan = bytearray(self._wire.turns[1 - self.side].get(timeout=5))
        loan[0] ^= self._wire.spoil
        return memoryview(loan)

    def close(self) -> None:
        pass


def both(make: Callable[[int, Wire], Worker], command: Command, spoil: bool = False) -> bytes:
    """One slice of both sides; what side 0 replies. Raises what a side raises first."""
    wire = Wire(spoil)
    workers = [make(side, wire) for side in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(worker.serve, command) for worker in workers]
        errors = [reply.exception() for reply in replies]
    for error in errors:
        if error is not None and not isinstance(error, queue.Empty):
            raise error
    return replies[0].result()


@pytest.mark.parametrize("operation", ONE_SIDED)
@pytest.mark.parametrize("batch", [1, 10])
def test_one_sided_loops_take_a_time_for_each_iteration(operation: Operation, batch: int) -> None:
    times = times_from(both(Window, Command(operation, 8, 20, batch)))
    assert len(times) == 20
    assert min(times) > 0


@pytest.mark.parametrize("operation", ONE_SIDED)
def test_one_sided_loops_verify(operation: Operation) -> None:
    command = Command(operation, 8, 20, verify=True)
    assert both(Window, command) == b""
    with pytest.raises(VerificationError):
        both(Window, Command(operation, 8, 2, verify=True), spoil=True)


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("operation", ONE_SIDED[:2])
def test_a_timed_operation_checks_its_word(operation: Operation, size: int) -> None:
    assert len(times_from(both(Window, Command(operation, size, 5)))) == 5
    with pytest.raises(VerificationError, match="word"):
        both(Window, Command(operation, size, 1), spoil=True)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(Unsupported, match="8 bytes"):
        Window(0, Wire()).serve(Command(Operation.RDMA_ATOMIC, 64, 1))
    with pytest.raises(Unsupported, match="at least a byte"):
        Window(0, Wire()).serve(Command(Operation.RDMA_WRITE, 0, 1))
    with pytest.raises(Unsupported, match="words of 8 bytes"):
        Lender(0, Wire()).serve(Command(Operation.LOAN, 12, 1))


def test_loans_are_timed_and_verified() -> None:
    assert len(times_from(both(Lender, Command(Operation.LOAN, 64, 20)))) == 20
    assert both(Lender, Command(Operation.LOAN, 64, 20, verify=True)) == b""
    for verify in (False, True):
        with pytest.raises(VerificationError):
            both(Lender, Command(Operation.LOAN, 64, 1, verify=verify), spoil=True)


def test_only_short_operations_make_batches() -> None:
    assert batch_of(Operation.RDMA_WRITE, 64) == 100
    assert batch_of(Operation.RDMA_WRITE, 65) == 1
    assert batch_of(Operation.RDMA_ATOMIC, 8) == 100
    assert batch_of(Operation.PINGPONG, 8) == 1
    assert ADDEND != 0


# --- Rows. --------------------------------------------------------------------------------------


def test_a_row_of_a_one_sided_operation() -> None:
    result = Result(rival("memcpy"), Operation.RDMA_WRITE, 8, "some library", None, calls=100)
    result.add(Slice(Histogram([1000, 2000, 4000])))
    (row,) = rows_of([result], window=1)
    assert (row["bench"], row["operation"], row["size"]) == ("rdma", "write", 8)
    assert row["operation_us"]["p50"] == 0.02
    assert (row["batch"], row["target_touched"], row["iterations"]) == (100, False, 300)
    assert "half_rtt_us" not in row
    assert "write, batches of 100" in table.lines([row])[0]


def test_a_row_of_a_loan_compares_sizes_and_has_no_bandwidth() -> None:
    result = Result(rival("iceoryx2"), Operation.LOAN, 64 << 20, "some library", None)
    own = Slice(Histogram([3000]))
    result.add(own)
    result.compare_sizes(Slice(Histogram([2000])), own)
    (row,) = rows_of([result], window=1)
    assert (row["bench"], row["half_rtt_us"]["p50"]) == ("loan", 1.5)
    assert row["over_smallest"] == {"p10": 1.5, "p50": 1.5, "p90": 1.5}
    assert "MBps" not in row
    assert "1.50 of the smallest size" in table.lines([row])[0]


def test_a_limit_is_never_the_best_rival() -> None:
    ours = Result(Diolkos("native", "auto"), Operation.RDMA_READ, 4096, "", "direct")
    ours.add(Slice(Histogram([100])))
    rows = [ours]
    for name, time in (("memcpy", 50), ("mpi", 200)):
        rows.append(Result(rival(name), Operation.RDMA_READ, 4096, "", None))
        rows[-1].add(Slice(Histogram([time])))
        rows[-1].compare(Slice(Histogram([100])), Slice(Histogram([time])))
    _, memcpy, mpi = rows_of(rows, window=1)
    assert memcpy["ours_over_theirs"]["p50"] == 2.0
    assert "best_rival" not in memcpy
    assert mpi["best_rival"]


def test_options_of_memory_become_a_plan() -> None:
    parser = argparse.ArgumentParser()
    options.add_options(parser, sizes="64M,8,8")
    options.add_memory_option(parser)
    loans = options.plan(parser.parse_args([]), Operation.LOAN)
    assert loans.sizes == [8, 64 << 20], "the smallest first, which the others are compared with"
    assert loans.compares_sizes
    assert not loans.touched
    granted = options.plan(parser.parse_args(["--memory", "arena"]), Operation.PINGPONG)
    assert granted.touched
    assert [each.memory for each in granted.contenders] == ["arena"]


# --- Whole runs with rivals. --------------------------------------------------------------------


def run(plan: Plan) -> list[list[Result]]:
    """A run that leaves no process and no segment, and of whose contenders none is left out."""
    sentences: list[str] = []
    before = set(os.listdir("/dev/shm"))
    watch = Watch(this_machine(), probe=lambda a, b, n: 50.0)
    with Coordinator(plan, watch, sentences.append, lambda *step: None) as coordinator:
        results = list(coordinator.measure())
    assert sentences == []
    assert with_descendants([os.getpid()], process_table()) == {os.getpid()}
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("dklb")]
    return results


def installed(*names: str) -> list[Any]:
    """Those of the rivals that can run here."""
    return [each for each in map(rival, names) if each.missing() is None]


@pytest.mark.slow
@pytest.mark.parametrize("operation", ONE_SIDED)
def test_one_sided_rivals(operation: Operation) -> None:
    contenders = installed("memcpy", "mpi4py", "mpi", "impi")
    sizes = [8] if operation is Operation.RDMA_ATOMIC else [1, 8, 4096]
    for results, size in zip(run(Plan(operation, sizes, contenders, rounds=3)), sizes, strict=True):
        assert [each.contender.name for each in results] == [each.name for each in contenders]
        for each in results:
            assert each.calls == batch_of(operation, size)
            assert len(each.times) > 0
        assert all(len(each.ratios) == 3 for each in results[1:])


@pytest.mark.slow
def test_loans_of_rivals_are_compared_with_the_smallest_size() -> None:
    contenders = installed("shared_memory", "iceoryx2")
    small, large = run(
        Plan(Operation.LOAN, [8, 1 << 20], contenders, rounds=3, compares_sizes=True)
    )
    assert len(small) == len(large) == len(contenders)
    assert all(each.over_smallest == [] for each in small)
    assert all(len(each.over_smallest) == 3 for each in large)


@pytest.mark.slow
def test_messages_that_are_written_anew_before_each_round_trip() -> None:
    contenders = installed("memcpy", "pipe", "unix", "zmq", "mpi", "mpi4py", "iceoryx2")
    plan = Plan(Operation.PINGPONG, [4096], contenders, rounds=3, touched=True)
    (results,) = run(plan)
    assert [each.contender.name for each in results] == [each.name for each in contenders]


@pytest.mark.slow
def test_a_bare_copy_has_no_rate() -> None:
    with pytest.raises(ContenderError, match="it has no stream benchmark"):
        run(Plan(Operation.STREAM, [8], [rival("memcpy")]))


INTERRUPTED_RUN = """
from diolkos.bench.command import ended_by_signals
from diolkos.bench.contenders import rival
from diolkos.bench.control import Operation
from diolkos.bench.coordinator import Coordinator
from diolkos.bench.machine import Watch, this_machine
from diolkos.bench.results import Plan

def progress(done, total, what):
    if done == 2:
        print("measuring", flush=True)

plan = Plan(Operation.LOAN, [8], [rival("shared_memory")], rounds=100000)
watch = Watch(this_machine(), lambda a, b, n: 50.0)
with ended_by_signals(), Coordinator(plan, watch, print, progress) as coordinator:
    list(coordinator.measure())
"""


@pytest.mark.slow
def test_interrupted_loans_leave_no_segment(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_RUN], stdout=subprocess.PIPE, env=environment
    ) as run_:
        assert run_.stdout is not None
        assert run_.stdout.readline() == b"measuring\n"
        assert [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("dklb")]
        started = with_descendants([run_.pid], process_table()) - {run_.pid}
        run_.send_signal(signal.SIGINT)
        assert run_.wait(20) != 0
    assert not started & {pid for pid, state in process_table().items() if not state.zombie}
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("dklb")]


# --- The commands, with ours in them. -----------------------------------------------------------


def rows_printed(*words: str) -> list[dict[str, Any]]:
    """Runs `diolkos` with three slices and parses what it prints."""
    command = [sys.executable, "-m", "diolkos", *words, "--slices", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("face", ["python", "native"])
@pytest.mark.parametrize("operation", ["write", "read", "atomic"])
def test_rdma_against_the_bare_copy(face: str, operation: str) -> None:
    words = ["rdma", "--op", operation, "--face", face, "--sizes", "8,64K", "--against", "memcpy"]
    *rows, machine = rows_printed(*words)
    assert machine["bench"] == "machine"
    sizes = [8, 8] if operation == "atomic" else [8, 8, 1 << 16, 1 << 16]
    assert [row["size"] for row in rows] == sizes
    for ours, memcpy in zip(rows[::2], rows[1::2], strict=True):
        assert (ours["bench"], ours["operation"], ours["face"]) == ("rdma", operation, face)
        assert ours["road"] == "direct"
        assert ours["library"].endswith("granted")
        assert ours["operation_us"]["p50"] > 0
        assert memcpy["ours_over_theirs"]["p50"] > 0


@pytest.mark.slow
def test_rdma_on_the_switched_road() -> None:
    ours = rows_printed("rdma", "--road", "switched", "--sizes", "4K")[0]
    assert ours["road"] == "switched"
    assert ours["library"].endswith("copied")


@pytest.mark.slow
def test_loan_against_what_python_programs_use() -> None:
    words = ["loan", "--sizes", "8,1M", "--against", "iceoryx2,shared_memory"]
    *rows, _ = rows_printed(*words)
    ours = [row for row in rows if row["contender"] == "diolkos"]
    assert [row["size"] for row in ours] == [8, 1 << 20]
    assert ours[1]["over_smallest"]["p50"] > 0
    assert all(row["ours_over_theirs"]["p50"] > 0 for row in rows if row not in ours)


@pytest.mark.slow
@pytest.mark.parametrize("face", ["python", "native", "asyncio"])
def test_pingpong_out_of_granted_memory(face: str) -> None:
    words = ["pingpong", "--face", face, "--memory", "arena", "--sizes", "8,256K"]
    rows = [
        row for row in rows_printed(*words, "--against", "memcpy") if row["bench"] == "pingpong"
    ]
    assert [row.get("memory") for row in rows] == ["arena", None] * 2
    assert rows[1]["ours_over_theirs"]["p50"] > 0


@pytest.mark.slow
def test_memory_is_no_choice_of_the_mx_interface_and_has_no_pauses() -> None:
    for words, text in (
        (["--face", "mx"], "has no arena"),
        (["--pause", "2"], "--memory plain only"),
    ):
        command = [sys.executable, "-m", "diolkos", "pingpong", "--memory", "arena", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert text in done.stderr
