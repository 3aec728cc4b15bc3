# SPDX-License-Identifier: Apache-2.0
"""Whole runs with rivals of the standard library: results come out and nothing stays behind.

The coordinator runs in a process of its own where it is to be interrupted; that process prints a
line when all contenders are up, so that no test has to guess a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos.bench.contenders import Contender, rival
from diolkos.bench.contenders.plain import Connected, unix_pair
from diolkos.bench.control import Operation
from diolkos.bench.coordinator import Coordinator
from diolkos.bench.machine import Watch, this_machine
from diolkos.bench.processes import ProcessGroup, process_table, with_descendants
from diolkos.bench.results import Plan, Result
from diolkos.bench.running import ContenderError

pytestmark = pytest.mark.slow

MARKER = "diolkos-bench-"

INTERRUPTED_RUN = """
import sys
from diolkos.bench.command import ended_by_signals
from diolkos.bench.contenders import rival
from diolkos.bench.control import Operation
from diolkos.bench.coordinator import Coordinator
from diolkos.bench.machine import Watch, this_machine
from diolkos.bench.results import Plan

plan = Plan(Operation.PINGPONG, [8], [rival("pipe"), rival("unix")], rounds=100000,
            busy_neighbours=1)
watch = Watch(this_machine(), lambda a, b, n: 50.0)
with ended_by_signals(), Coordinator(plan, watch, print, lambda *step: None) as coordinator:
    print("up", flush=True)
    list(coordinator.measure())
"""


@pytest.fixture
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs put their files; whoever uses this also finds out what they left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = set(os.listdir("/dev/shm"))
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert not [name for name in set(os.listdir("/dev/shm")) - before if MARKER in name]


def alive() -> set[int]:
    """All processes but those that only wait for their parent to notice."""
    return {pid for pid, state in process_table().items() if not state.zombie}


def run(plan: Plan, sentences: list[str] | None = None) -> list[list[Result]]:
    watch = Watch(this_machine(), probe=lambda a, b, n: 50.0)
    talk = (sentences if sentences is not None else []).append
    with Coordinator(plan, watch, talk, lambda done, total, what: None) as coordinator:
        results = list(coordinator.measure())
    assert with_descendants([os.getpid()], process_table()) == {os.getpid()}
    return results


@pytest.mark.usefixtures("own_temporary_directory")
def test_two_contenders_take_turns_at_two_sizes() -> None:
    plan = Plan(Operation.PINGPONG, [8, 4096], [rival("pipe"), rival("unix")], rounds=3)
    small, large = run(plan)
    assert [result.contender.name for result in small] == ["pipe", "unix"]
    assert [result.size for result in large] == [4096, 4096]
    for result in small + large:
        assert len(result.times) > 0
    assert len(small[1].ratios) == len(small[1].ratios_p99) == 3
    assert small[0].ratios == []


@pytest.mark.usefixtures("own_temporary_directory")
@pytest.mark.parametrize("operation", [Operation.STREAM, Operation.RATE])
def test_one_way_benchmarks(operation: Operation) -> None:
    ((reference, other),) = run(
        Plan(operation, [64], [rival("unix"), rival("pipe")], rounds=3, window=4)
    )
    assert min(reference.messages_per_s) > 0
    assert len(other.ratios) == 3


@pytest.mark.usefixtures("own_temporary_directory")
def test_a_rival_that_cannot_carry_a_size_is_left_out_of_it() -> None:
    sentences: list[str] = []
    plan = Plan(Operation.PINGPONG, [0, 8], [rival("pipe"), rival("unix")], rounds=3)
    empty, small = run(plan, sentences)
    assert [result.contender.name for result in empty] == ["pipe"]
    assert [result.contender.name for result in small] == ["pipe", "unix"]
    assert "unix is left out at 0 B" in sentences[0]


@pytest.mark.usefixtures("own_temporary_directory")
def test_a_rival_that_does_not_start_is_left_out_with_what_it_said() -> None:
    broken: Contender = Connected("broken", "no-such-worker", unix_pair)
    sentences: list[str] = []
    ((only,),) = run(Plan(Operation.PINGPONG, [8], [rival("pipe"), broken], rounds=3), sentences)
    assert only.contender.name == "pipe"
    assert "broken is left out" in sentences[0]
    assert "no-such-worker" in sentences[0]


@pytest.mark.usefixtures("own_temporary_directory")
def test_a_reference_that_does_not_start_ends_the_run() -> None:
    broken: Contender = Connected("broken", "no-such-worker", unix_pair)
    with pytest.raises(ContenderError, match="broken"):
        run(Plan(Operation.PINGPONG, [8], [broken, rival("pipe")], rounds=3))
    assert with_descendants([os.getpid()], process_table()) == {os.getpid()}


@pytest.mark.usefixtures("own_temporary_directory")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED_RUN], stdout=subprocess.PIPE) as run_:
        assert run_.stdout is not None
        assert run_.stdout.readline() == b"up\n"
        started = with_descendants([run_.pid], process_table()) - {run_.pid}
        assert len(started) == 5, "two contenders with two sides each, and a busy neighbour"
        run_.send_signal(number)
        assert run_.wait(20) != 0
    assert not started & alive()


def test_a_killed_run_leaves_no_process_and_the_next_run_removes_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_RUN], stdout=subprocess.PIPE, env=environment
    ) as run_:
        assert run_.stdout is not None
        assert run_.stdout.readline() == b"up\n"
        started = with_descendants([run_.pid], process_table()) - {run_.pid}
        watched = [os.pidfd_open(pid) for pid in started]
        run_.kill()
    for descriptor in watched:
        # A pidfd is readable once its process has ended.
        assert select.select([descriptor], [], [], 20)[0], "a process outlived its coordinator"
        os.close(descriptor)
    abandoned = [*tmp_path.glob(f"{MARKER}*"), *_unlocked(Path("/dev/shm"))]
    assert len(abandoned) >= 2
    for folder in abandoned:
        os.utime(folder, (0, 0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(Plan(Operation.PINGPONG, [8], [rival("pipe"), rival("unix")], rounds=3))
    assert not [folder for folder in abandoned if folder.exists()]


def _unlocked(parent: Path) -> list[Path]:
    """Folders of runs that are over; those of a run that goes on beside this test are locked."""
    found = []
    for folder in parent.glob(f"{MARKER}*"):
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(folder)
        os.close(descriptor)
    return found


def test_a_process_group_ends_grandchildren() -> None:
    script = "import subprocess; subprocess.Popen(['sleep', '1000']).wait()"
    with ProcessGroup() as group:
        process = group.start([sys.executable, "-c", script], os.environ)
        family: set[int] = set()
        while len(family) < 2:
            family = with_descendants([process.pid], process_table())
    assert not family & alive()
