# SPDX-License-Identifier: Apache-2.0
"""Hostile clients hurt themselves only.

Every test has a bystander: an endpoint that must be able to open, connect and disconnect as if
nothing were the matter, while another connection misbehaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import RunningBackend, running
from diolkos.backend import messages
from diolkos.backend.limits import FAULTS_MAX, PACKET_BYTES_MAX
from diolkos.backend.messages import BadRequest
from rawclient import Ended, RawClient, is_readable


@contextlib.contextmanager
def bystanders(backend: RunningBackend) -> Iterator[None]:
    """Two endpoints whose lives go on: they meet, part and meet again around the test."""
    with backend.client() as a, backend.client() as b:
        a.open("bystander", partition="apart")
        b.open("other-bystander", partition="apart")
        _meet_and_part(a, b)
        yield
        _meet_and_part(a, b)
    with backend.client() as late:
        late.open("late")


def _meet_and_part(a: RawClient, b: RawClient) -> None:
    a.send("connect", target="other-bystander")
    channel = a.expect("connected", existing=False)["channel"]
    b.expect("introduced", channel=channel)
    a.send("disconnect", channel=channel)
    b.expect("gone", channel=channel)


GARBAGE = [
    b"\0",
    b"{",
    b"null",
    b"[]",
    b'"open"',
    b"\xff\xfe\xfd",
    b"[" * 60_000,
    b'{"type":' * 8_000,
    b"9" * 60_000,
    b'{"type":"open"}',
    b'{"type":"open","id":1}',
    b'{"type":"open","id":-1,"version":1}',
    b'{"type":"open","id":1e400,"version":1}',
    b'{"type":"open","id":1,"version":1,"name":""}',
    b'{"type":"open","id":1,"version":1,"name":"a b"}',
    b'{"type":"open","id":1,"version":1,"name":"a\\n"}',
    b'{"type":"open","id":1,"version":1,"name":"\\u0000"}',
    b'{"type":"open","id":1,"version":1,"name":"' + b"x" * 129 + b'"}',
    b'{"type":"open","id":1,"version":1,"number":65536}',
    b'{"type":"open","id":1,"version":1,"number":-1}',
    b'{"type":"open","id":1,"version":1,"number":true}',
    b'{"type":"open","id":1,"version":1,"uid":0}',
    b'{"type":"connect","id":1,"target":1.5}',
    b'{"type":"connect","id":1,"target":"x","road":"scenic"}',
    b'{"type":"connect","id":1,"target":"x","timeout_ms":-1}',
    b'{"type":"disconnect","id":1,"channel":0}',
    b'{"type":"disconnect","id":1,"channel":18446744073709551616}',
    b'{"type":"shutdown","id":1}',
    b'{"type":["open"],"id":1}',
    b'{"id":1}',
]


@pytest.mark.parametrize("packet", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_answered_and_not_believed(backend: RunningBackend, packet: bytes) -> None:
    with backend.client() as rude:
        rude.send_raw(packet)
        rude.expect("error", code="invalid")
        rude.open("fine-after-all")


def test_persistent_garbage_ends_the_connection(backend: RunningBackend) -> None:
    with bystanders(backend), backend.client() as rude:
        for _ in range(FAULTS_MAX):
            rude.send_raw(b"garbage")
        for _ in range(FAULTS_MAX):
            rude.expect("error", code="invalid")
        rude.expect_end()


def test_the_error_repeats_the_id_when_there_is_one(backend: RunningBackend) -> None:
    with backend.client() as rude:
        rude.send_raw(b'{"type":"connect","id":77,"target":[]}')
        rude.expect("error", id=77, code="invalid")


def test_another_version_is_named_even_with_unknown_fields(backend: RunningBackend) -> None:
    with backend.client() as client:
        client.send_raw(b'{"type":"open","id":5,"version":2,"colour":"red"}')
        error = client.expect("error", id=5, code="version")
        assert "version 2" in error["message"]


def test_oversized_packets_are_refused(backend: RunningBackend) -> None:
    with bystanders(backend), backend.client() as rude:
        name = "x" * PACKET_BYTES_MAX
        rude.send_raw(json.dumps({"type": "open", "id": 1, "version": 1, "name": name}).encode())
        rude.expect("error", code="invalid")
        rude.open("fine-after-all")


def test_an_empty_packet_reads_like_the_end(backend: RunningBackend) -> None:
    with bystanders(backend), backend.client() as rude:
        rude.open("rude")
        rude.send_raw(b"")
        rude.expect_end()


def test_requests_before_open_are_refused(backend: RunningBackend) -> None:
    with backend.client() as rude:
        for kind, fields in (
            ("connect", {"target": "x"}),
            ("cancel", {"target_id": 1}),
            ("disconnect", {"channel": 1}),
            ("claim", {"channels": []}),
        ):
            rude.send(kind, **fields)
            rude.expect("error", code="invalid")


def test_a_connection_opens_once(backend: RunningBackend) -> None:
    with backend.client() as rude:
        rude.open("first")
        rude.send("open", version=1, name="second")
        rude.expect("error", code="invalid")


def test_descriptors_are_discarded(backend: RunningBackend) -> None:
    """The backend never holds what it did not ask for; the sender's pipe shows it."""
    with bystanders(backend), backend.client() as rude:
        rude.send("cancel", target_id=1)
        rude.expect("error", code="invalid")
        before = backend.fd_count()
        reading, writing = os.pipe()
        request = json.dumps({"type": "open", "id": 1, "version": 1}).encode()
        socket.send_fds(rude.socket, [request], [writing] * 100)
        os.close(writing)
        rude.expect("error", code="invalid")
        # Readable is the end of the file: nobody has the writing end any more.
        assert is_readable(reading, 10)
        assert backend.fd_count() == before
        os.close(reading)


