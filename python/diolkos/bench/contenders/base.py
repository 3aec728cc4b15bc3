# SPDX-License-Identifier: Apache-2.0
"""What a contender is: a name, a face, and how its two sides are started.

A contender is described here and run elsewhere: it makes :class:`Launch` values from a
:class:`Workspace` and touches no process. A library that is not installed is found out by
:meth:`Contender.missing` before anything starts, with the command that would install it.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diolkos.bench.control import Operation

#: All sides find the package where the coordinator found it, installed or not.
_PACKAGE_ROOT = Path(__file__).absolute().parents[3]

EXCHANGES = frozenset({Operation.PINGPONG, Operation.STREAM, Operation.RATE})
ONE_SIDED = frozenset(each for each in Operation if each.is_one_sided)


@dataclass(frozen=True)
class Missing:
    """Why a contender cannot take part, and what would change that."""

    reason: str
    install: str


@dataclass(frozen=True)
class Workspace:
    """Where a contender may leave files: both folders are removed after the run."""

    directory: Path
    #: On the tmpfs behind shared memory, for libraries that put their segments in a folder.
    shared: Path
    #: The messages that may be on their way at once, and the longest of them in bytes.
    window: int = 1
    #: What will be measured: some contenders have a program of their own for it.
    operation: Operation = Operation.PINGPONG
    #: The runtime directory of the private backend, for contenders that need one.
    runtime_directory: Path | None = None


@dataclass(frozen=True)
class Launch:
    """One process to start."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Descriptors to inherit; closed in the coordinator once the process runs.
    descriptors: tuple[int, ...] = ()
    #: Started only after both sides said hello.
    late: bool = False


class Contender(ABC):
    """One way to cross between two processes."""

    name: str
    face: str
    #: The road that a contender of ours asks for; None for rivals, who have no choice.
    road: str | None = None
    operations: frozenset[Operation] = EXCHANGES
    #: A bound that the machine sets, not a rival that somebody could use instead.
    limit: bool = False
    #: Where the messages of a contender of ours lie; None where there is no choice.
    memory: str | None = None
    #: Ratios of ours to ours are called ``over_plain``.
    ours: bool = False
    #: It gets a private backend: ours do, also where they stand among the rivals.
    needs_backend: bool = False
    #: The two sides must share no name space.
    isolated: bool = False
    #: How many processes say hello: two sides, and one more for a crowd of idle peers.
    member_count: int = 2

    @abstractmethod
    def missing(self) -> Missing | None:
        """Why the contender cannot run here, or None."""

    @abstractmethod
    def launches(self, workspace: Workspace) -> list[Launch]:
        """The processes to start. Raises CompileError where a loop in C does not compile."""

    def segment_patterns(self) -> list[str]:
        """What may be left in /dev/shm when the sides are killed, as patterns of names."""
        return []


def python_side(worker: str, side: int | None, **options: Any) -> Launch:
    """The launch of one side in Python; a launcher of MPI gives the number itself."""
    environment = {"PYTHONPATH": _python_path()}
    if side is not None:
        environment["DIOLKOS_BENCH_SIDE"] = str(side)
    command = [sys.executable, "-m", "diolkos.bench.sides", worker, json.dumps(options)]
    return Launch(command, environment)


def _python_path() -> str:
    rest = os.environ.get("PYTHONPATH")
    return f"{_PACKAGE_ROOT}{os.pathsep}{rest}" if rest else str(_PACKAGE_ROOT)
