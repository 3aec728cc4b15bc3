# SPDX-License-Identifier: Apache-2.0
"""The small machines of the backend, purely: numbers, rates, accounts, silence."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos.backend import connection
from diolkos.backend.connection import Connection
from diolkos.backend.limits import ENDPOINT_NUMBER_MAX, Account, LimitReached, Limits, TokenBucket
from diolkos.backend.memory import Credentials
from diolkos.backend.messages import Reply
from diolkos.backend.numbering import Numbering
from diolkos.backend.registry import Endpoint, Realm, Registry, Taken

WHO = Credentials(pid=1, uid=1, gids=frozenset())


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_the_mark_rises_with_numbers_and_outlives_its_backend(mark: int) -> None:
    numbering = Numbering(mark)
    assert numbering.start == 0
    for number in (3, 1, 12345, 2):
        numbering.note(number)
    assert Numbering(mark).start == 12346
    numbering.forget()
    assert Numbering(mark).start == 0


@pytest.mark.parametrize("garbage", [b"", b"x" * 100, b"-5\n", b"65536\n", b"9" * 50, b"\xff\n"])
def test_a_mark_that_makes_no_sense_is_none(mark: int, garbage: bytes) -> None:
    os.pwrite(mark, garbage, 0)
    assert Numbering(mark).start == 0


class _Client:
    def send(self, reply: Reply, descriptors: list[int] | None = None) -> bool:
        return True

    def drop(self, reason: str) -> None:
        pass


def _endpoint(number: int, name: str | None = None) -> Endpoint:
    return Endpoint(
        number=number,
        name=name or f"ep-{number}",
        realm=Realm("default", 1),
        credentials=WHO,
        client=_Client(),
        account=Account(1, Limits()),
        home=-1,
        process=None,
        opened_s=0.0,
    )


def test_automatic_numbers_are_the_lowest_free_ones_from_the_start() -> None:
    registry = Registry(10)
    held = {}
    for expected in (10, 11, 12):
        assert registry.free_number() == expected
        held[expected] = _endpoint(expected)
        registry.add(held[expected])
    low = _endpoint(4)
    registry.add(low)
    registry.remove(low)
    assert registry.free_number() == 13
    registry.remove(held[11])
    assert registry.free_number() == 11


def test_automatic_numbers_go_round_and_end() -> None:
    registry = Registry(ENDPOINT_NUMBER_MAX)
    registry.add(_endpoint(ENDPOINT_NUMBER_MAX))
    registry.add(_endpoint(0))
    assert registry.free_number() == 1
    full = Registry(0)
    for number in range(ENDPOINT_NUMBER_MAX + 1):
        full.add(_endpoint(number))
    with pytest.raises(Taken, match="every endpoint number"):
        full.free_number()


def test_numbers_are_taken_everywhere_and_names_in_their_realm() -> None:
    registry = Registry()
    registry.add(_endpoint(1, "a"))
    with pytest.raises(Taken, match="number 1"):
        registry.check_free(1, Realm("other", 2), "b")
    with pytest.raises(Taken, match="'a'"):
        registry.check_free(2, Realm("default", 1), "a")
    registry.check_free(2, Realm("default", 2), "a")
    registry.check_free(2, Realm("other", 1), "a")


def test_a_bucket_gives_a_burst_and_then_a_rate() -> None:
    bucket = TokenBucket(burst=3, per_s=2.0, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.5), bucket.take(100.5)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_an_account_takes_all_or_nothing() -> None:
    account = Account(1, Limits(endpoints=1, channels=2, granted_bytes=10))
    account.take_endpoint()
    with pytest.raises(LimitReached, match="1 endpoints"):
        account.take_endpoint()
    account.take_channel(6)
    with pytest.raises(LimitReached, match="10 granted_bytes"):
        account.take_channel(5)
    account.take_channel(4)
    with pytest.raises(LimitReached, match="2 channels"):
        account.take_channel(0)
    assert not account.idle()
    account.give_channel(4)
    account.give_channel(6)
    account.give_endpoint()
    assert account.idle()


def test_a_connection_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_MESSAGE_S", 0.01)

    async def main() -> str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        Connection(ours, WHO, None, on_packet=lambda _: None, on_end=ended.set_result)
        reason = await ended
        assert theirs.recv(10) == b""
        theirs.close()
        return reason

    assert asyncio.run(main()).startswith("said nothing")
