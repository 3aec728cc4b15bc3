# SPDX-License-Identifier: Apache-2.0
"""iceoryx2: publish-subscribe in both directions, polled without a pause, its quickest way.

It is used as it wants to be used. A sender loans a sample and copies its data in, once; a receiver
reads the sample where it lies and copies nothing. Each size of message has services of its own, so
that samples lie densely in the pool.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import time
from typing import Any

from diolkos.bench.sides.loops import Statements
from diolkos.bench.sides.worker import PythonWorker

_RENDEZVOUS_LIMIT_S = 10.0
_RECEIVE = "while (sample := receive()) is None: pass"


class IceoryxPorts:
    """One node, and a publisher and a subscriber for each size that is opened.

    ``directory`` and ``prefix`` say where its files go, so that a killed run leaves none behind;
    ``depth`` is how many samples may be on their way.
    """

    def __init__(self, side: int, directory: str, prefix: str, depth: int) -> None:
        self._side = side
        self._library: Any = importlib.import_module("iceoryx2")
        self._depth = depth
        self._open: list[Any] = []
        library = self._library
        library.set_log_level(library.LogLevel.Error)
        config = library.config.default()
        config.global_cfg.prefix = library.FileName.new(prefix)
        config.global_cfg.root_path = library.Path.new(directory)
        self._node = (
            library.NodeBuilder.new()
            .config(config)
            .signal_handling_mode(library.SignalHandlingMode.Disabled)
            .create(library.ServiceType.Ipc)
        )

    def library(self) -> str:
        """Names the library."""
        version = importlib.metadata.version("iceoryx2")
        return f"iceoryx2 {version}, publish-subscribe, polled"

    def open(self, size: int) -> tuple[Any, Any]:
        """The ports for one size, once the other side has made its own."""
        mine, theirs = self._service(size, self._side), self._service(size, 1 - self._side)
        strategy = self._library.BackpressureStrategy.RetryUntilDelivered
        publisher = (
            mine.publisher_builder()
            .initial_max_slice_len(max(size, 1))
            .backpressure_strategy(strategy)
            .create()
        )
        subscriber = theirs.subscriber_builder().buffer_size(self._depth).create()
        self._open += [publisher, subscriber, mine, theirs]
        limit = time.monotonic() + _RENDEZVOUS_LIMIT_S
        while not (
            mine.dynamic_config.number_of_subscribers and theirs.dynamic_config.number_of_publishers
        ):
            if time.monotonic() > limit:
                raise RuntimeError("the other side did not make its ports")
        return publisher, subscriber

    def close_ports(self) -> None:
        """Takes all ports out of the shared memory."""
        self._open.clear()

    def close(self) -> None:
        """Takes the ports and the node out of the shared memory."""
        self.close_ports()
        del self._node

    def _service(self, size: int, side: int) -> Any:
        name = self._library.ServiceName.new(f"diolkos-bench/{size}/from-{side}")
        element = self._library.Slice[ctypes.c_uint8]
        return (
            self._node.service_builder(name)
            .publish_subscribe(element)
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(self._depth)
            .open_or_create()
        )


class IceoryxWorker(PythonWorker):
    """Messages through the ports of one size at a time."""

    statements = Statements(
        send="loaned = loan(size); copy(loaned.payload_ptr, out_address, size);"
        " loaned.assume_init().send()",
        receive=_RECEIVE,
        send_back="loaned = loan(size); copy(loaned.payload_ptr, sample.payload_ptr, size);"
        " loaned.assume_init().send()",
        acknowledge="loan(1).assume_init().send()",
        receive_acknowledgement=_RECEIVE,
        incoming="view(sample)",
        incoming_word="word_at(sample.payload_ptr).value",
    )

    def __init__(self, side: int, directory: str, prefix: str, depth: int) -> None:
        super().__init__(side)
        self._ports = IceoryxPorts(side, directory, prefix, depth)
        self._pair: tuple[Any, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Names the library."""
        return {"library": self._ports.library()}

    def prepare(self, size: int) -> None:
        """Makes the ports for one size and waits until the other side has made its own."""
        self._pair = ()  # the old ones leave the shared memory here
        self._ports.close_ports()
        self._pair = self._ports.open(size)

    def names(self) -> dict[str, Any]:
        """The ports' methods and the address of the outgoing buffer."""
        size = len(self.outgoing)
        keep_alive = (ctypes.c_char * max(size, 1)).from_buffer(self.outgoing.obj)
        array_type = ctypes.c_char * size
        word_type = ctypes.c_uint64 if size >= 8 else ctypes.c_uint8
        return {
            "loan": self._pair[0].loan_slice_uninit,
            "receive": self._pair[1].receive,
            "copy": ctypes.memmove,
            "size": size,
            "out_address": ctypes.addressof(keep_alive),
            "word_at": word_type.from_address,
            "view": lambda sample: memoryview(array_type.from_address(sample.payload_ptr)),
        }

    def close(self) -> None:
        """Takes the ports and the node out of the shared memory."""
        self._pair = ()
        self._ports.close()
