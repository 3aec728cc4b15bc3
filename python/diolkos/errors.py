# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, by whose doing.

::

    DiolkosError
    ├── ClosedError            this program closed the endpoint
    ├── ForkedError            the endpoint belongs to the parent of this forked process
    ├── Cancelled              this program cancelled the request
    ├── Timeout                the time limit passed              is a TimeoutError
    ├── BusyError              a name is taken, or too much is under way
    ├── LimitError             a named limit was reached
    │   └── ArenaFullError     no room in the endpoint's arena
    ├── PeerError              the peer is at fault, or gone      is a ConnectionError
    │   ├── NotConnected       no such peer, or not any more
    │   ├── PeerClosed         it closed its endpoint
    │   ├── PeerDied           its process ended
    │   └── PeerMisbehaved     it broke the protocol
    ├── RegionError            an operation on a region was refused
    │   ├── KeyRefusedError    the key does not open it, or not for this
    │   ├── RevokedError       its owner took it back
    │   └── RangeError         there is no such place in it   is a ValueError
    ├── BackendError           no backend, or a wrong one         is a ConnectionError
    ├── DeniedError            the backend's policy forbids it    is a PermissionError
    ├── NotFoundError          nobody of that name                is a LookupError
    ├── NotAnObject            recv_object got something else     is a ValueError
    └── SystemRefusal          the system refused                 is an OSError

Misuse of a call is a plain `ValueError`, `TypeError` or `BufferError`. A receive that was shorter
than its message is not an error: its status says `truncated`.
"""

from __future__ import annotations

__all__ = [
    "ArenaFullError",
    "BackendError",
    "BusyError",
    "Cancelled",
    "ClosedError",
    "DeniedError",
    "DiolkosError",
    "ForkedError",
    "KeyRefusedError",
    "LimitError",
    "NotAnObject",
    "NotConnected",
    "NotFoundError",
    "PeerClosed",
    "PeerDied",
    "PeerError",
    "PeerMisbehaved",
    "RangeError",
    "RegionError",
    "RevokedError",
    "SystemRefusal",
    "Timeout",
]


class DiolkosError(Exception):
    """Anything that Diolkos reports. `hint` says what to do about it, where that is known."""

    #: The place of the request in the list given to `wait_any`, if it came from there.
    index: int | None = None

    def __init__(self, message: str = "", hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint is not None:
            self.add_note(f"hint: {hint}")


class ClosedError(DiolkosError):
    """The endpoint was closed by this program."""


class ForkedError(DiolkosError):
    """The endpoint was opened by the parent of this forked process, which goes on using it."""


class Cancelled(DiolkosError):
    """The request was cancelled by this program."""


class Timeout(DiolkosError, TimeoutError):
    """The time limit passed first."""


class BusyError(DiolkosError):
    """A name or number is taken, too many sends wait for a peer, or another thread waits."""


class LimitError(DiolkosError):
    """A limit was reached: of this endpoint, of the backend, or of the user."""


class ArenaFullError(LimitError):
    """There is no room in the endpoint's arena. Free memory that is not needed, or open the
    endpoint with a larger `arena_nbytes`."""


class RegionError(DiolkosError):
    """An operation on a region was refused, by its owner or on its behalf. Nothing was changed."""


class KeyRefusedError(RegionError):
    """The key is not one of this peer's, is bound to another peer, or does not allow writing. Ask
    the owner of the region for one that does."""


class RevokedError(RegionError):
    """The owner has taken the region back. An operation that was under way may be done in part."""


class RangeError(RegionError, ValueError):
    """The place lies outside of the region, or the word of an atomic operation is not at a multiple
    of 8 bytes."""


class PeerError(DiolkosError, ConnectionError):
    """The peer is gone or not to be trusted any more."""


class NotConnected(PeerError):
    """There is no such peer, or this endpoint was disconnected from it."""


class PeerClosed(PeerError):
    """The peer closed its endpoint."""


class PeerDied(PeerError):
    """The peer's process ended without closing its endpoint."""


class PeerMisbehaved(PeerError):
    """The peer wrote nonsense; its channel was closed."""


class BackendError(DiolkosError, ConnectionError):
    """No backend answers, or it is not one that this library can work with."""


class DeniedError(DiolkosError, PermissionError):
    """The backend's policy does not allow it."""


class NotFoundError(DiolkosError, LookupError):
    """Nobody of that name or number, for all that this endpoint may know."""


class NotAnObject(DiolkosError, ValueError):
    """The message is not an object, or longer than the receiver allows."""


class SystemRefusal(DiolkosError, OSError):
    """The system refused: no memory, no descriptors, no room. `errno` says why."""

    def __init__(self, errno: int, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.errno = errno
        self.strerror = message

    def __str__(self) -> str:
        return str(self.strerror)
