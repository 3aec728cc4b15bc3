# SPDX-License-Identifier: Apache-2.0
"""The schema of every packet on the control socket.

Requests come from strangers: each field has a type and a bound, unknown fields and unknown types
are refused, and what comes out of `parse` needs no further checking of shape. Replies are built
from structs too, so that the protocol can be read here from top to bottom.
`docs/reference/control.md` says what each message means.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from diolkos.backend.limits import ENDPOINT_NUMBER_MAX

PROTOCOL_VERSION = 1
# Channels in one `open` or `claim`; as many as surely fit a packet.
CLAIMS_PER_PACKET_MAX = 200
# A connect may wait at most so long, in milliseconds (some 49 days); null waits for ever.
TIMEOUT_MS_MAX = 0xFFFF_FFFF

# `\Z`, not `$`: a trailing newline is not part of a name.
_NAME_PATTERN = r"^[A-Za-z0-9._:/-]+\Z"
Id: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
ChannelId: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128, pattern=_NAME_PATTERN)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=ENDPOINT_NUMBER_MAX)]
Key: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
Timeout: TypeAlias = Annotated[int, Meta(ge=0, le=TIMEOUT_MS_MAX)]
Road: TypeAlias = Literal["direct", "switched"]
WantedRoad: TypeAlias = Literal["auto", "direct", "switched"]
ErrorCode: TypeAlias = Literal[
    "denied",
    "busy",
    "limit",
    "invalid",
    "version",
    "not_found",
    "bad_key",
    "timeout",
    "internal",
]


class _Request(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    """What a client may send. Every request carries the id that its answer repeats."""


class Claim(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One channel that an endpoint still holds from an earlier backend."""

    channel: ChannelId
    peer_number: Number
    peer_name: Name
    road: Road


class Resume(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What an endpoint was before its backend went away."""

    number: Number
    generation: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    channels: Annotated[list[Claim], Meta(max_length=CLAIMS_PER_PACKET_MAX)]


class Open(_Request, tag="open", frozen=True, kw_only=True):
    """Makes this connection an endpoint."""

    id: Id
    version: int
    name: Name | None = None
    number: Number | None = None
    partition: Name = "default"
    key: Key | None = None
    resume: Resume | None = None


class Claims(_Request, tag="claim", frozen=True, kw_only=True):
    """More channels of a resumed endpoint; there is no answer."""

    id: Id
    channels: Annotated[list[Claim], Meta(max_length=CLAIMS_PER_PACKET_MAX)]


class Connect(_Request, tag="connect", frozen=True, kw_only=True):
    """Asks for a channel to another endpoint."""

    id: Id
    target: Name | Number
    road: WantedRoad = "auto"
    timeout_ms: Timeout | None = None
    key: Key | None = None


class Cancel(_Request, tag="cancel", frozen=True, kw_only=True):
    """Gives up a waiting connect."""

    id: Id
    target_id: Id


class Disconnect(_Request, tag="disconnect", frozen=True, kw_only=True):
    """Gives up a channel."""

    id: Id
    channel: ChannelId


class Info(_Request, tag="info", frozen=True, kw_only=True):
    """Asks what there is."""

    id: Id


Request: TypeAlias = Open | Claims | Connect | Cancel | Disconnect | Info


class BadRequest(Exception):
    """A packet outside the schema. `request_id` is 0 when the packet has none that can be read."""

    def __init__(self, code: ErrorCode, message: str, request_id: int) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.request_id = request_id


class _Outline(msgspec.Struct):
    """As much of a bad packet as its answer needs; everything else is ignored."""

    type: str = ""
    id: Id = 0
    version: int = PROTOCOL_VERSION


_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_outlines = msgspec.json.Decoder(_Outline)


def parse(packet: bytes | memoryview) -> Request:
    """The request in `packet`; raises BadRequest."""
    try:
        request = _requests.decode(packet)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise _bad_request(packet, fault) from None
    if isinstance(request, Open) and request.version != PROTOCOL_VERSION:
        raise _wrong_version(request.version, request.id)
    return request


def _bad_request(packet: bytes | memoryview, fault: Exception) -> BadRequest:
    """Says what is wrong with `packet`, to the id that it carries if it carries one."""
    try:
        outline = _outlines.decode(packet)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        outline = _Outline()
    # A later protocol may have fields that this schema refuses: name the real difference.
    if outline.type == "open" and outline.version != PROTOCOL_VERSION:
        return _wrong_version(outline.version, outline.id)
    text = str(fault)[:200]
    return BadRequest("invalid", f"the request does not fit the protocol: {text}", outline.id)


def _wrong_version(version: int, request_id: int) -> BadRequest:
    return BadRequest(
        "version",
        f"the client speaks version {version} of the control protocol, "
        f"this backend version {PROTOCOL_VERSION}",
        request_id,
    )


class _Reply(msgspec.Struct, tag_field="type"):
    """What the backend sends."""


class PeerInfo(msgspec.Struct):
    """The other end of a channel."""

    number: int
    name: str


class Opened(_Reply, tag="opened", kw_only=True):
    """The endpoint exists. Descriptors: [home]."""

    id: int
    number: int
    name: str
    partition: str
    generation: int
    limits: dict[str, int]


class Connected(_Reply, tag="connected", kw_only=True):
    """The channel is there. Descriptors unless `existing`: the five of a channel end."""

    id: int
    channel: int
    peer: PeerInfo
    road: Road
    reason: str
    existing: bool
    # Whether the two processes may copy from and to each other's memory.
    process_vm: bool = False


class Introduced(_Reply, tag="introduced", kw_only=True):
    """Another endpoint connected to this one. Descriptors: the five of a channel end."""

    channel: int
    peer: PeerInfo
    road: Road
    reason: str
    process_vm: bool = False


class Gone(_Reply, tag="gone", kw_only=True):
    """The other end of a channel is no more."""

    channel: int
    reason: str


class ErrorReply(_Reply, tag="error", kw_only=True):
    """A request was refused."""

    id: int
    code: ErrorCode
    message: str
    hint: str | None = None


class BackendInfo(msgspec.Struct, kw_only=True):
    """The backend itself, as `info` shows it."""

    pid: int
    uid: int
    version: str
    protocol: int
    generation: int
    uptime_s: float
    endpoints: int
    channels: int
    policy: str | None


class EndpointInfo(msgspec.Struct, kw_only=True):
    """One endpoint, as `info` shows it; its home file comes with it."""

    number: int
    name: str
    partition: str
    uid: int
    pid: int
    age_s: float
    channels: int


class ChannelInfo(msgspec.Struct, kw_only=True):
    """One channel, as `info` shows it. `b` is null while the other end of a channel that an
    earlier backend made has not come back."""

    channel: int
    a: int
    b: int | None
    road: Road
    reason: str


class InfoPage(_Reply, tag="info", kw_only=True):
    """A part of the answer to `info`. Descriptors: the home of each endpoint in it, in order."""

    id: int
    backend: BackendInfo | None = None
    endpoints: list[EndpointInfo] = []
    channels: list[ChannelInfo] = []
    more: bool = False


Reply: TypeAlias = Opened | Connected | Introduced | Gone | ErrorReply | InfoPage
_encoder = msgspec.json.Encoder()


def encode(reply: Reply) -> bytes:
    """The packet of a reply."""
    return _encoder.encode(reply)
