# SPDX-License-Identifier: Apache-2.0
"""Starting processes that cannot outlive the benchmark, and ending them with all they started.

Contenders come with launchers, helpers and name spaces, and some of them spin: one left behind
spoils every later measurement on the machine. So there are three nets:

1. :class:`ProcessGroup` ends every process it started, and all their descendants, on the way out
   of its ``with`` block: by SIGKILL, because a side that waits for a dead peer hears nothing else.
2. Every process asks the kernel for SIGKILL when its parent dies (``die_with_parent``), so a
   coordinator that is itself killed takes its contenders along, level by level.
3. A side ends when its control socket closes, and when a slice lasts longer than a minute.

Each process gets a session of its own. A Ctrl-C at the terminal therefore reaches the coordinator
only, which then ends the others in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_END_LIMIT_S = 5.0

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # bound here: nothing is looked up after a fork


def die_with_parent() -> None:
    """Asks the kernel to kill this process when its parent dies."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


@dataclass(frozen=True)
class ProcessState:
    """What ``/proc/PID/stat`` says about one process."""

    pid: int
    parent: int
    zombie: bool
    cpu_s: float


def process_table() -> dict[int, ProcessState]:
    """All processes that can be seen, by pid. Those that vanish meanwhile are left out."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    table: dict[int, ProcessState] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        # The name may hold anything, even parentheses: the fields begin after the last one.
        fields = text[text.rindex(")") + 2 :].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / ticks_per_s
        table[int(entry)] = ProcessState(int(entry), int(fields[1]), fields[0] == "Z", cpu_s)
    return table


def with_descendants(roots: Iterable[int], table: Mapping[int, ProcessState]) -> set[int]:
    """``roots`` and every process below them."""
    children: dict[int, list[int]] = {}
    for state in table.values():
        children.setdefault(state.parent, []).append(state.pid)
    found: set[int] = set()
    pending = [root for root in roots if root in table]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending.extend(children.get(pid, ()))
    return found


class ProcessGroup:
    """The processes of one benchmark; a context manager that leaves none of them."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ProcessGroup:
        # Launchers start processes of their own. Orphans of theirs come to us, not to init: so
        # they stay our descendants until they have ended, and are reaped.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(self._processes)
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
        log: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts ``command`` with exactly ``environment``, inheriting ``descriptors``.

        Output goes to the end of ``log``, or nowhere. Raises OSError when it cannot be started.
        """
        with open(log or os.devnull, "ab") as output:
            process = subprocess.Popen(
                list(command),
                env=dict(environment),
                pass_fds=tuple(descriptors),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._processes.append(process)
        return process

    def end(self, processes: Sequence[subprocess.Popen[bytes]], grace_s: float = 0.0) -> None:
        """Ends ``processes`` with all their descendants.

        Those that finish by themselves within ``grace_s`` seconds are let do so.
        """
        limit = time.monotonic() + grace_s
        # Found before the roots die, whose children become ours and cannot be told apart then.
        doomed = with_descendants([p.pid for p in processes], process_table())
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(limit - time.monotonic(), 0))
        while doomed:
            table = process_table()
            running = [p.pid for p in processes if p.poll() is None]
            doomed = (doomed & table.keys()) | with_descendants(running, table)
            for pid in doomed:
                _kill(pid)
            _reap(processes, doomed)
            if time.monotonic() > limit + _END_LIMIT_S:
                break  # in the kernel's hands: SIGKILL is pending, nothing more can be done
            time.sleep(0.002 if doomed else 0)
        ended = set(map(id, processes))
        self._processes = [p for p in self._processes if id(p) not in ended]


def _reap(processes: Sequence[subprocess.Popen[bytes]], doomed: Iterable[int]) -> None:
    """Takes note of what has ended, so that nothing is left of it but its exit code."""
    for process in processes:
        process.poll()
    for pid in set(doomed) - {process.pid for process in processes}:
        with contextlib.suppress(ChildProcessError):  # its parent has not ended yet
            os.waitpid(pid, os.WNOHANG)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
