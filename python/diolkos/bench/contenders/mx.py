# SPDX-License-Identifier: Apache-2.0
"""Ours through the MX interface: a loop in C over ``libmyriexpress``.

MX knows endpoints by number, so the two sides get numbers instead of names, and it leaves the road
to the library.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diolkos import mx
from diolkos.bench import isolate, native
from diolkos.bench.contenders.base import EXCHANGES, Launch, Missing, Workspace, python_side
from diolkos.bench.contenders.diolkos import Diolkos
from diolkos.bench.control import ENVIRONMENT_SIDE, Operation

ENVIRONMENT_ENDPOINTS = "DIOLKOS_BENCH_ENDPOINTS"
#: A library somewhere else than in the package: a folder, as for the tests of the MX interface.
ENVIRONMENT_LIBRARY = "DIOLKOS_MX_LIB"

#: Each variant has two numbers of its own, because all of them share one backend.
_FIRST_NUMBER = {"diolkos": 20, "diolkos-isolated": 22}
_FIRST_NUMBER_IDLE = 24


class MxInterface(Diolkos):
    """Two endpoints of C programs, which a private backend introduced to each other."""

    def __init__(
        self, road: str, *, isolated: bool = False, idle_peers: int = 0, memory: str = "plain"
    ) -> None:
        super().__init__("mx", road, isolated=isolated, idle_peers=idle_peers, memory=memory)
        self.operations = EXCHANGES | {Operation.INCOMPLETE_TEST}

    def missing(self) -> Missing | None:
        """The library, a compiler, or the leave to make name spaces."""
        if self.road != "auto":
            return Missing("the MX interface cannot ask for a road", "leave --road out")
        if self.memory != "plain":
            return Missing("the MX interface has no arena", "leave --memory out")
        if shutil.which("cc") is None:
            return Missing("there is no C compiler", "apt-get install gcc")
        try:
            _library_dir()
        except mx.MissingLibrary as error:
            return Missing(str(error), error.hint)
        return super().missing()

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides, and the crowd once they are there."""
        assert workspace.runtime_directory is not None, "ours get a private backend"
        backend = {"DIOLKOS_RUNTIME_DIR": str(workspace.runtime_directory)}
        first = _FIRST_NUMBER.get(self.name, _FIRST_NUMBER_IDLE)
        numbers = (first, first + 1)
        program = native.compiled("mx_loop.c", "cc", link=_link())
        environment = {**backend, ENVIRONMENT_ENDPOINTS: f"{numbers[0]},{numbers[1]}"}
        command: Sequence[str] = [str(program)]
        if self.isolated:
            command = isolate.isolated(command)
        launches = [Launch(command, {**environment, ENVIRONMENT_SIDE: str(n)}) for n in (0, 1)]
        if self._idle_peers:
            crowd = python_side("diolkos-idle", 2, targets=numbers, count=self._idle_peers)
            crowd = replace(crowd, environment={**crowd.environment, **backend}, late=True)
            launches.append(crowd)
        return launches


def _library_dir() -> Path:
    told = os.environ.get(ENVIRONMENT_LIBRARY)
    return Path(told).absolute() if told else mx.library_dir()


def _link() -> list[str]:
    directory = _library_dir()
    options = shlex.split(mx.cflags())
    return [*options, f"-L{directory}", f"-Wl,-rpath,{directory}", "-lmyriexpress"]
