# SPDX-License-Identifier: Apache-2.0
"""Introductions: who is meant by a connect, waiting until it exists, making the channel.

A connect is tried at once, and again whenever an endpoint opens that it may mean, until it
succeeds, fails for the asker's own reasons, is cancelled, or its time is up::

      connect --try--> no such endpoint, or one that the asker may not see
         |                  |-- timeout_ms = 0 --> error not_found
         |                  |-- else ------------> waiting --(an endpoint opens)--> try again
         |                                            |--(time is up)--> error timeout
         |--> the target has another key --> error bad_key
         |--> a channel exists already ------> connected, existing
         |--> a limit, a forbidden road -----> error
         |--> channel made ------------------> introduced to the target, connected to the asker

"No such endpoint" and "not for you" are the same state with the same words, so that waiting, its
end and its timing tell the asker nothing about who is there.

A channel is made completely or not at all: the accounts are charged, the descriptors made, the
target told, and only then the asker; whatever fails takes back what was done before it. The backend
keeps no descriptor of a direct channel.

After a restart endpoints *claim* the channels that they still hold. A channel is entered again when
both ends claim it; until then it counts for the one that did. A claim that the other end visibly
does not share ends when the two are introduced anew.
"""

from __future__ import annotations

from diolkos.backend import memory, switched
from diolkos.backend.limits import (
    CHANNELS_PER_ENDPOINT_MAX,
    PENDING_CONNECTS_MAX,
    LimitReached,
)
from diolkos.backend.log import Log
from diolkos.backend.memory import (
    CHANNEL_FILE_BYTES,
    CONNECTER_TO_TARGET,
    EXHAUSTED,
    TARGET_TO_CONNECTER,
    Descriptors,
)
from diolkos.backend.messages import (
    Claim,
    Connect,
    Connected,
    ErrorCode,
    ErrorReply,
    Gone,
    Introduced,
    PeerInfo,
    Road,
)
from diolkos.backend.policy import Policy, Route
from diolkos.backend.registry import Channel, Endpoint, Middle, Registry
from diolkos.backend.waiting import Waiting, WaitingConnects