def test_a_flood_is_read_more_slowly_and_others_are_not(backend: RunningBackend) -> None:
    """The flooder is throttled: after its burst the socket stays full, while others are served."""
    with backend.client() as rude:
        rude.open("rude")
        rude.socket.setblocking(False)
        packet = json.dumps({"type": "cancel", "id": 1, "target_id": 1}).encode()
        with bystanders(backend):
            sent = 0
            while sent < 3000:
                try:
                    rude.send_raw(packet)
                    sent += 1
                except BlockingIOError:
                    break
        assert sent >= 100
        rude.socket.setblocking(True)
        rude.round_trip()


def test_a_client_that_does_not_read_is_dropped(backend: RunningBackend) -> None:
    with bystanders(backend), backend.client() as rude, backend.client() as watcher:
        rude.open("rude")
        watcher.open("watcher")
        watcher.send("connect", target="rude")
        channel = watcher.expect("connected")["channel"]
        with contextlib.suppress(ConnectionError):
            for number in range(100_000):
                fields = {"type": "connect", "id": number, "target": "x", "timeout_ms": 0}
                rude.send_raw(json.dumps(fields).encode())
        watcher.expect("gone", channel=channel)
    assert any(line["event"] == "dropped" and "unread" in line["reason"] for line in backend.log())


def test_unread_introductions_do_not_pile_up_descriptors(backend: RunningBackend) -> None:
    """The target never reads: it is dropped before the backend holds many of its descriptors."""
    with bystanders(backend), backend.client() as sink:
        sink.open("sink")
        most = backend.fd_count()
        for _ in range(200):
            with backend.client() as asker:
                asker.open()
                wanted = asker.send("connect", target="sink", timeout_ms=0)
                answer = asker.receive()
                most = max(most, backend.fd_count())
                if answer["type"] == "error":
                    assert (answer["id"], answer["code"]) == (wanted, "not_found")
                    break
        assert most < 600


def test_info_is_not_made_faster_than_it_is_read(backend: RunningBackend) -> None:
    with bystanders(backend), backend.client() as rude:
        clients = [backend.client() for _ in range(64)]
        for client in clients:
            client.open()
        before = backend.fd_count()
        for _ in range(50):
            rude.send("info")
        clients[0].round_trip()
        assert backend.fd_count() <= before + 64
        for client in clients:
            client.close()


def test_a_flood_of_connections(backend: RunningBackend) -> None:
    with bystanders(backend):
        crowd = []
        for _ in range(2000):
            try:
                crowd.append(RawClient(backend.runtime_dir))
            except BlockingIOError:
                break
        for client in crowd:
            client.close()


