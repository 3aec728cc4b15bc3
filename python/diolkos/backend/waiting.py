# SPDX-License-Identifier: Apache-2.0
"""Connects whose target is not there, by who asked and by whom they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from diolkos.backend.limits import PENDING_CONNECTS_MAX
from diolkos.backend.messages import Connect
from diolkos.backend.registry import Endpoint


@dataclass(eq=False)
class Waiting:
    """One of them. `timer` runs if its time is bounded."""

    asker: Endpoint
    request: Connect
    timer: asyncio.TimerHandle | None = None


class WaitingConnects:
    """All of them. `on_timeout` is called with one whose time is up; it is out already then."""

    def __init__(self, on_timeout: Callable[[Waiting], None]) -> None:
        self._on_timeout = on_timeout
        # The same connects in both; empty tables are taken out.
        self._by_asker: dict[Endpoint, dict[int, Waiting]] = {}
        self._by_target: dict[str | int, dict[Waiting, None]] = {}

    def add(self, asker: Endpoint, request: Connect) -> bool:
        """Has a connect wait; False when its asker has as many waiting as it may."""
        mine = self._by_asker.setdefault(asker, {})
        if len(mine) >= PENDING_CONNECTS_MAX:
            return False
        waiting = Waiting(asker, request)
        if request.timeout_ms is not None:
            loop = asyncio.get_running_loop()
            waiting.timer = loop.call_later(request.timeout_ms / 1000, self._time_out, waiting)
        mine[request.id] = waiting
        self._by_target.setdefault(request.target, {})[waiting] = None
        return True

    def find(self, asker: Endpoint, request_id: int) -> Waiting | None:
        """The waiting connect of that id."""
        return self._by_asker.get(asker, {}).get(request_id)

    def of(self, asker: Endpoint) -> list[Waiting]:
        """Those of one endpoint."""
        return list(self._by_asker.get(asker, {}).values())

    def meaning(self, endpoint: Endpoint) -> list[Waiting]:
        """Those that mean an endpoint's name or number, whether they may see it or not."""
        keys = (endpoint.name, endpoint.number)
        return [waiting for key in keys for waiting in self._by_target.get(key, ())]

    def remove(self, waiting: Waiting) -> None:
        """Takes one out."""
        if waiting.timer is not None:
            waiting.timer.cancel()
        mine = self._by_asker[waiting.asker]
        del mine[waiting.request.id]
        if not mine:
            del self._by_asker[waiting.asker]
        others = self._by_target[waiting.request.target]
        del others[waiting]
        if not others:
            del self._by_target[waiting.request.target]

    def _time_out(self, waiting: Waiting) -> None:
        self.remove(waiting)
        self._on_timeout(waiting)
