# SPDX-License-Identifier: Apache-2.0
"""Ours: one contender for each face, plain, isolated, or in a crowd of idle peers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from diolkos.bench import isolate
from diolkos.bench.contenders.base import (
    ONE_SIDED,
    Contender,
    Launch,
    Missing,
    Workspace,
    python_side,
)
from diolkos.bench.control import Operation

FACES = ("python", "native", "asyncio", "mx")
#: Where messages lie: anywhere, or in memory that the endpoint allots and can grant.
MEMORIES = ("plain", "arena")


class Diolkos(Contender):
    """Two endpoints that a private backend introduced to each other.

    ``idle_peers`` further endpoints of a third process are connected to both sides and do nothing.
    """

    ours = True
    needs_backend = True

    def __init__(
        self,
        face: str,
        road: str,
        *,
        isolated: bool = False,
        idle_peers: int = 0,
        memory: str = "plain",
    ) -> None:
        self.face = face
        self.road = road
        self.memory = memory
        self.isolated = isolated
        self._idle_peers = idle_peers
        self.member_count = 3 if idle_peers else 2
        self.name = "diolkos"
        if isolated:
            self.name = "diolkos-isolated"
        elif idle_peers:
            self.name = f"diolkos-idle{idle_peers}"
        if face in ("python", "asyncio"):
            self.operations |= {Operation.ALREADY_THERE}
        if face in ("python", "native"):
            self.operations |= ONE_SIDED
        if face == "python":
            self.operations |= {Operation.LOAN}

    def missing(self) -> Missing | None:
        """The native module, or the kernel's leave to make name spaces."""
        if importlib.util.find_spec("diolkos._core") is None:
            return Missing("the native module diolkos._core is not built", "make setup")
        reason = isolate.why_impossible() if self.isolated else None
        if reason is not None:
            return Missing(reason, "sysctl kernel.unprivileged_userns_clone=1 (or run as root)")
        return None

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides, and the crowd once they are there."""
        assert workspace.runtime_directory is not None, "ours get a private backend"
        backend = {"DIOLKOS_RUNTIME_DIR": str(workspace.runtime_directory)}
        names = [f"bench/{self.name}/{side}" for side in (0, 1)]
        worker, options = f"diolkos-{self.face}", {"road": self.road}
        if workspace.operation.is_one_sided:
            worker += "-rdma"
        elif workspace.operation is Operation.LOAN:
            worker += "-loan"
        else:
            options["memory"] = self.memory
        launches = [
            python_side(worker, side, name=names[side], peer=names[1 - side], **options)
            for side in (0, 1)
        ]
        if self.isolated:
            launches = [replace(each, command=isolate.isolated(each.command)) for each in launches]
        if self._idle_peers:
            crowd = python_side("diolkos-idle", 2, targets=names, count=self._idle_peers)
            launches.append(replace(crowd, late=True))
        return [replace(each, environment={**each.environment, **backend}) for each in launches]


class NativeFace(Diolkos):
    """Our native face among the rivals: what another face of ours costs on top of it."""

    ours = False

    def __init__(self) -> None:
        super().__init__("native", "auto")
        self.name = "diolkos-native"
