# SPDX-License-Identifier: Apache-2.0
"""What each request of one client means.

A connection starts as nobody. `open` makes it an endpoint, for good: it ends with the connection.
`info` needs no endpoint. Everything else is for endpoints only.
"""

from __future__ import annotations

import socket
from typing import Protocol

from diolkos.backend import memory, messages, report
from diolkos.backend.connection import Connection
from diolkos.backend.introduce import Introducer
from diolkos.backend.limits import Account, LimitReached
from diolkos.backend.log import Level, Log
from diolkos.backend.memory import EXHAUSTED, Credentials
from diolkos.backend.messages import (
    BadRequest,
    Cancel,
    Claims,
    Connect,
    Disconnect,
    ErrorCode,
    ErrorReply,
    Info,
    Open,
    Opened,
    Request,
)
from diolkos.backend.numbering import Numbering
from diolkos.backend.policy import Policy
from diolkos.backend.registry import Endpoint, Realm, Registry, Taken


class Host(Protocol):
    """What a session needs of the backend that it belongs to."""

    registry: Registry
    policy: Policy
    introducer: Introducer
    log: Log
    numbering: Numbering
    generation: int

    def now_s(self) -> float:
        """Seconds since the backend started."""

    def ended(self, session: Session) -> None:
        """A session is over; its endpoint, if it had one, has been taken out."""


class Session:
    """One client, from connect to end."""

    def __init__(
        self,
        host: Host,
        account: Account,
        sock: socket.socket,
        credentials: Credentials,
        process: int | None,
    ) -> None:
        self.account = account
        self.endpoint: Endpoint | None = None
        self._host = host
        self._connection = Connection(
            sock, credentials, process, on_packet=self._packet, on_end=self._ended
        )

    def drop(self, reason: str) -> None:
        """Ends the connection."""
        self._connection.drop(reason)

    def _packet(self, packet: memoryview) -> None:
        try:
            request = messages.parse(packet)
        except BadRequest as bad:
            self._connection.fault(bad.code, str(bad), bad.request_id)
            return
        try:
            self._handle(request)
        except Exception as bug:
            # Ours, not the client's; but it is this client that found it, so it alone pays.
            self._host.log.error("internal error", request=type(request).__name__, reason=repr(bug))
            self._refuse(request.id, "internal", "the backend failed, its log says how")
            self._connection.drop("internal error")

    def _handle(self, request: Request) -> None:
        endpoint, introducer = self.endpoint, self._host.introducer
        if isinstance(request, Info):
            self._info(request)
        elif isinstance(request, Open):
            self._open(request)
        elif endpoint is None:
            self._connection.fault("invalid", "the first request is open or info", request.id)
        elif isinstance(request, Connect):
            introducer.connect(endpoint, request)
        elif isinstance(request, Cancel):
            introducer.cancel(endpoint, request.target_id)
        elif isinstance(request, Disconnect):
            introducer.disconnect(endpoint, request.channel)
        elif isinstance(request, Claims):
            for claim in request.channels:
                introducer.claim(endpoint, claim)

    def _open(self, request: Open) -> None:
        """Makes the connection an endpoint, or says why not; nothing is half-made."""
        host, who = self._host, self._connection.credentials
        if self.endpoint is not None:
            self._connection.fault("invalid", "this connection is an endpoint already", request.id)
            return
        realm = host.policy.realm(who, request.partition)
        if realm is None:
            message = f"the policy does not let you into partition {request.partition!r}"
            self._refuse(request.id, "denied", message)
            return
        try:
            number, name = self._identity(request, realm)
            self.account.take_endpoint()
        except Taken as taken:
            self._refuse(request.id, "busy", str(taken))
            return
        except LimitReached as limit:
            hint = "close other endpoints, or see [limits] in the backend's policy"
            self._refuse(request.id, "limit", str(limit), hint)
            return
        with memory.Descriptors() as held:
            try:
                home = held.add(memory.home_file())
                theirs = held.add(memory.duplicate(home))
            except OSError as error:
                self.account.give_endpoint()
                code: ErrorCode = "limit" if error.errno in EXHAUSTED else "internal"
                message = f"the backend cannot make an endpoint now: {error.strerror}"
                self._refuse(request.id, code, message)
                return
            held.release()
        self._connection.home = home
        self.endpoint = Endpoint(
            number=number,
            name=name,
            realm=realm,
            credentials=who,
            client=self._connection,
            account=self.account,
            home=home,
            process=self._connection.process,
            opened_s=host.now_s(),
            key=request.key,
        )
        host.registry.add(self.endpoint)
        host.numbering.note(number)
        self._welcome(request, self.endpoint, theirs)

    def _identity(self, request: Open, realm: Realm) -> tuple[int, str]:
        """The number and the name that a new endpoint gets; raises Taken."""
        number = request.number
        if request.resume is not None:
            number = request.resume.number
        if number is None:
            number = self._host.registry.free_number()
        name = request.name if request.name is not None else f"ep-{number}"
        self._host.registry.check_free(number, realm, name)
        return number, name

    def _welcome(self, request: Open, endpoint: Endpoint, home: int) -> None:
        """Answers, takes back what the endpoint held before, and serves those who wait for it."""
        limits = self.account.limits
        self._connection.send(
            Opened(
                id=request.id,
                number=endpoint.number,
                name=endpoint.name,
                partition=endpoint.realm.partition,
                generation=self._host.generation,
                limits={
                    "endpoints": limits.endpoints,
                    "channels": limits.channels,
                    "granted_bytes": limits.granted_bytes,
                },
            ),
            [home],
        )
        self._host.log.client(
            "info",
            "opened",
            self.account.uid,
            number=endpoint.number,
            name=endpoint.name,
            partition=endpoint.realm.partition,
            pid=endpoint.credentials.pid,
            resumed=request.resume is not None,
        )
        if request.resume is not None:
            for claim in request.resume.channels:
                self._host.introducer.claim(endpoint, claim)
        self._host.introducer.arrived(endpoint)

    def _info(self, request: Info) -> None:
        host = self._host
        policy = str(host.policy.path) if host.policy.path else None
        about = report.backend_info(host.registry, host.generation, host.now_s(), policy)
        pages = report.pages(
            host.registry, about, self._connection.credentials, request.id, host.now_s()
        )
        if not self._connection.send_pages(pages):
            self._refuse(request.id, "busy", "an earlier info is still being answered")

    def _refuse(
        self, request_id: int, code: ErrorCode, message: str, hint: str | None = None
    ) -> None:
        self._connection.send(ErrorReply(id=request_id, code=code, message=message, hint=hint))
        self._host.log.client("warning", "refused", self.account.uid, code=code, reason=message)

    def _ended(self, reason: str) -> None:
        """Takes the endpoint out and tells its peers."""
        if self.endpoint is not None:
            endpoint, self.endpoint = self.endpoint, None
            self._host.introducer.left(endpoint)
            self._host.registry.remove(endpoint)
            self.account.give_endpoint()
        ordinary = reason in ("closed", "its process ended")
        level: Level = "info" if ordinary else "warning"
        self._host.log.client(
            level,
            "closed" if ordinary else "dropped",
            self.account.uid,
            pid=self._connection.credentials.pid,
            reason=reason,
        )
        self._host.ended(self)
