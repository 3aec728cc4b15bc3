# SPDX-License-Identifier: Apache-2.0
"""Messages between isolated programs, through memory granted for them.

    import diolkos

    with diolkos.Endpoint("alice") as ep:
        bob = ep.connect("bob", timeout=5)
        ep.send(array, bob, match=7)
        n = ep.recv_into(array, match=7).nbytes

`diolkos.asyncio` has the same names for programs with an event loop.

The names are loaded when they are first used: the backend and the command line, which live in this
package, need no native module and start without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diolkos._core import (
        ArenaStatus,
        ClaimedMessage,
        Delivery,
        Endpoint,
        Key,
        Loan,
        Memory,
        Message,
        MultiReceive,
        Peer,
        Region,
        Request,
        Status,
        wait_any,
    )
    from diolkos.errors import (
        ArenaFullError,
        BackendError,
        BusyError,
        Cancelled,
        ClosedError,
        DeniedError,
        DiolkosError,
        ForkedError,
        KeyRefusedError,
        LimitError,
        NotAnObject,
        NotConnected,
        NotFoundError,
        PeerClosed,
        PeerDied,
        PeerError,
        PeerMisbehaved,
        RangeError,
        RegionError,
        RevokedError,
        SystemRefusal,
        Timeout,
    )

__all__ = [
    "ArenaFullError",
    "ArenaStatus",
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
    "Key",
    "KeyRefusedError",
    "LimitError",
    "Loan",
    "Memory",
    "Message",
    "MultiReceive",
    "NotAnObject",
    "NotConnected",
    "NotFoundError",
    "Peer",
    "PeerClosed",
    "PeerDied",
    "PeerError",
    "PeerMisbehaved",
    "RangeError",
    "Region",
    "RegionError",
    "Request",
    "RevokedError",
    "Status",
    "SystemRefusal",
    "Timeout",
    "wait_any",
]

_NATIVE = frozenset(
    {
        "ArenaStatus",
        "ClaimedMessage",
        "Delivery",
        "Endpoint",
        "Key",
        "Loan",
        "Memory",
        "Message",
        "MultiReceive",
        "Peer",
        "Region",
        "Request",
        "Status",
        "wait_any",
    }
)


def __getattr__(name: str) -> object:
    """Loads a public name, once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "diolkos._core" if name in _NATIVE else "diolkos.errors"
    if name in _NATIVE:
        # What the native module raises must be there by then: a process that is out of descriptors
        # could not load it any more.
        importlib.import_module("diolkos.errors")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
