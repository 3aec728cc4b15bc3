# SPDX-License-Identifier: Apache-2.0
"""A contender whose sides are up: started, asked for slices, and ended.

Both sides of every contender stay alive for the whole run and sleep on their control sockets while
it is another's turn; so slices of different contenders can follow each other within microseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from diolkos.bench import control, isolate
from diolkos.bench.contenders.base import Contender, Launch, Workspace
from diolkos.bench.control import Command, Fault, Line, Operation, SideError
from diolkos.bench.processes import ProcessGroup

#: What a contender may take to start, and a slice (of at most 50 ms) to come back.
START_LIMIT_S = 60.0
SLICE_REPLY_LIMIT_S = float(control.SLICE_LIMIT_S) + 5.0
_QUIT_GRACE_S = 3.0

#: How much of what the processes printed goes into an error: the end of a traceback.
_LOG_LINES = 10

#: Environment of the coordinator that a contender must not inherit: of another MPI job around us.
_FOREIGN_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "HYDI_", "I_MPI_", "UCX_")


class ContenderError(Exception):
    """A contender could not be started or failed a slice; ``fault`` says what kind."""

    def __init__(self, contender: str, fault: Fault, message: str) -> None:
        super().__init__(f"{contender}: {message}")
        self.contender = contender
        self.fault = fault
        self.message = message


class RunningContender:
    """The two sides of one contender, ready for slices."""

    def __init__(self, contender: Contender, group: ProcessGroup, workspace: Workspace) -> None:
        self.contender = contender
        self.description: dict[str, Any] = {}
        self._group = group
        self._workspace = workspace
        self._log = workspace.directory / "output.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lines: dict[int, Line] = {}
        self._pids: dict[int, int] = {}

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name

    def start(self, processors: Sequence[int]) -> None:
        """Starts the processes and waits until each said hello.

        Raises :class:`ContenderError` with what the processes printed.
        """
        path = self._workspace.directory / "control"
        shared_environment = {
            control.ENVIRONMENT_SOCKET: str(path),
            control.ENVIRONMENT_CPUS: ",".join(map(str, processors)),
        }
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(4)
            launches = self.contender.launches(self._workspace)
            early = [launch for launch in launches if not launch.late]
            late = [launch for launch in launches if launch.late]
            self._launch(early, shared_environment)
            self._await_hellos(listener, 2)
            if late:
                self._launch(late, shared_environment)
                self._await_hellos(listener, self.contender.member_count)
        if self.contender.isolated:
            self._check_isolation()

    def run(self, command: Command) -> bytes:
        """One slice; returns the payload of side 0. Raises :class:`ContenderError`."""
        deadline = time.monotonic() + SLICE_REPLY_LIMIT_S
        try:
            for side in (1, 0):  # the answering side first, so that it is there
                self._lines[side].send_command(command)
            return self._collect(deadline)
        except SideError as error:
            raise self._failure(error.fault, str(error)) from error

    def _collect(self, deadline: float) -> bytes:
        """The payload of side 0, once both have answered.

        Whichever answers first is read first: when one side fails, the other may wait for ever.
        What is unsupported is so for both, and both say it.
        """
        payload = b""
        unsupported: SideError | None = None
        waiting = {self._lines[side]: side for side in (0, 1)}
        while waiting:
            wait_s = max(deadline - time.monotonic(), 0.0)
            ready, _, _ = select.select(list(waiting), [], [], wait_s)
            if not ready:
                raise SideError(Fault.LIBRARY, "the sides stay silent")
            for line in ready:
                side = waiting.pop(line)
                try:
                    _, _, reply = line.receive_reply(deadline)
                except SideError as error:
                    if error.fault is not Fault.UNSUPPORTED:
                        raise
                    unsupported = error
                else:
                    payload = reply if side == 0 else payload
        if unsupported is not None:
            raise unsupported
        return payload

    def stop(self) -> None:
        """Lets the sides finish in good order; those that do not are killed."""
        for line in self._lines.values():
            with contextlib.suppress(SideError):  # one that is gone needs no telling
                line.send_command(Command(Operation.QUIT))
        self._group.end(self._processes, _QUIT_GRACE_S if self._lines else 0.0)
        self.hang_up()

    def hang_up(self) -> None:
        """Closes the control sockets; a side that is still there ends by itself."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def _launch(self, launches: Sequence[Launch], shared: dict[str, str]) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FOREIGN_PREFIXES)
        }
        descriptors = {fd for launch in launches for fd in launch.descriptors}
        try:
            for launch in launches:
                environment = {**inherited, **shared, **launch.environment}
                self._processes.append(
                    self._group.start(
                        launch.command, environment, launch.descriptors, log=self._log
                    )
                )
        except OSError as error:
            raise self._failure(Fault.LIBRARY, f"could not be started: {error}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _await_hellos(self, listener: socket.socket, count: int) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        listener.settimeout(0.1)
        while len(self._lines) < count:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if any(process.poll() is not None for process in self._processes):
                    raise self._failure(Fault.LIBRARY, "ended while starting") from None
                if time.monotonic() > deadline:
                    raise self._failure(Fault.LIBRARY, "did not start in time") from None
                continue
            line = Line(connection)
            try:
                _, side, payload = line.receive_reply(deadline)
            except SideError as error:
                raise self._failure(error.fault, str(error)) from error
            self._lines[side] = line
            self._pids[side] = _peer_pid(connection)
            if side == 0:
                self.description = json.loads(payload)

    def _check_isolation(self) -> None:
        """The row claims that the sides share no name space; this makes sure."""
        own = os.getpid()
        for first, second in ((self._pids[0], self._pids[1]), (own, self._pids[0])):
            shared = isolate.shared_namespaces(first, second)
            if shared:
                raise self._failure(Fault.LIBRARY, f"the sides share {', '.join(shared)}")

    def _failure(self, fault: Fault, message: str) -> ContenderError:
        printed = ""
        if fault is not Fault.UNSUPPORTED and self._log.exists():
            lines = self._log.read_text(errors="replace").strip().splitlines()
            printed = "\n".join(lines[-_LOG_LINES:])
        text = f"{message}\n{printed}" if printed else message
        return ContenderError(self.name, fault, text)


def _peer_pid(connection: socket.socket) -> int:
    """The process at the other end, in our own PID name space."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int
    pid, _, _ = struct.unpack("3i", packed)
    return pid
