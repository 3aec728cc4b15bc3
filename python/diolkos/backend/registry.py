# SPDX-License-Identifier: Apache-2.0
"""Which endpoints and channels there are. Plain tables: no I/O, no policy.

Endpoints have a number, unique in this backend, and a name, unique in its *realm*. A realm is a
partition as one group of users sees it: a partition that the policy does not list exists once per
user, so that two users who both say "default" are not in each other's way and cannot even learn of
each other; one that it lists exists once for everybody whom it lets in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from diolkos.backend.limits import ENDPOINT_NUMBER_MAX, Account
from diolkos.backend.memory import Credentials
from diolkos.backend.messages import Claim, Reply, Road


class Realm(NamedTuple):
    """Where a name means something. `uid` is None in a partition that users share."""

    partition: str
    uid: int | None


class Client(Protocol):
    """What the tables need to know of a connection."""

    def send(self, reply: Reply, descriptors: list[int] | None = None) -> bool:
        """Sends, or drops the client and returns False; owns the descriptors either way."""

    def drop(self, reason: str) -> None:
        """Ends the connection."""


class Middle(Protocol):
    """What carries a switched channel."""

    def finish(self) -> None:
        """Ends it when what is on the way has been forwarded. Returns at once."""

    def is_alive(self) -> bool:
        """Whether it still carries messages."""

    def stop(self) -> None:
        """Ends it now; both ends see a closed channel."""


@dataclass(eq=False)
class Endpoint:
    """One open endpoint."""

    number: int
    name: str
    realm: Realm
    credentials: Credentials
    client: Client
    account: Account
    home: int
    process: int | None
    opened_s: float
    # What a connect that brings a key must bring.
    key: int | None = None
    channels: dict[int, Channel] = field(default_factory=dict)
    # Channels from before a restart whose other end has not said the same yet, by channel number.
    claims: dict[int, Claim] = field(default_factory=dict)


@dataclass(eq=False)
class Channel:
    """One channel between two endpoints; `a` asked for it."""

    number: int
    a: Endpoint
    b: Endpoint
    road: Road
    reason: str
    middle: Middle | None = None

    def other(self, endpoint: Endpoint) -> Endpoint:
        """The end that is not `endpoint`."""
        return self.b if endpoint is self.a else self.a


class Taken(Exception):
    """A number or name is in use."""


class Registry:
    """The tables. Every method keeps them consistent with each other."""

    def __init__(self, first_number: int = 0) -> None:
        self._by_number: dict[int, Endpoint] = {}
        self._by_name: dict[tuple[Realm, str], Endpoint] = {}
        self._by_pair: dict[tuple[int, int], Channel] = {}
        self._channels: dict[int, Channel] = {}
        self._first_number = first_number
        # Every number from the first one to below this one is in use.
        self._floor = first_number

    def free_number(self) -> int:
        """The lowest free number from the first one on, else the lowest; raises Taken when there
        is none."""
        while self._floor in self._by_number:
            self._floor += 1
        if self._floor <= ENDPOINT_NUMBER_MAX:
            return self._floor
        for number in range(self._first_number):
            if number not in self._by_number:
                return number
        raise Taken("every endpoint number is in use")

    def check_free(self, number: int, realm: Realm, name: str) -> None:
        """Raises Taken unless an endpoint may have this number and this name."""
        if number in self._by_number:
            raise Taken(f"endpoint number {number} is in use")
        if (realm, name) in self._by_name:
            raise Taken(f"the name {name!r} is in use in partition {realm.partition!r}")

    def add(self, endpoint: Endpoint) -> None:
        """Enters an endpoint whose number and name are free."""
        self.check_free(endpoint.number, endpoint.realm, endpoint.name)
        self._by_number[endpoint.number] = endpoint
        self._by_name[endpoint.realm, endpoint.name] = endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Takes an endpoint without channels out."""
        assert not endpoint.channels
        assert self._by_number[endpoint.number] is endpoint
        del self._by_number[endpoint.number]
        del self._by_name[endpoint.realm, endpoint.name]
        if endpoint.number >= self._first_number:
            self._floor = min(self._floor, endpoint.number)

    def numbered(self, number: int) -> Endpoint | None:
        """The endpoint of that number."""
        return self._by_number.get(number)

    def named(self, realm: Realm, name: str) -> Endpoint | None:
        """The endpoint of that name."""
        return self._by_name.get((realm, name))

    def join(self, channel: Channel) -> None:
        """Enters a channel between two endpoints that have none."""
        pair = _pair(channel.a, channel.b)
        assert pair not in self._by_pair
        assert channel.number not in self._channels
        self._by_pair[pair] = channel
        self._channels[channel.number] = channel
        channel.a.channels[channel.number] = channel
        channel.b.channels[channel.number] = channel

    def part(self, channel: Channel) -> None:
        """Takes a channel out."""
        assert self._channels[channel.number] is channel
        del self._by_pair[_pair(channel.a, channel.b)]
        del self._channels[channel.number]
        del channel.a.channels[channel.number]
        del channel.b.channels[channel.number]

    def between(self, a: Endpoint, b: Endpoint) -> Channel | None:
        """The channel of two endpoints."""
        return self._by_pair.get(_pair(a, b))

    def holds_channel(self, number: int) -> bool:
        """Whether a channel of that number is entered."""
        return number in self._channels

    def endpoints(self) -> list[Endpoint]:
        """All endpoints by rising number."""
        return [self._by_number[number] for number in sorted(self._by_number)]

    def channels(self) -> list[Channel]:
        """All channels, the oldest first."""
        return list(self._channels.values())


def _pair(a: Endpoint, b: Endpoint) -> tuple[int, int]:
    """A channel is found by its ends in either order."""
    return (a.number, b.number) if a.number < b.number else (b.number, a.number)
