# SPDX-License-Identifier: Apache-2.0
"""Endpoints are introduced to each other, and what they get works."""

from __future__ import annotations

import fcntl
import mmap
import os

import pytest

from conftest import RunningBackend
from rawclient import (
    HOME_FILE_BYTES,
    PATIENCE_S,
    RawClient,
    check_end,
    exit_code_of,
    in_child,
    is_readable,
    mapped,
    ring,
)


def test_open_gives_number_name_and_home(backend: RunningBackend) -> None:
    with backend.client() as client:
        opened = client.open("alice")
        assert opened["number"] == 0
        assert opened["name"] == "alice"
        assert opened["partition"] == "default"
        assert opened["generation"] > 0
        (home,) = opened.fds
        assert os.fstat(home).st_size == HOME_FILE_BYTES
        assert fcntl.fcntl(home, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        assert fcntl.fcntl(home, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def test_lowest_free_number_and_default_name(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b, backend.client() as c:
        assert [each.open()["number"] for each in (a, b, c)] == [0, 1, 2]
        a.send("connect", target=1)
        a.expect("connected")
        b.close()
        a.expect("gone")
        with backend.client() as d:
            opened = d.open()
            assert (opened["number"], opened["name"]) == (1, "ep-1")


def test_number_and_name_in_use_are_refused(backend: RunningBackend) -> None:
    with backend.client() as first, backend.client() as second:
        first.open("alice", number=7)
        second.send("open", version=1, name="bob", number=7)
        second.expect("error", code="busy")
        second.send("open", version=1, name="alice")
        second.expect("error", code="busy")
        # Nothing was left half-made: the same connection can still open.
        assert second.open("bob", number=8)["number"] == 8


def test_messages_and_doorbells_cross(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        wanted = a.send("connect", target="b")
        introduced = b.expect("introduced", peer={"number": 0, "name": "a"}, road="direct")
        connected = a.expect(
            "connected", id=wanted, peer={"number": 1, "name": "b"}, existing=False
        )
        assert connected["channel"] == introduced["channel"] > 0
        check_end(connected, direction=0)
        check_end(introduced, direction=1)
        with mapped(connected) as at_a, mapped(introduced) as at_b:
            at_a.outgoing[0x1000:0x1005] = b"hello"
            at_b.outgoing[0x1000:0x1005] = b"howdy"
            assert at_b.incoming[0x1000:0x1005] == b"hello"
            assert at_a.incoming[0x1000:0x1005] == b"howdy"
            assert not is_readable(at_b.bell)
            ring(at_a.bell)
            assert is_readable(at_b.bell)
            assert not is_readable(at_a.bell)
            ring(at_b.bell)
            assert is_readable(at_a.bell)
            assert not is_readable(at_a.process)


def test_incoming_cannot_be_written_mapped_for_writing_or_resized(
    backend: RunningBackend,
) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        a.send("connect", target="b")
        end = a.expect("connected")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(end.fds[1], b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(end.fds[1], 4096)
        for fd in end.fds[:2]:
            with pytest.raises(OSError, match=r"not permitted|Invalid argument"):
                os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(end.fds[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_incoming_cannot_be_opened_again_for_writing(backend: RunningBackend) -> None:
    """Not even through /proc, where a descriptor can be turned into another opening."""
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        a.send("connect", target="b")
        incoming = a.expect("connected").fds[1]

        def open_again() -> None:
            if os.geteuid() == 0:
                # Root may do anything; somebody else may not.
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            with pytest.raises(PermissionError):
                os.open(f"/proc/self/fd/{incoming}", os.O_RDWR)

        assert exit_code_of(in_child(open_again)) == 0


def test_connect_by_number(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b", number=500)
        a.send("connect", target=500)
        a.expect("connected", peer={"number": 500, "name": "b"})


@pytest.mark.parametrize("target", ["late", 9])
def test_connect_waits_until_the_target_exists(backend: RunningBackend, target: str | int) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        wanted = a.send("connect", target=target, timeout_ms=60_000)
        b.open("late", number=9)
        a.expect("connected", id=wanted, peer={"number": 9, "name": "late"})
        b.expect("introduced", peer={"number": 0, "name": "a"})


def test_many_may_wait_for_one(backend: RunningBackend) -> None:
    waiters = [backend.client() for _ in range(20)]
    try:
        for waiter in waiters:
            waiter.open()
            waiter.send("connect", target="reader")
        with backend.client() as reader:
            reader.open("reader")
            met = [reader.expect("introduced")["peer"]["number"] for _ in waiters]
            assert sorted(met) == list(range(20))
            for waiter in waiters:
                waiter.expect("connected", peer={"number": 20, "name": "reader"})
    finally:
        for waiter in waiters:
            waiter.close()


def test_connect_without_waiting_says_not_found(backend: RunningBackend) -> None:
    with backend.client() as a:
        a.open("a")
        wanted = a.send("connect", target="nobody", timeout_ms=0)
        a.expect("error", id=wanted, code="not_found")


def test_connect_times_out(backend: RunningBackend) -> None:
    with backend.client() as a:
        a.open("a")
        wanted = a.send("connect", target="nobody", timeout_ms=30)
        a.expect("error", id=wanted, code="timeout")


def test_cancelled_connect_is_never_answered(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        wanted = a.send("connect", target="b")
        a.send("cancel", target_id=wanted)
        a.round_trip()
        b.open("b")
        a.round_trip()
        b.round_trip()


def test_second_connect_finds_the_existing_channel(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        a.send("connect", target="b")
        channel = a.expect("connected")["channel"]
        b.expect("introduced")
        for client, target in ((a, "b"), (a, 1), (b, "a"), (b, 0)):
            client.send("connect", target=target)
            packet = client.expect("connected", channel=channel, existing=True)
            assert packet.fds == []


def test_concurrent_connects_make_one_channel(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        a.send("connect", target="b")
        b.send("open", version=1, name="b")
        b.send("connect", target="a")
        b.expect("opened")
        made = b.expect("introduced")
        b.expect("connected", existing=True, channel=made["channel"])
        a.expect("connected", existing=False, channel=made["channel"])


def test_connect_to_itself_is_invalid(backend: RunningBackend) -> None:
    with backend.client() as a:
        a.open("a")
        for target in ("a", 0):
            wanted = a.send("connect", target=target)
            a.expect("error", id=wanted, code="invalid")


def _pair(backend: RunningBackend) -> tuple[RawClient, RawClient, int]:
    a, b = backend.client(), backend.client()
    a.open("a")
    b.open("b")
    a.send("connect", target="b")
    b.expect("introduced")
    return a, b, a.expect("connected")["channel"]


def test_peer_hears_when_an_endpoint_closes(backend: RunningBackend) -> None:
    a, b, channel = _pair(backend)
    with a:
        b.close()
        a.expect("gone", channel=channel)


def test_disconnect_ends_the_channel_and_a_new_one_can_be_made(backend: RunningBackend) -> None:
    a, b, channel = _pair(backend)
    with a, b:
        a.send("disconnect", channel=channel)
        b.expect("gone", channel=channel)
        # Once more is no error, and neither is a channel of somebody else.
        a.send("disconnect", channel=channel)
        a.send("disconnect", channel=12345)
        b.send("connect", target="a")
        assert b.expect("connected", existing=False)["channel"] != channel
        assert a.expect("introduced")["channel"] != channel


def test_attention_rises_with_every_packet(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        (home,) = a.open("a").fds
        with mmap.mmap(home, HOME_FILE_BYTES, prot=mmap.PROT_READ) as memory:
            before = int.from_bytes(memory[:4], "little")
            b.open("b")
            b.send("connect", target="a")
            a.expect("introduced")
            # The count is written after the packet; another round trip orders it.
            a.round_trip()
            assert int.from_bytes(memory[:4], "little") > before


def test_process_handle_tells_of_a_death(backend: RunningBackend) -> None:
    """The handle is of the process that opened the endpoint, and readable once it is gone."""
    with backend.client() as a:
        a.open("a")

        def be_killed() -> None:
            other = backend.client()
            other.open("b")
            other.expect("introduced")
            other.receive(PATIENCE_S * 10)

        child = in_child(be_killed)
        a.send("connect", target="b")
        end = a.expect("connected")
        assert not is_readable(end.fds[3])
        os.kill(child, 9)
        assert is_readable(end.fds[3], PATIENCE_S)
        assert exit_code_of(child) == -9
        a.expect("gone", channel=end["channel"])


def test_endpoint_ends_with_its_process_though_a_child_holds_the_socket(
    backend: RunningBackend,
) -> None:
    """A forked grandchild keeps the dead endpoint's socket open; the backend is not fooled."""
    hold, release = os.pipe()

    def hold_on() -> None:
        os.close(release)
        os.read(hold, 1)

    def open_and_fork() -> None:
        other = backend.client()
        other.open("owner")
        in_child(hold_on)
        other.expect("introduced")

    owner = in_child(open_and_fork)
    os.close(hold)
    with backend.client() as a:
        a.open("a")
        a.send("connect", target="owner")
        channel = a.expect("connected")["channel"]
        a.expect("gone", channel=channel)
    os.close(release)
    assert exit_code_of(owner) == 0


def test_the_backend_keeps_no_descriptor_of_a_direct_channel(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        a.round_trip()
        before = backend.fd_count()
        for _ in range(50):
            a.send("connect", target="b")
            channel = a.expect("connected")["channel"]
            b.expect("introduced")
            a.send("disconnect", channel=channel)
            b.expect("gone")
        a.round_trip()
        assert backend.fd_count() == before


def test_key_is_checked_before_anything_is_made(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.send("open", version=1, name="b", key=7)
        b.expect("opened")
        a.send("connect", target="b", key=8)
        a.expect("error", code="bad_key")
        a.send("connect", target="b", key=7)
        connected = a.expect("connected", existing=False)
        b.expect("introduced")
        # A wrong key does no harm to what there is.
        a.send("connect", target="b", key=0)
        a.expect("error", code="bad_key")
        a.send("connect", target="b", key=7)
        a.expect("connected", existing=True, channel=connected["channel"])
        assert b.is_silent()


def test_key_is_no_matter_where_one_side_has_none(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.send("open", version=1, name="b", key=7)
        b.expect("opened")
        a.send("connect", target="b")
        a.expect("connected", existing=False)
        b.expect("introduced")
        b.send("connect", target="a", key=9)
        b.expect("connected", existing=True)


def test_key_is_checked_when_the_target_comes(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a")
        a.send("connect", target="b", key=1)
        b.send("open", version=1, name="b", key=2)
        b.expect("opened")
        a.expect("error", code="bad_key")
