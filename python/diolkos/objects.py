# SPDX-License-Identifier: Apache-2.0
"""Python objects as messages: `Endpoint.send_object` and `recv_object`.

An object is pickled with protocol 5. What is large in it (the memory of NumPy arrays, say) stays
out of the pickle and is sent from where it lies, without a copy, as messages of their own::

    tagged     match of the user          head: magic, counts, lengths, the pickle
    untagged   number of the transfer     part 0: the first large buffer
    untagged   number of the transfer     part 1 ...

Parts are told apart by the sender and by a number that the sender never uses twice, so that threads
may send and receive objects at the same time. A program that uses objects should not receive
untagged messages of any match info from the same peer: it might take parts.

An object may hold keys to regions. Those of the sender's own regions are granted to the receiver
before the object leaves, so that it can use them at once.

**Unpickling trusts the sender**: a pickle can run any code in the receiving program. Receive
objects only from peers that you would let do that. What is checked here (magic, counts, lengths,
the limit on the size) protects against accidents, not against a hostile pickle.
"""

from __future__ import annotations

import io
import itertools
import pickle
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diolkos._core import Endpoint, Key, Message, Peer, Request
from diolkos.errors import NotAnObject

__all__ = ["OBJECT_NBYTES_MAX", "PARTS_MAX", "PART_NBYTES_MIN"]

#: Buffers from this length on are sent on their own.
PART_NBYTES_MIN = 32 << 10
#: Buffers that one object may have on their own; further ones go into the pickle.
PARTS_MAX = 4096
#: Longest object that is received unless the caller allows more: pickle and parts together.
OBJECT_NBYTES_MAX = 1 << 30

_MAGIC = b"DIOLKOBJ"
# Magic, number of the transfer, number of parts; the lengths of the parts and the pickle follow.
_HEAD = struct.Struct("<8sQI")
_LENGTH = struct.Struct("<Q")

# An endpoint belongs to one process, so numbers of one process are enough.
_transfers = itertools.count(1)


@dataclass(frozen=True)
class Incoming:
    """An object whose head is here and whose parts are on their way."""

    head: Message
    pickle_offset: int
    requests: list[Request]

    def load(self) -> Any:
        """The object, once all requests are complete. Its arrays use the received memory."""
        parts = [request.message for request in self.requests]
        return pickle.loads(memoryview(self.head)[self.pickle_offset :], buffers=parts)


def start_send(endpoint: Endpoint, obj: object, dest: Peer, match: int) -> list[Request]:
    """Pickles an object and starts to send it; the requests keep its buffers alive."""
    parts: list[memoryview] = []

    def keep_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous: the pickle makes a copy that is
            return True
        if view.nbytes < PART_NBYTES_MIN or len(parts) == PARTS_MAX:
            return True
        parts.append(view)
        return False

    if endpoint.has_regions:
        keys: set[Key] = set()
        pickled = _pickle(obj, keep_in_pickle, keys)
        for key in keys:
            endpoint.grant_key(key, dest)
    else:
        pickled = pickle.dumps(obj, protocol=5, buffer_callback=keep_in_pickle)
    transfer = next(_transfers)
    head = b"".join(
        [
            _HEAD.pack(_MAGIC, transfer, len(parts)),
            *(_LENGTH.pack(part.nbytes) for part in parts),
            pickled,
        ]
    )
    requests = [endpoint.isend(head, dest, match=match)]
    requests += [endpoint.isend(part, dest, match=transfer, untagged=True) for part in parts]
    return requests


class _Collector(pickle.Pickler):
    """Notes the keys in what it pickles."""

    def __init__(
        self,
        file: io.BytesIO,
        keep_in_pickle: Callable[[pickle.PickleBuffer], bool],
        keys: set[Key],
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep_in_pickle)
        self._keys = keys

    def reducer_override(self, obj: Any) -> Any:
        """Called for each object that is of no built-in type."""
        if type(obj) is Key:
            self._keys.add(obj)
        return NotImplemented


def _pickle(
    obj: object, keep_in_pickle: Callable[[pickle.PickleBuffer], bool], keys: set[Key]
) -> bytes:
    file = io.BytesIO()
    _Collector(file, keep_in_pickle, keys).dump(obj)
    return file.getvalue()


def start_recv(endpoint: Endpoint, head: Message, max_nbytes: int | None) -> Incoming:
    """Checks the head of an object and posts receives for its parts.

    Raises `NotAnObject` for a message that `send_object` has not sent, or one that is too long;
    the parts of the latter are then refused, which ends their sends.
    """
    transfer, lengths, pickle_offset = _parse(head)
    limit = OBJECT_NBYTES_MAX if max_nbytes is None else max_nbytes
    total = len(head) + sum(lengths)

    def post(length: int) -> Request:
        return endpoint.irecv(length, match=transfer, source=head.source, untagged=True)

    if total > limit:
        for _ in lengths:
            refused = endpoint.improbe(match=transfer, source=head.source, untagged=True)
            if refused is not None:
                refused.discard()
        raise NotAnObject(
            f"the object has {total} bytes, more than the limit of {limit}",
            "allow more with recv_object(max_nbytes=...)",
        )
    return Incoming(head, pickle_offset, [post(length) for length in lengths])


def _parse(head: Message) -> tuple[int, list[int], int]:
    """Number of the transfer, lengths of the parts, and where the pickle begins."""
    view = memoryview(head)
    foreign = "the message is not an object; it was sent with send(), not with send_object()"
    if len(view) < _HEAD.size:
        raise NotAnObject(foreign)
    magic, transfer, count = _HEAD.unpack_from(view)
    pickle_offset = _HEAD.size + count * _LENGTH.size
    if magic != _MAGIC or count > PARTS_MAX or pickle_offset > len(view):
        raise NotAnObject(foreign)
    lengths = [length for (length,) in _LENGTH.iter_unpack(view[_HEAD.size : pickle_offset])]
    return transfer, lengths, pickle_offset


def send_object(
    endpoint: Endpoint, obj: object, dest: Peer, match: int, timeout: float | None
) -> None:
    """`Endpoint.send_object`."""
    _wait_all(start_send(endpoint, obj, dest, match), _deadline(timeout))


def recv_object(
    endpoint: Endpoint,
    match: int | None,
    mask: int | None,
    source: Peer | None,
    max_nbytes: int | None,
    timeout: float | None,
) -> Any:
    """`Endpoint.recv_object`."""
    deadline = _deadline(timeout)
    head = endpoint.recv(match=match, mask=mask, source=source, timeout=timeout)
    incoming = start_recv(endpoint, head, max_nbytes)
    _wait_all(incoming.requests, deadline)
    return incoming.load()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _wait_all(requests: list[Request], deadline: float | None) -> None:
    for request in requests:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        request.wait(left)
