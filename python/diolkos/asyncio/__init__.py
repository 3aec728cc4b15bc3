# SPDX-License-Identifier: Apache-2.0
"""Endpoints for programs with an event loop: the names of `diolkos`, with `await`.

    async with diolkos.asyncio.Endpoint("alice") as ep:
        bob = await ep.connect("bob", timeout=5)
        await ep.send(array, bob, match=7)
        n = (await ep.recv_into(array, match=7)).nbytes

How it waits
------------
A call first does its work at once: when the message is here already, `await` costs no trip through
the event loop. If nobody else waits it then looks for a few microseconds more, as long as that has
been worth it lately. Otherwise the call becomes a *waiter*: a predicate that says whether to try
again, and a future. While there are waiters the endpoint is *armed*: its descriptor, watched by the
loop, becomes readable when something happens. Each time it does, the endpoint is disarmed, every
waiter whose predicate holds is woken, and the endpoint is armed again for the others::

    try --- nothing ---> waiter --- descriptor readable, predicate holds ---> try
     |
     +--- here ---> return

Predicates only look. The message is taken by the awaiting task itself, in the step in which it
returns, so cancelling a task never loses a message, and messages go to tasks in the order in which
the tasks came.

One case remains: a long message whose transfer has begun. Then a cancellation is held back until
the transfer ends (it ends with an error if the peer dies); what arrived is kept, and the next
receive that matches gets it. A second cancellation gives the message up.

An endpoint belongs to one event loop at a time. Other threads may use `Endpoint.blocking`
meanwhile.
"""

from diolkos.asyncio.endpoint import Endpoint
from diolkos.asyncio.requests import ClaimedMessage, MultiReceive, Request, wait_any

__all__ = ["ClaimedMessage", "Endpoint", "MultiReceive", "Request", "wait_any"]
