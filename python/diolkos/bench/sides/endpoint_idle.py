# SPDX-License-Identifier: Apache-2.0
"""A crowd of endpoints that are connected to both sides of ours and never say anything.

It is there to show what idle peers cost the two that talk. It sleeps on its control socket.
"""

from __future__ import annotations

from typing import Any

import diolkos
from diolkos.bench.control import Command
from diolkos.bench.sides.endpoint import connect
from diolkos.bench.sides.worker import Unsupported, Worker


class IdleWorker(Worker):
    """``count`` endpoints, each connected to each of ``targets``."""

    def __init__(self, side: int, targets: list[str | int], count: int) -> None:
        self._endpoints = [diolkos.Endpoint() for _ in range(count)]
        for endpoint in self._endpoints:
            for target in targets:
                connect(endpoint, target, "auto")

    def describe(self) -> dict[str, Any]:
        """Says how many there are."""
        return {"library": f"{len(self._endpoints)} idle endpoints"}

    def serve(self, command: Command) -> bytes:
        """Refuses: the coordinator never asks."""
        raise Unsupported("an idle peer takes no part")

    def close(self) -> None:
        """Closes all endpoints."""
        for endpoint in self._endpoints:
            endpoint.close()
