# SPDX-License-Identifier: Apache-2.0
"""The policy engine, purely: texts and credentials in, decisions out."""

from __future__ import annotations

from pathlib import Path

import pytest

from diolkos.backend import policy
from diolkos.backend.limits import Limits
from diolkos.backend.memory import Credentials
from diolkos.backend.policy import Policy, PolicyError
from diolkos.backend.registry import Realm

ALICE = Credentials(pid=1, uid=1001, gids=frozenset({1001, 500}))
BOB = Credentials(pid=2, uid=1002, gids=frozenset({1002}))


def test_without_a_file_a_user_is_alone_in_each_partition() -> None:
    rules = Policy()
    red = rules.realm(ALICE, "red")
    blue = rules.realm(ALICE, "blue")
    bobs = rules.realm(BOB, "red")
    assert red is not None
    assert blue is not None
    assert bobs is not None
    assert rules.route(red, red) is not None
    assert rules.route(red, blue) is None
    assert rules.route(red, bobs) is None
    assert rules.visible(red) == [red]


def test_unlisted_partitions_can_be_refused() -> None:
    rules = policy.parse('version = 1\nunlisted_partitions = "refuse"')
    assert rules.realm(ALICE, "red") is None


def test_a_listed_partition_is_shared_by_its_members_only() -> None:
    rules = policy.parse('version = 1\n[[partition]]\nname = "job"\nusers = [1002]\ngroups = [500]')
    assert rules.realm(ALICE, "job") == rules.realm(BOB, "job") == Realm("job", None)
    stranger = Credentials(pid=3, uid=1003, gids=frozenset({1003}))
    assert rules.realm(stranger, "job") is None
    # Root is a user like any other here.
    assert rules.realm(Credentials(pid=4, uid=0, gids=frozenset({0})), "job") is None


TWO = """
version = 1
[[partition]]
name = "a"
users = [1001]
[[partition]]
name = "b"
users = [1002]
road = "switched"
[[allow]]
from = "a"
to = "b"
"""


def test_allow_has_a_direction_and_takes_the_forced_road() -> None:
    rules = policy.parse(TWO)
    a, b = Realm("a", None), Realm("b", None)
    route = rules.route(a, b)
    assert route is not None
    assert rules.route(b, a) is None
    assert rules.visible(a) == [a, b]
    assert rules.visible(b) == [b]
    chosen = route.choose("auto")
    assert chosen is not None
    assert chosen[0] == "switched"
    assert route.choose("direct") is None


TRUSTING = """
version = 1
[[partition]]
name = "trusting"
users = [1001, 1002]
process_vm = true
[[partition]]
name = "wary"
users = [1001]
process_vm = false
[[partition]]
name = "silent"
users = [1001]
[[allow]]
from = "trusting"
to = "wary"
[[allow]]
from = "wary"
to = "trusting"
"""


def test_process_vm_is_for_members_of_a_partition_that_says_so() -> None:
    rules = policy.parse(TRUSTING)
    trusting, wary, silent = (Realm(name, None) for name in ("trusting", "wary", "silent"))
    allowed = {
        (source.partition, target.partition): route.process_vm
        for source in (trusting, wary, silent)
        for target in (trusting, wary, silent)
        if (route := rules.route(source, target)) is not None
    }
    assert allowed == {
        ("trusting", "trusting"): True,
        ("wary", "wary"): False,
        ("silent", "silent"): False,
        # Who may ask is another question than who is trusted.
        ("trusting", "wary"): False,
        ("wary", "trusting"): False,
    }


def test_process_vm_is_off_where_no_file_lists_the_partition() -> None:
    for rules in (Policy(), policy.parse(TRUSTING)):
        own = rules.realm(ALICE, "mine")
        assert own is not None
        route = rules.route(own, own)
        assert route is not None
        assert not route.process_vm
    # Nor does the name alone help: this one is of a user's own.
    route = policy.parse(TRUSTING).route(Realm("trusting", 1001), Realm("trusting", 1001))
    assert route is not None
    assert not route.process_vm


def test_road_is_free_where_no_rule_forces_one() -> None:
    rules = Policy()
    realm = Realm("x", 1001)
    route = rules.route(realm, realm)
    assert route is not None
    roads = {wanted: route.choose(wanted) for wanted in ("auto", "direct", "switched")}
    assert {w: r and r[0] for w, r in roads.items()} == {
        "auto": "direct",
        "direct": "direct",
        "switched": "switched",
    }


def test_limits_by_user_then_group_then_default() -> None:
    rules = policy.parse(
        """
        version = 1
        [limits]
        endpoints = 10
        [[user_limits]]
        groups = [500]
        endpoints = 20
        granted_bytes = "2 GiB"
        [[user_limits]]
        users = [1002]
        channels = 3
        """
    )
    assert rules.limits(ALICE).endpoints == 20
    assert rules.limits(ALICE).granted_bytes == 2 << 30
    assert rules.limits(ALICE).channels == Limits().channels
    assert rules.limits(BOB) == Limits(endpoints=10, channels=3)
    stranger = Credentials(pid=3, uid=1003, gids=frozenset({1003}))
    assert rules.limits(stranger) == Limits(endpoints=10)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "version"),
        ("version = 2", "version"),
        ("version = 1\nsurprise = true", "surprise"),
        ("version = 1\n[limits]\nendpoints = -1", "endpoints"),
        ('version = 1\n[limits]\ngranted_bytes = "lots"', "lots"),
        ('version = 1\n[[partition]]\nname = ""', "name"),
        ('version = 1\n[[partition]]\nname = "a"\n[[partition]]\nname = "a"', "twice"),
        ('version = 1\n[[partition]]\nname = "a"\nroad = "scenic"', "road"),
        ('version = 1\n[[partition]]\nname = "a"\nprocess_vm = 1', "process_vm"),
        ("version = 1\nprocess_vm = true", "process_vm"),
        (
            'version = 1\n[[partition]]\nname = "a"\nroad = "switched"\nprocess_vm = true',
            "'a' wants process_vm on the switched road",
        ),
        ('version = 1\n[[partition]]\nname = "a"\nusers = ["no-such-user-here"]', "no-such-user"),
        ('version = 1\n[[partition]]\nname = "a"\ngroups = ["no-such-grp"]', "no-such-grp"),
        ('version = 1\n[[allow]]\nfrom = "a"\nto = "b"', "not listed"),
        ("version = 1\n[[", "not valid"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        policy.parse(text)


def test_a_policy_that_others_can_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("version = 1")
    file.chmod(0o666)
    with pytest.raises(PolicyError, match="others may change"):
        policy.load(file)
    file.chmod(0o644)
    assert policy.load(file).path == file


def test_a_missing_binary_or_endless_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.load(tmp_path / "none.toml")
    file = tmp_path / "policy.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="not UTF-8"):
        policy.load(file)
    file.write_bytes(b"#" * (policy.POLICY_BYTES_MAX + 1))
    with pytest.raises(PolicyError, match="larger"):
        policy.load(file)


def test_the_documented_example_is_valid() -> None:
    """With its names replaced by numbers, which exist everywhere."""
    page = Path(__file__).parents[2] / "docs/reference/policy.md"
    text = page.read_text().split("```toml\n")[1].split("```")[0]
    for number, name in enumerate(("alice", "bob", "forecasters", "operators")):
        text = text.replace(f'"{name}"', str(1000 + number))
    rules = policy.parse(text)
    assert rules.realm(Credentials(1, 1000, frozenset()), "weather") == Realm("weather", None)
