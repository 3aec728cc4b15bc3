# SPDX-License-Identifier: Apache-2.0
"""The program: start, listen, accept, stop.

Start: open the runtime directory, take its lock, remove the socket that a killed predecessor may
have left, listen, say so. Whoever holds the lock is the backend, so there is never a doubt whose
socket it is. Stop (SIGTERM, SIGINT, or idle): remove the socket, close every connection, leave;
endpoints that are still there keep their direct channels and come back when a new backend listens.

Descriptors are what runs out first. Connections are counted, in all and per user, against what the
process may open, so that an introduction finds some free; a connection beyond the count is accepted
only to be told why it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diolkos.backend import memory, paths
from diolkos.backend.introduce import Introducer
from diolkos.backend.limits import (
    ACCEPTS_PER_TURN,
    DESCRIPTORS_PER_ENDPOINT,
    SPARE_CONNECTIONS,
    SPARE_DESCRIPTORS,
    Account,
)
from diolkos.backend.log import Log
from diolkos.backend.messages import ErrorReply, encode
from diolkos.backend.numbering import Numbering
from diolkos.backend.policy import Policy
from diolkos.backend.registry import Registry
from diolkos.backend.session import Session

LISTEN_BACKLOG = 512


@dataclass(frozen=True)
class Options:
    """How to run a backend."""

    directory: paths.Choice
    policy: Policy
    group: int | None = None
    # Leave after so many seconds without endpoints; 0 is never.
    idle_exit_s: float = 0.0
    # Called once, when clients can connect.
    ready: Callable[[str], None] | None = None
    # Called with every line of the log.
    log_copy: Callable[[str], None] | None = None


class StartError(Exception):
    """The backend cannot start; nothing is left behind."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class AlreadyRunning(StartError):
    """Another backend has the runtime directory."""


