# SPDX-License-Identifier: Apache-2.0
"""For the tests of programs that use Diolkos: endpoints without a backend or a second process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from diolkos._core import Endpoint, Peer, local_pair

__all__ = ["Side", "pair"]


@dataclass(frozen=True)
class Side:
    """One end of a loopback pair."""

    endpoint: Endpoint
    #: The other end, as this one knows it.
    peer: Peer


@contextmanager
def pair() -> Iterator[tuple[Side, Side]]:
    """Two endpoints of this process that are connected to each other, closed at the end.

    >>> with pair() as (alice, bob):
    ...     alice.endpoint.send(b"hello", alice.peer, match=7)
    ...     bytes(bob.endpoint.recv(match=7))
    b'hello'
    """
    (a, to_b), (b, to_a) = local_pair()
    with a, b:
        yield Side(a, to_b), Side(b, to_a)
