# SPDX-License-Identifier: Apache-2.0
"""What calls refuse: unknown names, wrong types, numbers out of range."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import diolkos
from diolkos.testing import Side, pair

Call = Callable[[Side], Any]


@pytest.mark.parametrize(
    "call",
    [
        lambda side: side.endpoint.send(b"", side.peer, tag=7),
        lambda side: side.endpoint.send(b"", side.peer, 7),
        lambda side: side.endpoint.recv(5),
        lambda side: side.endpoint.recv(timeout=0, matches=7),
        lambda side: side.endpoint.recv_into(bytearray(), 7),
        lambda side: side.endpoint.connect("x", 5),
        lambda side: diolkos.Endpoint("x", partion="typo"),
        lambda side: side.endpoint.send(b""),
        lambda side: side.endpoint.recv_into(),
        lambda side: side.endpoint.send(b"", side.peer, dest=side.peer),
    ],
)
def test_unknown_and_missing_arguments(alice: Side, call: Call) -> None:
    with pytest.raises(TypeError):
        call(alice)


@pytest.mark.parametrize(
    "call",
    [
        lambda side: side.endpoint.send(b"", "bob"),
        lambda side: side.endpoint.send(b"", None),
        lambda side: side.endpoint.send(b"", side.peer, match="7"),
        lambda side: side.endpoint.send(b"", side.peer, match=7.0),
        lambda side: side.endpoint.send(b"", side.peer, immediate=None),
        lambda side: side.endpoint.recv(match="7"),
        lambda side: side.endpoint.recv(source="bob"),
        lambda side: side.endpoint.recv(timeout="soon"),
        lambda side: side.endpoint.connect(b"bob"),
        lambda side: side.endpoint.connect(None),
        lambda side: side.endpoint.irecv("10"),
        lambda side: side.endpoint.on_unexpected(7),
        lambda side: diolkos.wait_any([7]),
        lambda side: diolkos.wait_any(None),
        lambda side: diolkos.Endpoint(7),
    ],
)
def test_wrong_types(alice: Side, call: Call) -> None:
    with pytest.raises(TypeError):
        call(alice)


@pytest.mark.parametrize(
    "call",
    [
        lambda side: side.endpoint.send(b"", side.peer, match=-1),
        lambda side: side.endpoint.send(b"", side.peer, match=1 << 64),
        lambda side: side.endpoint.send(b"", side.peer, immediate=1 << 32),
        lambda side: side.endpoint.send(b"", side.peer, immediate=-1),
        lambda side: side.endpoint.recv(match=-1),
        lambda side: side.endpoint.recv(match=0, mask=-1),
        lambda side: side.endpoint.irecv(-1),
        lambda side: side.endpoint.multi_recv(bytearray(8), min_free=-1),
        lambda side: side.endpoint.connect(-1),
    ],
)
def test_numbers_out_of_range(alice: Side, call: Call) -> None:
    with pytest.raises((OverflowError, TypeError)):
        call(alice)


@pytest.mark.parametrize(
    "call",
    [
        lambda side: side.endpoint.recv(mask=1),
        lambda side: side.endpoint.recv(match=3, mask=1),
        lambda side: side.endpoint.recv(timeout=-1),
        lambda side: side.endpoint.recv(timeout=math.nan),
        lambda side: side.endpoint.connect("x", road="scenic"),
        lambda side: diolkos.wait_any([]),
        lambda side: diolkos.Endpoint(context_ids=(17, 0)),
        lambda side: diolkos.Endpoint(context_ids=(8, 60)),
    ],
)
def test_values_that_make_no_sense(alice: Side, call: Call) -> None:
    with pytest.raises(ValueError):
        call(alice)


def test_peers_of_another_endpoint_are_refused(alice: Side, bob: Side) -> None:
    with pytest.raises(ValueError, match="another endpoint"):
        alice.endpoint.send(b"", bob.peer)
    with pytest.raises(ValueError, match="another endpoint"):
        alice.endpoint.recv(source=bob.peer)
    with pytest.raises(ValueError, match="another endpoint"):
        alice.endpoint.cancel(bob.endpoint.irecv(1))


def test_an_endless_timeout_is_none(alice: Side, bob: Side) -> None:
    alice.endpoint.send(b"x", alice.peer)
    bob.endpoint.recv(timeout=math.inf)
    alice.endpoint.send(b"x", alice.peer)
    bob.endpoint.recv(timeout=1e300)


def test_integers_of_other_types_are_match_info(alice: Side, bob: Side) -> None:
    class Index:
        def __index__(self) -> int:
            return 9

    alice.endpoint.send(b"x", alice.peer, match=Index())  # type: ignore[arg-type]
    alice.endpoint.send(b"y", alice.peer, match=True)
    assert bob.endpoint.recv(match=9) == b"x"
    assert bob.endpoint.recv(match=1) == b"y"


@pytest.mark.parametrize("copy_it", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_endpoint_is_not_copied(alice: Side, copy_it: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy_it(alice.endpoint)


def test_peers_are_equal_and_hashable() -> None:
    with pair() as (alice, bob), pair() as (carol, _):
        again = alice.endpoint.peers[0]
        assert again == alice.peer
        assert hash(again) == hash(alice.peer)
        assert len({again, alice.peer, bob.peer, carol.peer, alice.endpoint.self_peer}) == 4
        assert alice.peer != "bob"
        assert alice.endpoint.self_peer.number == alice.endpoint.number
        assert alice.peer.name == bob.endpoint.name
        assert alice.peer.road == "direct"
        assert alice.peer.is_connected


def test_results_cannot_be_made_by_hand() -> None:
    for kind in (diolkos.Peer, diolkos.Status, diolkos.Message, diolkos.Request):
        with pytest.raises(TypeError):
            kind()


def test_every_public_name_is_there() -> None:
    for name in diolkos.__all__:
        assert getattr(diolkos, name) is not None
        assert name in dir(diolkos)
    with pytest.raises(AttributeError):
        _ = diolkos.no_such_name  # type: ignore[attr-defined]


def test_errors_fit_the_builtin_ones() -> None:
    assert issubclass(diolkos.Timeout, TimeoutError)
    assert issubclass(diolkos.PeerDied, ConnectionError)
    assert issubclass(diolkos.BackendError, ConnectionError)
    assert issubclass(diolkos.DeniedError, PermissionError)
    error = diolkos.BackendError("no backend", "start one")
    assert (str(error), error.hint) == ("no backend", "start one")
    assert diolkos.SystemRefusal(24, "too many files").errno == 24
