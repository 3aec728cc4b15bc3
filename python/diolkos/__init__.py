# SPDX-License-Identifier: Apache-2.0
"""Messages between isolated programs, through memory granted for them.

    import diolkos

    with diolkos.Endpoint("alice") as ep:
        bob = ep.connect("bob", timeout=5)
        ep.send(array, bob, match=7)
        n = ep.recv_into(array, match=7).nbytes

`diolkos.asyncio` has the same names for programs with an event loop.
"""

from diolkos._core import (
    ClaimedMessage,
    Delivery,
    Endpoint,
    Message,
    MultiReceive,
    Peer,
    Request,
    Status,
    wait_any,
)
from diolkos.errors import (
    BackendError,
    BusyError,
    Cancelled,
    ClosedError,
    DeniedError,
    DiolkosError,
    ForkedError,
    LimitError,
    NotConnected,
    NotFoundError,
    PeerClosed,
    PeerDied,
    PeerError,
    PeerMisbehaved,
    SystemRefusal,
    Timeout,
)

__all__ = [
    "BackendError",
    "BusyError",
    "Cancelled",
    "ClaimedMessage",
    "ClosedError",
    "Delivery",
    "DeniedError",
    "DiolkosError",
    "Endpoint",
    "ForkedError",
    "LimitError",
    "Message",
    "MultiReceive",
    "NotConnected",
    "NotFoundError",
    "Peer",
    "PeerClosed",
    "PeerDied",
    "PeerError",
    "PeerMisbehaved",
    "Request",
    "Status",
    "SystemRefusal",
    "Timeout",
    "wait_any",
]
