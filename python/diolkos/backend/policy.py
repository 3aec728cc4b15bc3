# SPDX-License-Identifier: Apache-2.0
"""Who may be where, who may talk to whom, on which road, and how much each user may hold.

Without a policy file there is one rule: endpoints of the same user in the same partition may talk.
A file (`docs/reference/policy.md`) adds partitions that several users share, permits one partition
to connect to another, forces roads, and sets limits. What no rule allows is denied.

The questions are asked at two moments: when an endpoint opens (`realm`, `limits`) and when it
connects (`visible`, `route`). Messages are never asked about.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from diolkos.backend.limits import Limits
from diolkos.backend.memory import Credentials
from diolkos.backend.messages import Name, Road, WantedRoad
from diolkos.backend.registry import Realm

POLICY_VERSION = 1
POLICY_BYTES_MAX = 1 << 20

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
Who: TypeAlias = list[str | int]
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class PolicyError(Exception):
    """The policy file cannot be used; the message says where and why."""


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file."""


class _LimitsTable(_Table, frozen=True, kw_only=True):
    endpoints: Count | None = None
    channels: Count | None = None
    granted_bytes: Count | str | None = None


class _UserLimitsTable(_LimitsTable, frozen=True, kw_only=True):
    users: Who = []
    groups: Who = []


class _PartitionTable(_Table, frozen=True, kw_only=True):
    name: Name
    users: Who = []
    groups: Who = []
    road: Road | None = None
    process_vm: bool = False


