# SPDX-License-Identifier: Apache-2.0
"""iceoryx2, loans: a sample is taken from the pool, written, sent, read where it lies, and dropped.

The ports are those of :mod:`.iceoryx`; nothing is copied here.
"""

from __future__ import annotations

import ctypes
from typing import Any

from diolkos.bench.sides.iceoryx import IceoryxPorts
from diolkos.bench.sides.lending import LoanStatements, LoanWorker


class IceoryxLoanWorker(LoanWorker):
    """One node, with a publisher and a subscriber for each size."""

    statements = LoanStatements(
        take="taken = loan(size)",
        write_word="word_at(taken.payload_ptr).value = i",
        lend="taken.assume_init().send()",
        receive="while (sample := receive()) is None: pass",
        read_word="word_at(sample.payload_ptr).value",
        let_go="sample.delete()",
        outgoing="view(taken)",
        incoming="view(sample)",
    )

    def __init__(self, side: int, directory: str, prefix: str, depth: int) -> None:
        super().__init__(side)
        self._ports = IceoryxPorts(side, directory, prefix, depth)

    def describe(self) -> dict[str, Any]:
        """Names the library."""
        return {"library": self._ports.library()}

    def names(self, size: int) -> dict[str, Any]:
        """The ports' methods."""
        publisher, subscriber = self._ports.open(size)
        array_type = ctypes.c_char * size

        def view(sample: Any) -> memoryview:
            return memoryview(array_type.from_address(sample.payload_ptr)).cast("B")

        return {
            "loan": publisher.loan_slice_uninit,
            "receive": subscriber.receive,
            "size": size,
            "word_at": ctypes.c_uint64.from_address,
            "view": view,
        }

    def close(self) -> None:
        """Takes the ports and the node out of the shared memory."""
        self._loops.clear()
        self._ports.close()
