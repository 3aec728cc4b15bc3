# SPDX-License-Identifier: Apache-2.0
"""Sides in name spaces of their own, shown with a rival that inherits its connection."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from diolkos.bench import isolate
from diolkos.bench.contenders import Launch, Workspace, rival
from diolkos.bench.contenders.plain import Connected, unix_pair
from diolkos.bench.control import Operation
from diolkos.bench.coordinator import Coordinator
from diolkos.bench.machine import Watch, this_machine
from diolkos.bench.processes import process_table, with_descendants
from diolkos.bench.results import Plan
from diolkos.bench.running import ContenderError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        isolate.why_impossible() is not None, reason="the kernel refuses name spaces here"
    ),
]

# Lists what an isolated program sees of others: processes, shared memory, networks.
LOOK_AROUND = "ls /proc | grep -c '^[0-9]'; ls /dev/shm | wc -l; grep -c : /proc/net/dev; id -u"


class IsolatedPipe(Connected):
    """``multiprocessing.Pipe`` between two sides that share no name space."""

    isolated = True

    def launches(self, workspace: Workspace) -> list[Launch]:
        plain = super().launches(workspace)
        return [replace(each, command=isolate.isolated(each.command)) for each in plain]


class PretendedIsolation(Connected):
    """Claims to be isolated and is not."""

    isolated = True


def watch() -> Watch:
    return Watch(this_machine(), probe=lambda a, b, n: 50.0)


def test_an_isolated_program_sees_nobody(tmp_path: os.PathLike[str]) -> None:
    done = subprocess.run(
        isolate.isolated(["sh", "-c", LOOK_AROUND]), capture_output=True, text=True, check=True
    )
    processes, segments, interfaces, user = map(int, done.stdout.split())
    assert processes <= 5, "its own shell and the tools in this line"
    assert segments == 0
    assert interfaces == 1, "a loopback of its own"
    assert user == 0, "root, of its own user name space only"


def test_isolated_sides_measure_and_end() -> None:
    contenders = [rival("pipe"), IsolatedPipe("pipe-isolated", "pipe", unix_pair)]
    plan = Plan(Operation.PINGPONG, [8], contenders, rounds=3)
    with Coordinator(plan, watch(), print, lambda *step: None) as coordinator:
        ((_, isolated),) = coordinator.measure()
    assert len(isolated.ratios) == 3
    assert with_descendants([os.getpid()], process_table()) == {os.getpid()}


def test_a_contender_that_is_not_isolated_cannot_claim_it() -> None:
    plan = Plan(Operation.PINGPONG, [8], [PretendedIsolation("liar", "pipe", unix_pair)])
    with (
        pytest.raises(ContenderError, match="share user, pid, mnt, net, ipc"),
        Coordinator(plan, watch(), print, lambda *step: None),
    ):
        pass
