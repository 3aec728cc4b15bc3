# SPDX-License-Identifier: Apache-2.0
"""The rivals that need no launcher: what the standard library, ZeroMQ and iceoryx2 offer.

Where a rival is a pair of connected descriptors, the coordinator makes the pair and each side
inherits its end.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace

from diolkos.bench import native
from diolkos.bench.contenders.base import (
    EXCHANGES,
    ONE_SIDED,
    Contender,
    Launch,
    Missing,
    Workspace,
    python_side,
)
from diolkos.bench.control import ENVIRONMENT_FDS, ENVIRONMENT_SIDE, Operation

SocketPair = Callable[[], tuple[socket.socket, socket.socket]]


class Connected(Contender):
    """A rival over two connected sockets: ``multiprocessing.Pipe``, Unix, TCP."""

    face = "python"

    def __init__(self, name: str, worker: str, make: SocketPair) -> None:
        self.name = name
        self._worker = worker
        self._make = make

    def missing(self) -> Missing | None:
        """Nothing: it is in the standard library."""
        return None

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides with an end each."""
        ends = [end.detach() for end in self._make()]
        return [
            _inheriting(python_side(self._worker, side), str(end), (end,))
            for side, end in enumerate(ends)
        ]


class Eventfd(Contender):
    """The bare wake-up of a sleeping process: two eventfds and a loop in C."""

    name = "eventfd"
    face = "native"
    operations = frozenset({Operation.PINGPONG})

    def missing(self) -> Missing | None:
        """A C compiler, where there is none."""
        return _missing_compiler()

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides that share both eventfds."""
        program = str(native.compiled("eventfd_loop.c", "cc"))
        fds = (os.eventfd(0), os.eventfd(0))
        listed = f"{fds[0]},{fds[1]}"
        return [
            _inheriting(Launch([program], {ENVIRONMENT_SIDE: str(side)}), listed, fds)
            for side in (0, 1)
        ]


class Memcpy(Contender):
    """The bare copy between two processes that share memory: a loop in C. A limit, no rival."""

    name = "memcpy"
    face = "native"
    operations = ONE_SIDED | {Operation.PINGPONG}
    limit = True

    def missing(self) -> Missing | None:
        """A C compiler, where there is none."""
        return _missing_compiler()

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides that map one file."""
        program = str(native.compiled("memcpy_loop.c", "cc"))
        file = os.memfd_create("diolkos-bench-memcpy", 0)
        return [
            _inheriting(Launch([program], {ENVIRONMENT_SIDE: str(side)}), str(file), (file,))
            for side in (0, 1)
        ]


class Zeromq(Contender):
    """pyzmq over ``ipc``."""

    name = "zmq"
    face = "python"

    def missing(self) -> Missing | None:
        """pyzmq, when it is not installed."""
        return _missing_package("zmq", "pyzmq")

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides that meet at a path."""
        path = str(workspace.directory / "zmq")
        return [python_side("zmq", side, path=path) for side in (0, 1)]


class Iceoryx(Contender):
    """iceoryx2, polled."""

    name = "iceoryx2"
    face = "python"
    operations = EXCHANGES | {Operation.LOAN}

    def __init__(self) -> None:
        # Its segments are named, not put into a folder: the name says whose they are.
        self._prefix = f"dklb{secrets.token_hex(4)}_"

    def missing(self) -> Missing | None:
        """The binding, when it is not installed."""
        return _missing_package("iceoryx2", "iceoryx2")

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides that meet in a folder of their own."""
        options = {
            "directory": str(workspace.directory),
            "prefix": self._prefix,
            "depth": max(2, workspace.window),
        }
        worker = "iceoryx2-loan" if workspace.operation is Operation.LOAN else "iceoryx2"
        return [python_side(worker, side, **options) for side in (0, 1)]

    def segment_patterns(self) -> list[str]:
        """What may be left in /dev/shm when it is killed."""
        return [f"{self._prefix}*"]


class SharedBlock(Contender):
    """``multiprocessing.shared_memory``, and a pipe that says where the data lie."""

    name = "shared_memory"
    face = "python"
    operations = frozenset({Operation.LOAN})

    def __init__(self) -> None:
        self._prefix = f"dklb{secrets.token_hex(4)}_"

    def missing(self) -> Missing | None:
        """Nothing: it is in the standard library."""
        return None

    def launches(self, workspace: Workspace) -> list[Launch]:
        """Two sides with an end of the pipe each."""
        ends = [end.detach() for end in unix_pair()]
        return [
            _inheriting(python_side(self.name, side, prefix=self._prefix), str(end), (end,))
            for side, end in enumerate(ends)
        ]

    def segment_patterns(self) -> list[str]:
        """What may be left in /dev/shm when it is killed."""
        return [f"{self._prefix}*"]


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of Unix stream sockets; ``multiprocessing.Pipe()`` is the same pair."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair of TCP sockets over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second, _ = listener.accept()
    return first, second


def _inheriting(launch: Launch, listed: str, fds: tuple[int, ...]) -> Launch:
    environment = {**launch.environment, ENVIRONMENT_FDS: listed}
    return replace(launch, environment=environment, descriptors=fds)


def _missing_compiler() -> Missing | None:
    if shutil.which("cc") is None:
        return Missing("there is no C compiler", "apt-get install gcc")
    return None


def _missing_package(module: str, package: str) -> Missing | None:
    if importlib.util.find_spec(module) is not None:
        return None
    return Missing(f"the Python package {package} is not installed", f"pip install {package}")
