# SPDX-License-Identifier: Apache-2.0
"""Ours, loans: memory of the endpoint's arena is lent, read where it lies, and comes back."""

from __future__ import annotations

from typing import Any

import diolkos
from diolkos.bench.sides.endpoint import connect, library
from diolkos.bench.sides.lending import LoanStatements, LoanWorker
from diolkos.bench.sides.one_sided import words_of


class EndpointLoanWorker(LoanWorker):
    """One endpoint called ``name``, connected to the one called ``peer`` on ``road``."""

    statements = LoanStatements(
        write_word="words_out[0] = i",
        lend="request = lend(memory, peer)",
        receive="loan = recv_loan(dtype='Q')",
        read_word="loan[0]",
        let_go="loan.release()",
        returned="request.wait()",
        outgoing="outgoing",
        incoming="memoryview(loan).cast('B')",
    )

    def __init__(self, side: int, name: str, peer: str, road: str) -> None:
        super().__init__(side)
        self._endpoint: Any = diolkos.Endpoint(name)
        self._peer = connect(self._endpoint, peer, road)

    def describe(self) -> dict[str, Any]:
        """Names the library and the road that was taken."""
        return {"library": library("blocking"), "road": self._peer.road}

    def names(self, size: int) -> dict[str, Any]:
        """The endpoint's methods, the peer and the memory that is lent."""
        memory = self._endpoint.alloc(size)
        outgoing = memoryview(memory)
        return {
            "lend": self._endpoint.lend,
            "recv_loan": self._endpoint.recv_loan,
            "peer": self._peer,
            "memory": memory,
            "outgoing": outgoing,
            "words_out": words_of(outgoing),
        }

    def close(self) -> None:
        """Closes the endpoint."""
        self._endpoint.close()
