# SPDX-License-Identifier: Apache-2.0
"""Partitions and users: who is not meant to talk is told nothing about who is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import RunningBackend, running
from rawclient import RawClient, exit_code_of, in_child

NOBODY = 65534


def _refusals(client: RawClient, targets: list[str | int]) -> list[dict[str, object]]:
    """What a client is told about targets, without the words it used itself."""
    found = []
    for target in targets:
        for timeout_ms in (0, 30):
            wanted = client.send("connect", target=target, timeout_ms=timeout_ms)
            fields = dict(client.expect("error", id=wanted).fields)
            fields["id"] = 0
            fields["message"] = str(fields["message"]).replace(str(target), "?").replace("'", "")
            found.append(fields)
    return found


def test_other_partition_looks_like_nobody(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open("a", partition="red")
        b.open("b", partition="blue", number=77)
        there = _refusals(a, ["b", 77])
        absent = _refusals(a, ["c", 78])
        assert [f["code"] for f in there] == ["not_found", "timeout"] * 2
        # The words differ only between a name and a number.
        assert there[:2] == absent[:2]
        assert [f["code"] for f in there] == [f["code"] for f in absent]
        assert there[2]["message"] == absent[2]["message"]
        b.round_trip()


def test_a_name_means_something_per_partition(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b, backend.client() as c:
        a.open("same", partition="red")
        b.open("same", partition="blue")
        c.open("asker", partition="blue")
        c.send("connect", target="same")
        c.expect("connected", peer={"number": 1, "name": "same"})


def test_waiting_connect_is_not_answered_by_another_partition(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b, backend.client() as c:
        a.open("a", partition="red")
        wanted = a.send("connect", target="late")
        b.open("late", partition="blue")
        a.round_trip()
        assert c.open("late", partition="red")["number"] == 2
        a.expect("connected", id=wanted, peer={"number": 2, "name": "late"})


POLICY = """
version = 1
[[partition]]
name = "front"
users = [0, {uid}, 65534]
[[partition]]
name = "store"
users = [0, {uid}]
[[partition]]
name = "slow"
users = [0, {uid}]
road = "switched"
[[partition]]
name = "others"
users = [4242]
[[allow]]
from = "front"
to = "store"
"""


@pytest.fixture
def ruled(runtime_dir: Path, policy_file: Path) -> Iterator[RunningBackend]:
    """A backend with the policy above."""
    policy_file.write_text(POLICY.format(uid=os.getuid()))
    policy_file.chmod(0o600)
    with running(runtime_dir, "--policy", str(policy_file)) as backend:
        yield backend


def test_policy_lets_one_partition_connect_to_another_but_not_back(
    ruled: RunningBackend,
) -> None:
    with ruled.client() as front, ruled.client() as store:
        front.open("f", partition="front")
        store.open("s", partition="store")
        store.send("connect", target="f", timeout_ms=0)
        store.expect("error", code="not_found")
        store.send("connect", target=0, timeout_ms=0)
        store.expect("error", code="not_found")
        front.send("connect", target="s")
        reason = front.expect("connected", existing=False)["reason"]
        assert "'front' may connect to 'store'" in reason
        store.expect("introduced", peer={"number": 0, "name": "f"})


def test_policy_keeps_others_out_of_a_partition(ruled: RunningBackend) -> None:
    with ruled.client() as client:
        wanted = client.send("open", version=1, name="x", partition="others")
        client.expect("error", id=wanted, code="denied")
        # Nothing is half-made: the connection can still become an endpoint elsewhere.
        client.open("x", partition="front")


def test_policy_forces_a_road(ruled: RunningBackend) -> None:
    with ruled.client() as a, ruled.client() as b:
        a.open("a", partition="slow")
        b.open("b", partition="slow")
        wanted = a.send("connect", target="b", road="direct")
        a.expect("error", id=wanted, code="denied")
        b.round_trip()


IS_ROOT = os.geteuid() == 0


def _as_nobody(runtime_dir: Path, group: int) -> RawClient:
    """Becomes somebody else, for good, and connects."""
    os.setgroups([group])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return RawClient(runtime_dir)


def test_another_user_is_alone_even_in_a_partition_of_the_same_name(runtime_dir: Path) -> None:
    """With --group others may come; by default each user is in a world of its own.

    Needs two users, so the whole test runs as root; without root the same rules are tested purely
    in `test_control_policy.py`.
    """
    if not IS_ROOT:
        return
    group = 54321
    os.chmod(runtime_dir, 0o700)
    with running(runtime_dir, "--group", str(group)) as backend, backend.client() as alice:
        alice.open("alice", number=5)

        def be_nobody() -> None:
            with _as_nobody(runtime_dir, group) as bob, RawClient(runtime_dir) as carol:
                # The name is free for this user, though another has it.
                bob.open("alice")
                assert [f["code"] for f in _refusals(bob, [5])] == ["not_found", "timeout"]
                carol.open("carol")
                carol.send("connect", target="alice")
                assert carol.expect("connected")["peer"]["number"] == 0
                carol.send("info")
                page = carol.expect("info")
                assert {e["name"] for e in page["endpoints"]} == {"alice", "carol"}
                assert page["backend"]["endpoints"] == 2
                assert 5 not in {e["number"] for e in page["endpoints"]}

        assert exit_code_of(in_child(be_nobody)) == 0
        alice.round_trip()


def test_another_user_cannot_reach_the_socket_without_a_group(runtime_dir: Path) -> None:
    """Only root can become another user to try; for anybody else the modes are what to check."""
    with running(runtime_dir):
        assert (runtime_dir / "backend.sock").stat().st_mode & 0o777 & 0o077 == 0
        assert runtime_dir.stat().st_mode & 0o777 == 0o700

        def try_to_connect() -> None:
            with pytest.raises(PermissionError):
                _as_nobody(runtime_dir, NOBODY)

        if IS_ROOT:
            assert exit_code_of(in_child(try_to_connect)) == 0


def test_policy_joins_users_in_a_listed_partition(runtime_dir: Path, policy_file: Path) -> None:
    """Two users, one listed partition: they see each other. Runs as root, as above."""
    if not IS_ROOT:
        return
    group = 54321
    policy_file.write_text(POLICY.format(uid=os.getuid()))
    policy_file.chmod(0o600)
    options = ("--group", str(group), "--policy", str(policy_file))
    with running(runtime_dir, *options) as backend, backend.client() as alice:
        alice.open("alice", partition="front")

        def be_nobody() -> None:
            with _as_nobody(runtime_dir, group) as bob:
                bob.send("open", version=1, name="bob", partition="store")
                bob.expect("error", code="denied")
                bob.open("bob", partition="front")
                bob.send("connect", target="alice")
                bob.expect("connected", peer={"number": 0, "name": "alice"})

        assert exit_code_of(in_child(be_nobody)) == 0
        alice.expect("introduced", peer={"number": 1, "name": "bob"})


TRUSTING = """
version = 1
[[partition]]
name = "trusting"
users = [{uid}]
process_vm = true
[[partition]]
name = "wary"
users = [{uid}]
"""


@pytest.mark.parametrize(
    ("partition", "road", "allowed"),
    [
        ("trusting", "direct", True),
        ("trusting", "auto", True),
        # The process at the other end is the relay's.
        ("trusting", "switched", False),
        ("wary", "direct", False),
        ("unlisted", "direct", False),
    ],
)
def test_policy_says_to_both_ends_whether_they_may_reach_each_other(
    runtime_dir: Path, policy_file: Path, partition: str, road: str, allowed: bool
) -> None:
    policy_file.write_text(TRUSTING.format(uid=os.getuid()))
    policy_file.chmod(0o600)
    with (
        running(runtime_dir, "--policy", str(policy_file)) as backend,
        backend.client() as a,
        backend.client() as b,
    ):
        a.open("a", partition=partition)
        b.open("b", partition=partition)
        wanted = a.send("connect", target="b", road=road)
        a.expect("connected", id=wanted, existing=False, process_vm=allowed)
        b.expect("introduced", process_vm=allowed)
        # What counts is what was said when the channel was made.
        wanted = b.send("connect", target="a")
        b.expect("connected", id=wanted, existing=True, process_vm=False)
        line = next(line for line in backend.log() if line["event"] == "introduced")
        assert line["process_vm"] is allowed