class _AllowTable(_Table, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    source: Name
    target: Name
    road: Road | None = None


class _File(_Table, frozen=True, kw_only=True):
    version: Literal[1]
    unlisted_partitions: Literal["own-user", "refuse"] = "own-user"
    limits: _LimitsTable = _LimitsTable()
    user_limits: list[_UserLimitsTable] = []
    partition: list[_PartitionTable] = []
    allow: list[_AllowTable] = []


class Route(NamedTuple):
    """A permission to talk. `road` is the only road permitted, None when both are.

    `process_vm` says that the two trust each other with all of their memory.
    """

    road: Road | None
    why: str
    process_vm: bool = False

    def choose(self, wanted: WantedRoad) -> tuple[Road, str] | None:
        """The road of a channel and the reason; None when the policy wants another."""
        if self.road is not None:
            if wanted not in ("auto", self.road):
                return None
            return self.road, f"the policy wants it: {self.why}"
        if wanted == "auto":
            return "direct", f"both ends share memory on this host: {self.why}"
        return wanted, f"asked for: {self.why}"


class _People(NamedTuple):
    """Users and groups by number."""

    uids: frozenset[int]
    gids: frozenset[int]

    def include(self, who: Credentials) -> bool:
        return who.uid in self.uids or not self.gids.isdisjoint(who.gids)


class Policy:
    """A policy, read and resolved. Decisions depend on nothing else."""

    def __init__(self, file: _File | None = None, path: Path | None = None) -> None:
        file = file or _File(version=1)
        self.path = path
        self._refuse_unlisted = file.unlisted_partitions == "refuse"
        self._default_limits = _limits(file.limits, Limits())
        self._user_limits = [
            (_people(table.users, table.groups), _limits(table, self._default_limits))
            for table in file.user_limits
        ]
        self._members: dict[str, _People] = {}
        self._roads: dict[str, Road | None] = {}
        self._process_vm: set[str] = set()
        for partition in file.partition:
            if partition.name in self._members:
                raise PolicyError(f"partition {partition.name!r} is listed twice")
            self._members[partition.name] = _people(partition.users, partition.groups)
            self._roads[partition.name] = partition.road
            if partition.process_vm:
                if partition.road == "switched":
                    raise PolicyError(
                        f"partition {partition.name!r} wants process_vm on the switched road, "
                        "where no memory of a peer is reached"
                    )
                self._process_vm.add(partition.name)
        self._allowed: dict[str, dict[str, Route]] = {}
        for rule in file.allow:
            for name in (rule.source, rule.target):
                if name not in self._members:
                    raise PolicyError(f"[[allow]] names partition {name!r}, which is not listed")
            why = f"partition {rule.source!r} may connect to {rule.target!r}"
            road = rule.road or self._roads[rule.source] or self._roads[rule.target]
            self._allowed.setdefault(rule.source, {})[rule.target] = Route(road, why)

    def realm(self, who: Credentials, partition: str) -> Realm | None:
        """Where the names of an endpoint of `who` in `partition` live; None when denied."""
        members = self._members.get(partition)
        if members is not None:
            return Realm(partition, None) if members.include(who) else None
        return None if self._refuse_unlisted else Realm(partition, who.uid)

    def limits(self, who: Credentials) -> Limits:
        """What this user may hold: the first entry with its user, else the first with one of its
        groups, else the default."""
        for people, limits in self._user_limits:
            if who.uid in people.uids:
                return limits
        for people, limits in self._user_limits:
            if people.include(who):
                return limits
        return self._default_limits

    def route(self, source: Realm, target: Realm) -> Route | None:
        """Whether an endpoint in `source` may connect to one in `target`, and how."""
        if source == target:
            why = "same partition" if source.uid is None else "same user, same partition"
            # Only where the file says so: a partition of one user's own is not listed.
            trusting = source.uid is None and source.partition in self._process_vm
            return Route(self._roads.get(source.partition), why, trusting)
        if source.uid is not None or target.uid is not None:
            return None
        return self._allowed.get(source.partition, {}).get(target.partition)

    def visible(self, source: Realm) -> list[Realm]:
        """Where a name that an endpoint in `source` asks for is looked up, in order."""
        realms = [source]
        if source.uid is None:
            realms += (Realm(name, None) for name in self._allowed.get(source.partition, {}))
        return realms


def load(path: Path) -> Policy:
    """Reads a policy file; raises PolicyError."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
                raise PolicyError(f"others may change the policy file {path}")
            raw = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise PolicyError(f"the policy file {path} cannot be read: {error.strerror}") from None
    if len(raw) > POLICY_BYTES_MAX:
        raise PolicyError(f"the policy file {path} is larger than {POLICY_BYTES_MAX} bytes")
    try:
        return parse(raw.decode(), path)
    except UnicodeDecodeError:
        raise PolicyError(f"the policy file {path} is not UTF-8") from None


def parse(text: str, path: Path | None = None) -> Policy:
    """The policy that a TOML text describes; raises PolicyError."""
    where = f"the policy file {path}" if path else "the policy"
    try:
        return Policy(msgspec.convert(tomllib.loads(text), _File), path)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, PolicyError) as error:
        raise PolicyError(f"{where} is not valid: {error}") from None


def _limits(table: _LimitsTable, base: Limits) -> Limits:
    """`base` with what the table says changed."""
    granted = table.granted_bytes
    return Limits(
        endpoints=base.endpoints if table.endpoints is None else table.endpoints,
        channels=base.channels if table.channels is None else table.channels,
        granted_bytes=base.granted_bytes if granted is None else _bytes(granted),
    )


def _bytes(amount: int | str) -> int:
    """`"8 GiB"` in bytes."""
    if isinstance(amount, int):
        return amount
    match = re.fullmatch(r"([0-9]{1,15}) ?(|[KMGT]iB)", amount)
    if match is None:
        raise PolicyError(f"{amount!r} is not a number of bytes such as 1048576 or '8 GiB'")
    return int(match[1]) * _UNITS[match[2]]


def _people(users: Who, groups: Who) -> _People:
    """Resolves names once, when the policy is read; one that nobody has is an error."""
    try:
        uids = frozenset(u if isinstance(u, int) else pwd.getpwnam(u).pw_uid for u in users)
        gids = frozenset(g if isinstance(g, int) else grp.getgrnam(g).gr_gid for g in groups)
    except KeyError as error:
        raise PolicyError(str(error.args[0])) from None
    return _People(uids, gids)
