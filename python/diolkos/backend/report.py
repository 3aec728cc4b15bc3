# SPDX-License-Identifier: Apache-2.0
"""What `info` answers: the backend, and the endpoints and channels that the asker may see.

A user sees its own endpoints; the backend's own user and root see all. The counters are not in the
answer: they are in each endpoint's home, of which the asker gets a read-only descriptor, so that
watching costs neither the backend nor the endpoint anything.

The answer is made page by page as the asker reads it, so that an asker that does not read holds up
one page and no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata

from diolkos.backend import memory
from diolkos.backend.memory import EXHAUSTED, Credentials
from diolkos.backend.messages import (
    PROTOCOL_VERSION,
    BackendInfo,
    ChannelInfo,
    EndpointInfo,
    ErrorCode,
    ErrorReply,
    InfoPage,
    Reply,
)
from diolkos.backend.registry import Endpoint, Registry

ENDPOINTS_PER_PAGE = 16
# At most some 170 bytes each, so that a page stays below SENT_PACKET_BYTES_MAX.
CHANNELS_PER_PAGE = 64
REASON_CHARS_MAX = 100


def backend_info(
    registry: Registry, generation: int, uptime_s: float, policy: str | None
) -> BackendInfo:
    """The backend's own line; counts include what the asker may not see only for its owner."""
    return BackendInfo(
        pid=os.getpid(),
        uid=os.geteuid(),
        version=version(),
        protocol=PROTOCOL_VERSION,
        generation=generation,
        uptime_s=round(uptime_s, 3),
        endpoints=len(registry.endpoints()),
        channels=len(registry.channels()),
        policy=policy,
    )


def pages(
    registry: Registry, backend: BackendInfo, asker: Credentials, request_id: int, now: float
) -> Iterator[tuple[Reply, list[int]]]:
    """The packets of the answer and their descriptors."""
    sees_all = asker.uid in (0, os.geteuid())
    endpoints = [e for e in registry.endpoints() if sees_all or e.credentials.uid == asker.uid]
    visible = {e.number for e in endpoints}
    if not sees_all:
        backend.endpoints = len(endpoints)
        backend.policy = None
    channels = [
        ChannelInfo(
            channel=c.number,
            a=c.a.number,
            b=c.b.number,
            road=c.road,
            reason=c.reason[:REASON_CHARS_MAX],
        )
        for c in registry.channels()
        if c.a.number in visible or c.b.number in visible
    ]
    channels += [
        ChannelInfo(
            channel=claim.channel,
            a=e.number,
            b=None,
            road=claim.road,
            reason="made by an earlier backend, the other end has not come back",
        )
        for e in endpoints
        for claim in e.claims.values()
    ]
    backend.channels = len(channels)
    head: BackendInfo | None = backend
    while head is not None or endpoints or channels:
        part, endpoints = endpoints[:ENDPOINTS_PER_PAGE], endpoints[ENDPOINTS_PER_PAGE:]
        # An endpoint may have left since the answer was begun.
        part = [e for e in part if registry.numbered(e.number) is e]
        some = [] if endpoints else channels[:CHANNELS_PER_PAGE]
        channels = channels[len(some) :]
        page = InfoPage(
            id=request_id,
            backend=head,
            endpoints=[_endpoint_info(e, now) for e in part],
            channels=some,
            more=bool(endpoints or channels),
        )
        head = None
        try:
            yield page, _homes(part)
        except OSError as error:
            code: ErrorCode = "limit" if error.errno in EXHAUSTED else "internal"
            yield ErrorReply(id=request_id, code=code, message=str(error)), []
            return


def _endpoint_info(endpoint: Endpoint, now: float) -> EndpointInfo:
    return EndpointInfo(
        number=endpoint.number,
        name=endpoint.name,
        partition=endpoint.realm.partition,
        uid=endpoint.credentials.uid,
        pid=endpoint.credentials.pid,
        age_s=round(now - endpoint.opened_s, 3),
        channels=len(endpoint.channels) + len(endpoint.claims),
    )


def _homes(endpoints: list[Endpoint]) -> list[int]:
    """Read-only descriptors of their homes; raises OSError."""
    with memory.Descriptors() as held:
        for endpoint in endpoints:
            held.add(memory.read_only(endpoint.home))
        return held.release()


def version() -> str:
    """The version of this installation."""
    try:
        return metadata.version("diolkos")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"
