# SPDX-License-Identifier: Apache-2.0
"""Every number that bounds something in the backend, and the account of what each user has used.

Two kinds of limits live here. The constants protect the backend from any one connection: they are
not configurable, because no honest client comes near them. `Limits` is what one *user* may hold at
a time; the policy file sets it per user or group. Whoever reaches a limit is told so by name and
is the only one to notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

# A packet of the control protocol, either way. Longer ones are cut by the kernel and refused.
PACKET_BYTES_MAX = 64 * 1024
# Packets that the backend itself makes stay below this, so that a small socket buffer takes them.
SENT_PACKET_BYTES_MAX = 16 * 1024
# What the kernel may hold for a client that does not read (the kernel doubles it). It also bounds
# the descriptors in flight to one client: some 30 packets.
SOCKET_SEND_BYTES = 2 * SENT_PACKET_BYTES_MAX
# Packets waiting in the backend for a client that does not read; one more and it is dropped.
SEND_QUEUE_PACKETS_MAX = 64
# Packets handled for one client before the others get their turn.
PACKETS_PER_TURN = 8
# Connections accepted before the clients already here get their turn.
ACCEPTS_PER_TURN = 16
# A client may send this many packets at once, and so many a second in the long run; one that
# sends faster is read more slowly.
REQUEST_BURST = 1024
REQUESTS_PER_S = 1000.0
# Packets that break the schema before the connection is closed.
FAULTS_MAX = 8
# A connection that says nothing at all for so long is closed.
FIRST_MESSAGE_S = 30.0
# Connects of one endpoint that wait for their target.
PENDING_CONNECTS_MAX = 1024
# Channels of one endpoint: as many as its home file has lines for.
CHANNELS_PER_ENDPOINT_MAX = 1000
# The relay of a switched channel that was given up has so long to forward what is on the way.
RELAY_GRACE_S = 5.0
# How often it is looked whether it has finished.
RELAY_LOOK_S = 0.05
# Relays that may use that time at once; one more is stopped at once.
RELAYS_ENDING_MAX = 64
# Endpoint numbers are 0 .. ENDPOINT_NUMBER_MAX.
ENDPOINT_NUMBER_MAX = 0xFFFF
# Connections of one user beyond its endpoints: `info`, and endpoints that are about to open.
SPARE_CONNECTIONS = 16
# Descriptors that the backend holds for one endpoint: its socket, its home, its process.
DESCRIPTORS_PER_ENDPOINT = 3
# Descriptors kept free for the backend itself and for the introduction it is making.
SPARE_DESCRIPTORS = 64


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may hold at a time."""

    endpoints: int = 1024
    """Open endpoints."""
    channels: int = 16384
    """Channel ends: a channel between two endpoints of one user counts twice."""
    granted_bytes: int = 64 << 30
    """Bytes of channel files this user writes to. The files are sparse: this bounds what could be
    touched, not what is."""


class LimitReached(Exception):
    """A user's own limit; `what` names it in the words of the policy file."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"the limit of {most} {what} for this user is reached")
        self.what = what
        self.most = most


@dataclass(eq=False)
class Account:
    """What one user holds now. Taking is all or nothing."""

    uid: int
    limits: Limits
    connections: int = 0
    endpoints: int = 0
    channels: int = 0
    granted_bytes: int = 0

    def take_endpoint(self) -> None:
        """Counts one endpoint; raises LimitReached."""
        if self.endpoints >= self.limits.endpoints:
            raise LimitReached("endpoints", self.limits.endpoints)
        self.endpoints += 1

    def give_endpoint(self) -> None:
        """Takes back what `take_endpoint` counted."""
        assert self.endpoints > 0
        self.endpoints -= 1

    def take_channel(self, bytes_: int) -> None:
        """Counts one channel end whose file has `bytes_` bytes; raises LimitReached."""
        if self.channels >= self.limits.channels:
            raise LimitReached("channels", self.limits.channels)
        if self.granted_bytes + bytes_ > self.limits.granted_bytes:
            raise LimitReached("granted_bytes", self.limits.granted_bytes)
        self.channels += 1
        self.granted_bytes += bytes_

    def give_channel(self, bytes_: int) -> None:
        """Takes back what `take_channel` counted."""
        assert self.channels > 0
        assert self.granted_bytes >= bytes_
        self.channels -= 1
        self.granted_bytes -= bytes_

    def idle(self) -> bool:
        """Nothing is held: the account can be forgotten."""
        return not (self.connections or self.endpoints or self.channels)


@dataclass
class TokenBucket:
    """A rate limit: `burst` at once, `per_s` in the long run. Time comes from the caller."""

    burst: float
    per_s: float
    now: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        """Takes one token at time `now` (seconds); False when there is none."""
        self.tokens = min(self.burst, self.tokens + (now - self.now) * self.per_s)
        self.now = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def wait_s(self) -> float:
        """Seconds until there are enough tokens for a fair turn."""
        return PACKETS_PER_TURN / self.per_s