class Backend:
    """A running backend: the tables and the connections. It is the `Host` of its sessions."""

    def __init__(
        self, options: Options, listener: socket.socket, numbering: Numbering, log: Log
    ) -> None:
        self.numbering = numbering
        self.registry = Registry(numbering.start)
        self.policy = options.policy
        self.log = log
        # Random, so that an endpoint notices that its backend is another one; 31 bits, so that
        # with 32 bits of counter below it a channel number is a positive 64-bit integer.
        self.generation = secrets.randbelow(2**31 - 1) + 1
        self.introducer = Introducer(self.registry, self.policy, log, self.generation)
        self._started_s = time.monotonic()
        self._listener = listener
        self._sessions: set[Session] = set()
        self._accounts: dict[int, Account] = {}
        self._stop = asyncio.Event()
        self._why = "stopped"
        self._idle_exit_s = options.idle_exit_s
        self._idle_timer: asyncio.TimerHandle | None = None
        descriptors = memory.raise_descriptor_limit()
        spare = min(SPARE_DESCRIPTORS, descriptors // 2)
        self._connections_max = max(1, (descriptors - spare) // DESCRIPTORS_PER_ENDPOINT)
        # Given up for a moment to tell one more client that there are no descriptors left.
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def now_s(self) -> float:
        """Seconds since the backend started."""
        return time.monotonic() - self._started_s

    async def run(self) -> str:
        """Serves until it is told to stop, or is idle; returns why."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish, signal.Signals(number).name)
        loop.add_reader(self._listener, self._accept)
        self._watch_idleness()
        await self._stop.wait()
        loop.remove_reader(self._listener)
        if not self.registry.endpoints():
            self.numbering.forget()
        for session in list(self._sessions):
            session.drop("closed")
        # The ends of the sessions are on their way through the loop.
        while self._sessions:
            await asyncio.sleep(0)
        os.close(self._reserve)
        return self._why

    def ended(self, session: Session) -> None:
        """A session is over."""
        self._sessions.discard(session)
        account = session.account
        account.connections -= 1
        if account.idle():
            self._accounts.pop(account.uid, None)
        self._watch_idleness()

    def _finish(self, why: str) -> None:
        self._why = why
        self._stop.set()

    def _watch_idleness(self) -> None:
        """(Re)starts the clock that ends a backend without endpoints."""
        if self._idle_exit_s <= 0 or self.registry.endpoints():
            return
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(self._idle_exit_s, self._idle)

    def _idle(self) -> None:
        if not self.registry.endpoints():
            self._finish(f"no endpoints for {self._idle_exit_s:g} s")

    def _accept(self) -> None:
        """Takes a fair turn's worth of new connections."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away_one()
                # Otherwise the client gave up before it was accepted.
                continue
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        """Starts the session of a new connection, or tells it why not."""
        process: int | None = None
        try:
            who = memory.peer_credentials(sock)
            account = self._accounts.get(who.uid)
            if account is None:
                account = Account(who.uid, self.policy.limits(who))
            if refusal := self._refusal(account):
                _turn_away(sock, refusal)
                self.log.client("warning", "connection refused", who.uid, reason=refusal)
                return
            process = memory.peer_process(sock, who.pid)
            session = Session(self, account, sock, who, process)
        except OSError as error:
            # Its process is gone already, or descriptors ran out under its feet.
            memory.close_all([] if process is None else [process])
            if error.errno in memory.EXHAUSTED:
                _turn_away(sock, "the backend has no descriptors left")
            sock.close()
            return
        self._accounts[who.uid] = account
        account.connections += 1
        self._sessions.add(session)

    def _refusal(self, account: Account) -> str | None:
        """Why a user may not have one more connection now."""
        if len(self._sessions) >= self._connections_max:
            return f"the backend serves at most {self._connections_max} connections"
        most = account.limits.endpoints + SPARE_CONNECTIONS
        if account.uid != os.geteuid():
            # However generous the policy: no guest can use up the backend's descriptors.
            most = min(most, max(1, self._connections_max // 4))
        if account.connections >= most:
            return f"the limit of {most} connections for this user is reached"
        return None

    def _turn_away_one(self) -> None:
        """Out of descriptors: uses the reserve to tell one client so, lest it wait for ever."""
        os.close(self._reserve)
        try:
            sock, _ = self._listener.accept()
            _turn_away(sock, "the backend has no descriptors left")
        except OSError:
            pass
        finally:
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.log.error("out of descriptors")


def _turn_away(sock: socket.socket, why: str) -> None:
    """Tells a client that it cannot be served, and closes."""
    reply = ErrorReply(id=0, code="limit", message=why, hint="close other endpoints first")
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(encode(reply))
    sock.close()


def run(options: Options) -> str:
    """Runs a backend until it ends, and says why it did; raises StartError."""
    os.umask(0o077)
    try:
        directory = paths.open_for_backend(options.directory, options.group)
    except paths.RuntimeDirError as error:
        raise StartError(str(error), error.hint) from None
    with directory:
        lock = _lock(directory)
        try:
            directory.remove_socket()
            listener = _listen(directory, options.group)
            try:
                return _serve(options, directory, listener, Numbering(lock))
            finally:
                directory.remove_socket()
                listener.close()
        except OSError as error:
            raise _no_room(directory.path, error) from None
        finally:
            os.close(lock)


def _lock(directory: paths.RuntimeDir) -> int:
    """The lock of the directory; raises StartError."""
    try:
        lock = directory.lock()
    except OSError as error:
        raise _no_room(directory.path, error) from None
    if lock is None:
        raise AlreadyRunning(
            f"a backend is already running in {directory.path}",
            "`diolkos info` shows it; --runtime-dir gives another its own place",
        )
    return lock


def _no_room(path: Path, error: OSError) -> StartError:
    return StartError(
        f"the backend cannot work in {path}: {error.strerror}",
        "free space there, or name another place with --runtime-dir",
    )


def _listen(directory: paths.RuntimeDir, group: int | None) -> socket.socket:
    """The listening socket, for the owner and perhaps a group; raises OSError."""
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.bind(directory.socket_address())
        if group is not None:
            os.chown(paths.SOCKET_NAME, -1, group, dir_fd=directory.descriptor)
            os.chmod(paths.SOCKET_NAME, 0o660, dir_fd=directory.descriptor)
        listener.listen(LISTEN_BACKLOG)
    except BaseException:
        listener.close()
        directory.remove_socket()
        raise
    return listener


def _serve(
    options: Options, directory: paths.RuntimeDir, listener: socket.socket, numbering: Numbering
) -> str:
    """Serves until the end; says why it came."""
    log = Log(directory.descriptor, paths.LOG_NAME, copy=options.log_copy)
    address = str(directory.path / paths.SOCKET_NAME)

    async def main() -> str:
        backend = Backend(options, listener, numbering, log)
        log.info(
            "started",
            pid=os.getpid(),
            socket=address,
            generation=backend.generation,
            policy=str(options.policy.path) if options.policy.path else None,
        )
        if options.ready is not None:
            options.ready(address)
        return await backend.run()

    try:
        why = asyncio.run(main())
        log.info("stopped", reason=why)
        return why
    finally:
        log.close()