def test_seeded_fuzz_of_a_connection(backend: RunningBackend) -> None:
    """Random sequences of true, bent and broken requests, on many connections at once."""
    seed = int(os.environ.get("DIOLKOS_FUZZ_SEED", random.randrange(1 << 32)))
    print(f"DIOLKOS_FUZZ_SEED={seed}")
    dice = random.Random(seed)
    with bystanders(backend):
        clients: list[RawClient] = []
        for _ in range(3000):
            if len(clients) < 12 or dice.random() < 0.02:
                clients.append(backend.client())
            client = dice.choice(clients)
            try:
                client.send_raw(_fuzzed(dice))
                while is_readable(client.socket.fileno()):
                    client.receive().close()
            except (Ended, ConnectionError):
                clients.remove(client)
                client.close()
            if len(clients) > 20:
                clients.pop(0).close()
        for client in clients:
            client.close()
    assert not [line for line in backend.log() if line["level"] == "error"]


def _fuzzed(dice: random.Random) -> bytes:
    request: dict[str, Any] = {
        "type": dice.choice(["open", "connect", "cancel", "disconnect", "info", "claim", "x"]),
        "id": dice.randrange(8),
    }
    claim = {
        "channel": dice.randrange(1, 5),
        "peer_number": dice.randrange(4),
        "peer_name": dice.choice("abcd"),
        "road": dice.choice(["direct", "switched"]),
    }
    options: dict[str, Any] = {
        "version": dice.choice([1, 1, 1, 1, 2]),
        "name": dice.choice(["a", "b", "c", "d", None]),
        "number": dice.choice([0, 1, 2, 3, None]),
        "partition": dice.choice(["default", "red"]),
        "resume": dice.choice([None, {"number": 1, "generation": 2, "channels": [claim]}]),
        "target": dice.choice(["a", "b", "c", 0, 1, 2]),
        "road": dice.choice(["auto", "direct"]),
        "timeout_ms": dice.choice([None, 0, 1, 5]),
        "target_id": dice.randrange(8),
        "channel": dice.randrange(1, 5),
        "channels": [claim] * dice.randrange(3),
    }
    fields = {
        "open": ["version", "name", "number", "partition", "resume"],
        "connect": ["target", "road", "timeout_ms"],
        "cancel": ["target_id"],
        "disconnect": ["channel"],
        "claim": ["channels"],
    }.get(request["type"], [])
    request |= {key: options[key] for key in fields}
    if dice.random() < 0.02:
        request[dice.choice(list(options))] = dice.choice([None, -1, 2**64, "é", [], {}])
    packet = bytearray(json.dumps(request).encode())
    if dice.random() < 0.02:
        packet[dice.randrange(len(packet))] = dice.randrange(256)
    return bytes(packet)


def test_log_stays_bounded_under_a_flood_of_faults(runtime_dir: Path) -> None:
    with running(runtime_dir) as backend:
        with bystanders(backend):
            for _ in range(300):
                with backend.client() as rude:
                    for _ in range(FAULTS_MAX):
                        rude.send_raw(b"garbage")
                    rude.expect_end()
        assert len(backend.log()) < 150


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "type id version name number partition resume target road timeout_ms target_id channel "
    "channels generation"
)
field_names = st.sampled_from(FIELDS.split())
type_names = st.sampled_from(["open", "connect", "cancel", "disconnect", "info", "claim", "no"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(packet: bytes) -> None:
    with contextlib.suppress(BadRequest):
        messages.parse(packet)


def _parsed(packet: bytes) -> tuple[messages.Request | None, BadRequest | None]:
    try:
        return messages.parse(packet), None
    except BadRequest as bad:
        return None, bad


@settings(max_examples=300, deadline=None)
@given(type_names, st.dictionaries(field_names, json_values, max_size=8))
def test_any_json_parses_to_bounded_fields_or_is_refused(kind: str, fields: dict[str, Any]) -> None:
    request, bad = _parsed(json.dumps({**fields, "type": kind}).encode())
    if request is None:
        assert bad is not None
        assert bad.code in ("invalid", "version")
        assert 0 <= bad.request_id < 2**53
        return
    assert 0 <= request.id < 2**53
    if isinstance(request, messages.Open):
        names = [n for n in (request.name, request.partition) if n is not None]
        allowed = set(string.ascii_letters + string.digits + "._:/-")
        assert all(1 <= len(name) <= 128 and set(name) <= allowed for name in names)
        assert request.number is None or 0 <= request.number < 2**16
        assert request.version == 1


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.ascii_letters + "._:/-0123456789", min_size=1, max_size=128))
def test_every_allowed_name_parses_to_itself(name: str) -> None:
    packet = msgspec.json.encode({"type": "open", "id": 1, "version": 1, "name": name})
    request = messages.parse(packet)
    assert isinstance(request, messages.Open)
    assert request.name == name
