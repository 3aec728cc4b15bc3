# SPDX-License-Identifier: Apache-2.0
"""The interpreter ends while endpoints and requests are open: no crash, no hang, no noise."""

from __future__ import annotations

import textwrap

import pytest

from programs import Program

ENDINGS = {
    "open endpoints": "kept = a, b",
    "open requests": """
        requests = [a.irecv_into(bytearray(100)), a.isend(bytes(100_000), to_b), b.irecv(10)]
        """,
    "dropped requests": """
        a.isend(bytearray(100_000), to_b)
        a.irecv_into(bytearray(8))
        """,
    "claims and multi-receives": """
        a.send(b"hello", to_b)
        kept = b.mprobe(), b.multi_recv(bytearray(100))
        """,
    "a cycle": """
        class Node: pass
        node = Node()
        node.itself, node.request = node, a.isend(bytes(100_000), to_b)
        """,
    "a handler": """
        b.on_unexpected(lambda status, data: b)
        a.send(b"hello", to_b)
        """,
    "a waiting daemon thread": """
        waiting = threading.Event()
        def wait():
            waiting.set()
            a.recv()
        threading.Thread(target=wait, daemon=True).start()
        waiting.wait()
        """,
    "many waiting daemon threads": """
        for call in (a.recv, a.probe, b.mprobe, lambda: a.recv_into(bytearray(8))):
            threading.Thread(target=call, daemon=True).start()
        """,
    "a call at exit": """
        import atexit
        atexit.register(lambda: (a.send(b"bye", to_b), b.recv(), a.close()))
        request = a.irecv(8)
        """,
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_interpreter_ends_with(program: type[Program], name: str) -> None:
    running = program(
        "from diolkos._core import local_pair\n"
        "(a, to_b), (b, to_a) = local_pair()\n"
        f"{textwrap.dedent(ENDINGS[name])}\n"
        "say('end of the program')\n"
    )
    assert running.line() == "end of the program"
    running.succeed()