class Refused(Exception):
    """A connect fails for a reason that the asker is told."""

    def __init__(self, code: ErrorCode, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.hint = hint


class Introducer:
    """Makes and ends the channels of one backend."""

    def __init__(self, registry: Registry, policy: Policy, log: Log, generation: int) -> None:
        self._registry = registry
        self._policy = policy
        self._log = log
        self._generation = generation
        self._channels_made = 0
        self._ending = switched.EndingRelays()
        self._waiting = WaitingConnects(self._timed_out)

    def connect(self, asker: Endpoint, request: Connect) -> None:
        """Answers a connect now or later."""
        try:
            if request.target in (asker.number, asker.name):
                raise Refused("invalid", "an endpoint reaches itself without a channel")
            if self._waiting.find(asker, request.id) is not None:
                raise Refused("invalid", f"request {request.id} is waiting already")
            if self._try(asker, request):
                return
            if request.timeout_ms == 0:
                raise Refused("not_found", _absent(request))
            if not self._waiting.add(asker, request):
                raise Refused("limit", f"{PENDING_CONNECTS_MAX} connects are waiting already")
        except Refused as refusal:
            self._refuse(asker, request, refusal)

    def cancel(self, asker: Endpoint, request_id: int) -> None:
        """Forgets a waiting connect; one that is answered already is no matter."""
        waiting = self._waiting.find(asker, request_id)
        if waiting is not None:
            self._waiting.remove(waiting)

    def arrived(self, endpoint: Endpoint) -> None:
        """An endpoint opened: those who wait for it get their channel."""
        for waiting in self._waiting.meaning(endpoint):
            asker, request = waiting.asker, waiting.request
            try:
                if asker is endpoint or not self._try(asker, request):
                    continue
            except Refused as refusal:
                self._refuse(asker, request, refusal)
            self._waiting.remove(waiting)

    def left(self, endpoint: Endpoint) -> None:
        """An endpoint is gone: its channels and its waiting connects go with it."""
        for waiting in self._waiting.of(endpoint):
            self._waiting.remove(waiting)
        for channel in list(endpoint.channels.values()):
            self._end(channel, endpoint, "the peer's endpoint closed or its process ended")
        for claim in list(endpoint.claims.values()):
            self._drop_claim(endpoint, claim)

    def disconnect(self, endpoint: Endpoint, number: int) -> None:
        """One end gives a channel up; one that is gone already is no matter."""
        if channel := endpoint.channels.get(number):
            self._end(channel, endpoint, "the peer disconnected")
        elif claim := endpoint.claims.get(number):
            self._drop_claim(endpoint, claim)

    def claim(self, endpoint: Endpoint, claim: Claim) -> None:
        """An endpoint says that it still holds a channel from before a restart."""
        number = claim.channel
        if claim.road == "switched":
            reason = "the relay of the switched road ended with the earlier backend"
            endpoint.client.send(Gone(channel=number, reason=reason))
            return
        held = len(endpoint.channels) + len(endpoint.claims)
        if number in endpoint.claims or self._registry.holds_channel(number):
            return
        try:
            if held >= CHANNELS_PER_ENDPOINT_MAX:
                raise LimitReached("channels of one endpoint", CHANNELS_PER_ENDPOINT_MAX)
            endpoint.account.take_channel(CHANNEL_FILE_BYTES)
        except LimitReached as limit:
            self._log.client(
                "warning", "claim refused", endpoint.account.uid, channel=number, reason=str(limit)
            )
            return
        endpoint.claims[number] = claim
        peer = self._registry.numbered(claim.peer_number)
        theirs = peer.claims.get(number) if peer is not None and peer is not endpoint else None
        if peer is None or theirs is None or theirs.peer_number != endpoint.number:
            return
        if self._registry.between(peer, endpoint) is None:
            # Both say so: it is a channel again, and what each was charged stays charged.
            del endpoint.claims[number], peer.claims[number]
            reason = "made by an earlier backend"
            self._registry.join(Channel(number, peer, endpoint, "direct", reason))

    def _try(self, asker: Endpoint, request: Connect) -> bool:
        """True when the asker has its answer; raises Refused."""
        found = self._find(asker, request.target)
        if found is None:
            return False
        target, route = found
        if request.key is not None and target.key not in (None, request.key):
            raise Refused("bad_key", f"endpoint {target.number} has another key")
        existing = self._registry.between(asker, target)
        if existing is not None:
            asker.client.send(
                Connected(
                    id=request.id,
                    channel=existing.number,
                    peer=PeerInfo(target.number, target.name),
                    road=existing.road,
                    reason=existing.reason,
                    existing=True,
                )
            )
            return True
        chosen = route.choose(request.road)
        if chosen is None:
            message = f"the policy permits only the {route.road} road: {route.why}"
            raise Refused("denied", message, "ask for the road 'auto'")
        return self._introduce(asker, target, request, *chosen, process_vm=route.process_vm)

    def _find(self, asker: Endpoint, target: str | int) -> tuple[Endpoint, Route] | None:
        """The endpoint that is meant, if the asker may see it."""
        if isinstance(target, int):
            candidates = [self._registry.numbered(target)]
        else:
            realms = self._policy.visible(asker.realm)
            candidates = [self._registry.named(realm, target) for realm in realms]
        for endpoint in candidates:
            if endpoint is not None:
                route = self._policy.route(asker.realm, endpoint.realm)
                if route is not None:
                    return endpoint, route
        return None

    def _introduce(
        self,
        asker: Endpoint,
        target: Endpoint,
        request: Connect,
        road: Road,
        reason: str,
        *,
        process_vm: bool,
    ) -> bool:
        """Makes the channel and tells both; False when the target is just going away."""
        self._drop_claims_between(asker, target)
        for endpoint, code in ((asker, "limit"), (target, "busy")):
            if len(endpoint.channels) + len(endpoint.claims) >= CHANNELS_PER_ENDPOINT_MAX:
                whose = "this" if endpoint is asker else "the target"
                message = f"{whose} endpoint has all its {CHANNELS_PER_ENDPOINT_MAX} channels"
                raise Refused("limit" if code == "limit" else "busy", message)
        self._channels_made += 1
        number = self._generation << 32 | self._channels_made
        _charge(asker, target, road)
        channel = Channel(number, asker, target, road, reason)
        try:
            with Descriptors() as held:
                asker_end, target_end, channel.middle = _make(channel, held)
                held.release()
        except (OSError, switched.NoRelay) as error:
            _discharge(channel)
            raise self._cannot_make(error) from None
        except BaseException:
            _discharge(channel)
            raise
        # The process behind a switched channel is the relay's.
        process_vm = process_vm and road == "direct"
        you_met = Introduced(
            channel=number,
            peer=PeerInfo(asker.number, asker.name),
            road=road,
            reason=reason,
            process_vm=process_vm,
        )
        self._registry.join(channel)
        if not target.client.send(you_met, target_end):
            memory.close_all(asker_end)
            self._part(channel)
            return False
        asker.client.send(
            Connected(
                id=request.id,
                channel=number,
                peer=PeerInfo(target.number, target.name),
                road=road,
                reason=reason,
                existing=False,
                process_vm=process_vm,
            ),
            asker_end,
        )
        self._log.client(
            "info",
            "introduced",
            asker.account.uid,
            channel=number,
            a=asker.number,
            b=target.number,
            road=road,
            reason=reason,
            process_vm=process_vm,
        )
        return True

    def _cannot_make(self, error: Exception) -> Refused:
        """What the asker is told when the system refuses a channel."""
        self._log.error("channel not made", reason=str(error))
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            return Refused(
                "limit",
                f"the backend cannot make a channel now: {error.strerror}",
                "close other endpoints, or raise the backend's limit of open files",
            )
        return Refused("internal", f"the backend cannot make a channel: {error}")

    def _end(self, channel: Channel, leaver: Endpoint, reason: str) -> None:
        """Ends a channel because `leaver` did, and tells the other end."""
        self._part(channel)
        channel.other(leaver).client.send(Gone(channel=channel.number, reason=reason))

    def _part(self, channel: Channel) -> None:
        self._registry.part(channel)
        _discharge(channel)
        if channel.middle is not None:
            self._ending.let_go(channel.middle)

    def _drop_claim(self, endpoint: Endpoint, claim: Claim) -> None:
        del endpoint.claims[claim.channel]
        endpoint.account.give_channel(CHANNEL_FILE_BYTES)

    def _drop_claims_between(self, a: Endpoint, b: Endpoint) -> None:
        """Ends what only one of two present endpoints still believes in."""
        for endpoint, other in ((a, b), (b, a)):
            for claim in list(endpoint.claims.values()):
                if claim.peer_number == other.number:
                    self._drop_claim(endpoint, claim)
                    reason = "the peer no longer holds this channel"
                    endpoint.client.send(Gone(channel=claim.channel, reason=reason))

    def _timed_out(self, waiting: Waiting) -> None:
        request = waiting.request
        message = f"{_absent(request)} for {request.timeout_ms} ms"
        self._refuse(waiting.asker, request, Refused("timeout", message))

    def _refuse(self, asker: Endpoint, request: Connect, refusal: Refused) -> None:
        reply = ErrorReply(
            id=request.id, code=refusal.code, message=str(refusal), hint=refusal.hint
        )
        asker.client.send(reply)
        if refusal.code in ("not_found", "timeout"):
            # An ordinary outcome of waiting, and nothing to warn of.
            return
        self._log.client(
            "warning",
            "connect refused",
            asker.account.uid,
            endpoint=asker.number,
            target=request.target,
            code=refusal.code,
            reason=str(refusal),
        )


def _absent(request: Connect) -> str:
    """The same words whether the target does not exist or is not for the asker to know of."""
    what = f"number {request.target}" if isinstance(request.target, int) else repr(request.target)
    return f"no endpoint {what} is there for this one to talk to"


def _file_bytes(road: Road) -> int:
    """Bytes of channel files per end: on the switched road the relay has files of its own."""
    return CHANNEL_FILE_BYTES if road == "direct" else 2 * CHANNEL_FILE_BYTES


def _charge(asker: Endpoint, target: Endpoint, road: Road) -> None:
    """Charges both users for a channel, or none; raises Refused."""
    try:
        asker.account.take_channel(_file_bytes(road))
    except LimitReached as limit:
        raise Refused("limit", str(limit), "see [limits] in the backend's policy") from None
    try:
        target.account.take_channel(_file_bytes(road))
    except LimitReached as limit:
        asker.account.give_channel(_file_bytes(road))
        if target.account is asker.account:
            raise Refused("limit", str(limit), "see [limits] in the backend's policy") from None
        raise Refused("busy", "the target's user can hold no more channels") from None


def _discharge(channel: Channel) -> None:
    for endpoint in (channel.a, channel.b):
        endpoint.account.give_channel(_file_bytes(channel.road))


def _make(channel: Channel, held: Descriptors) -> tuple[list[int], list[int], Middle | None]:
    """The memory and doorbells of a channel; both ends belong to `held`.

    Raises OSError, or NoRelay.
    """
    processes = (channel.a.process, channel.b.process)
    if channel.road == "switched":
        return switched.make(channel.number, processes, held)
    asker, target = (
        held.add(memory.channel_file(channel.number, direction))
        for direction in (CONNECTER_TO_TARGET, TARGET_TO_CONNECTER)
    )
    asker_bell, target_bell = map(held.add, memory.doorbells())
    asker_end = memory.channel_end(held, asker, target, asker_bell, processes[1])
    target_end = memory.channel_end(held, target, asker, target_bell, processes[0])
    return asker_end, target_end, None
