# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends every wait, and the endpoint is fine afterwards.

A program says that it is about to wait; the test sends it SIGINT, and it says that the wait has
ended, as a user would do. That the wait has really begun does not matter: a signal
before it ends it as well.
"""

from __future__ import annotations

import signal

import pytest

from programs import PATIENCE_S, Program

WAITS = {
    "recv": "a.endpoint.recv()",
    "recv with a timeout": f"a.endpoint.recv(timeout={PATIENCE_S})",
    "recv_into": "a.endpoint.recv_into(bytearray(8))",
    "recv_object": "a.endpoint.recv_object()",
    "probe": "a.endpoint.probe()",
    "mprobe": "a.endpoint.mprobe()",
    "send": "a.endpoint.send(bytes(100_000), a.peer)",
    "send_object": "a.endpoint.send_object(bytes(100_000), a.peer)",
    "wait": "a.endpoint.irecv(8).wait()",
    "wait_any": "diolkos.wait_any([a.endpoint.irecv(8, match=i) for i in range(3)])",
    "wait_any of two": "diolkos.wait_any([side.endpoint.irecv(8, match=1) for side in (a, b)])",
    "multi_recv": "a.endpoint.multi_recv(bytearray(8), match=1).next()",
    "iteration": "list(a.endpoint.multi_recv(bytearray(8), match=1))",
}

SOURCE = """
with pair() as (a, b):
    try:
        say("waiting")
        {wait}
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("interrupted")
    b.endpoint.send(b"still fine", b.peer)
    say(bytes(a.endpoint.recv(match=0)))
"""


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c_ends(program: type[Program], name: str) -> None:
    running = program(SOURCE.format(wait=WAITS[name]))
    assert running.line() == "waiting"
    running.signal(signal.SIGINT)
    assert running.line() == "interrupted"
    assert running.line() == "b'still fine'"
    running.succeed()


def test_ctrl_c_ends_opening_and_connecting(
    program: type[Program], backend: object, runtime_dir: object
) -> None:
    running = program(
        """
        with diolkos.Endpoint("lonely") as ep:
            try:
                say("waiting")
                ep.connect("nobody")
            except KeyboardInterrupt:
                say("interrupted")
            say(ep.counters["requests"])
        """
    )
    assert running.line() == "waiting"
    running.signal(signal.SIGINT)
    assert running.line() == "interrupted"
    assert running.line() == "0"
    running.succeed()


def test_other_signals_run_their_handlers_and_the_wait_goes_on(program: type[Program]) -> None:
    running = program(
        """
        with pair() as (a, b):
            def answer(number, frame):
                say("handler")
                b.endpoint.send(b"from the handler", b.peer)
            signal.signal(signal.SIGUSR1, answer)
            say("waiting")
            say(bytes(a.endpoint.recv()))
        """
    )
    assert running.line() == "waiting"
    running.signal(signal.SIGUSR1)
    assert running.line() == "handler"
    assert running.line() == "b'from the handler'"
    running.succeed()


def test_a_signal_during_the_unexpected_handler(program: type[Program]) -> None:
    """The interrupt belongs to whoever waits, not to the handler that happened to run."""
    running = program(
        """
        with pair() as (a, b):
            def handler(status, data):
                signal.raise_signal(signal.SIGINT)
            b.endpoint.on_unexpected(handler)
            a.endpoint.send(b"x", a.peer, match=1)
            try:
                b.endpoint.recv(match=2)
            except KeyboardInterrupt:
                say("interrupted")
        """
    )
    assert running.line() == "interrupted"
    running.succeed()
