# SPDX-License-Identifier: Apache-2.0
"""Who can take part in a benchmark, by name."""

from __future__ import annotations

from collections.abc import Callable

from diolkos.bench.contenders.base import Contender, Launch, Missing, Workspace
from diolkos.bench.contenders.diolkos import FACES, MEMORIES, Diolkos, NativeFace
from diolkos.bench.contenders.mpi import SETTINGS, IntelMpi, Mpi4py, OpenMpi
from diolkos.bench.contenders.mx import MxInterface
from diolkos.bench.contenders.plain import (
    Connected,
    Eventfd,
    Iceoryx,
    Memcpy,
    SharedBlock,
    Zeromq,
    tcp_pair,
    unix_pair,
)

__all__ = [
    "FACES",
    "MEMORIES",
    "RIVALS",
    "Contender",
    "Diolkos",
    "Launch",
    "Missing",
    "Workspace",
    "ours",
    "rival",
]

RIVALS: dict[str, Callable[[], Contender]] = {
    "pipe": lambda: Connected("pipe", "pipe", unix_pair),
    "unix": lambda: Connected("unix", "stream", unix_pair),
    "tcp": lambda: Connected("tcp", "stream", tcp_pair),
    "zmq": Zeromq,
    "mpi4py": Mpi4py,
    "iceoryx2": Iceoryx,
    "shared_memory": SharedBlock,
    **{name: lambda name=name: OpenMpi(name) for name in SETTINGS},  # type: ignore[misc]
    "impi": IntelMpi,
    "eventfd": Eventfd,
    "memcpy": Memcpy,
    "native": NativeFace,
}


def ours(
    face: str, road: str, *, isolated: bool = False, idle_peers: int = 0, memory: str = "plain"
) -> Contender:
    """Ours through one of the ``FACES``, with messages in one of the ``MEMORIES``."""
    if face == "mx":
        return MxInterface(road, isolated=isolated, idle_peers=idle_peers, memory=memory)
    return Diolkos(face, road, isolated=isolated, idle_peers=idle_peers, memory=memory)


def rival(name: str) -> Contender:
    """The rival called ``name``. Raises KeyError when there is none."""
    return RIVALS[name]()
