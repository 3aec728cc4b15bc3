# SPDX-License-Identifier: Apache-2.0
"""The timed loops of all contenders written in Python, from one text.

A message of ours costs a third of a microsecond, a call of a Python function a tenth of that. A
loop that calls each library through an adapter would therefore mostly compare adapters. As
``timeit`` does, the loops are compiled from templates: each contender says in one statement each
how a user of its library sends and receives, and every contender gets the same lines around them::

    times[0] = clock()
    for i in range(iterations):
        words_out[0] = i                                 the word that a timed pass writes,
        endpoint.send(outgoing, peer, match=7)           <- the contender's statement
        endpoint.recv_into(incoming, match=7)            <- the contender's statement
        if words_in[0] != i:                             and checks
            raise VerificationError(WRONG_WORD)
        times[i + 1] = clock()                           one reading of the clock an iteration

The responder sends back the buffer that it received into. In the ``touched`` loops it sends one of
its own, and both write all of their message before the time begins, as a program does whose message
is read where it lies. Only the loops with a ``verify`` in their name look at every byte, and they
take no times.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diolkos.bench.sides.payload import VerificationError

Loop = Callable[..., Any]

WRONG_WORD = "the checked word of a timed message is wrong"

_PINGPONG_INITIATE = """
    times[0] = clock()
    for i in range(iterations):
        {write_word}
        {send}
        {receive}
        if {read_word} != {word}:
            raise VerificationError(WRONG_WORD)
        times[i + 1] = clock()
"""

_PINGPONG_INITIATE_PAUSED = """
    times[0] = 0
    for i in range(iterations):
        {pause}
        begin = clock()
        {write_word}
        {send}
        {receive}
        if {read_word} != {word}:
            raise VerificationError(WRONG_WORD)
        times[i + 1] = times[i] + clock() - begin
"""

_PINGPONG_INITIATE_TOUCHED = """
    times[0] = 0
    for i in range(iterations):
        outgoing[:] = fresh
        {write_word}
        {receive_acknowledgement}
        begin = clock()
        {send}
        {receive}
        times[i + 1] = times[i] + clock() - begin
        if {read_word} != {word}:
            raise VerificationError(WRONG_WORD)
"""

_PINGPONG_RESPOND_TOUCHED = """
    for i in range(iterations):
        outgoing[:] = fresh
        {write_word}
        {acknowledge}
        {receive}
        {send}
"""

_PINGPONG_RESPOND = """
    for i in range(iterations):
        {receive}
        {send_back}
"""

_PINGPONG_VERIFY_INITIATE = """
    for i in range(iterations):
        outgoing_pattern.fill(outgoing, i)
        {send}
        {receive}
        incoming_pattern.check({incoming}, i)
"""

_PINGPONG_VERIFY_RESPOND = """
    for i in range(iterations):
        {receive}
        incoming_pattern.check({incoming}, i)
        outgoing_pattern.fill(outgoing, i)
        {send}
"""

_STREAM_SEND = """
    times[0] = clock()
    for i in range(windows):
        {write_word}
        for _ in range(window):
            {send_on}
        {receive_acknowledgement}
    times[1] = clock()
"""

_STREAM_RECEIVE = """
    for i in range(windows):
        for _ in range(window):
            {receive}
        if {read_word} != {word}:
            raise VerificationError(WRONG_WORD)
        {acknowledge}
"""

_STREAM_VERIFY_SEND = """
    for i in range(iterations):
        outgoing_pattern.fill(outgoing, i)
        {send_on}
    {receive_acknowledgement}
"""

_STREAM_VERIFY_RECEIVE = """
    for i in range(iterations):
        {receive}
        incoming_pattern.check({incoming}, i)
    {acknowledge}
"""

_READY_SEND = """
    for i in range(iterations):
        {send_on}
    {acknowledge}
"""

_READY_RECEIVE = """
    {receive_acknowledgement}
    times[0] = clock()
    for i in range(iterations):
        {receive}
        times[i + 1] = clock()
"""


@dataclass(frozen=True)
class Statements:
    """How one library sends and receives, in the words of its user.

    ``outgoing`` and ``incoming`` are memoryviews of the message's size; whatever else the
    statements name comes from the contender's ``names``.
    """

    send: str
    receive: str
    #: Sends back what ``receive`` brought.
    send_back: str
    #: The shortest message that the library can send, and its receipt.
    acknowledge: str
    receive_acknowledgement: str
    #: Sends ``outgoing`` so that it may be written again at once, if ``send`` is not that.
    send_on: str | None = None
    #: Where the received bytes are, for libraries that do not receive into a buffer of the caller.
    incoming: str = "incoming"
    incoming_word: str = "words_in[0]"
    asynchronous: bool = False


@dataclass(frozen=True)
class Loops:
    """The compiled loops of one contender for one size of message."""

    pingpong_initiate: Loop
    pingpong_initiate_paused: Loop
    pingpong_initiate_touched: Loop
    pingpong_respond: Loop
    pingpong_respond_touched: Loop
    pingpong_verify_initiate: Loop
    pingpong_verify_respond: Loop
    stream_send: Loop
    stream_receive: Loop
    stream_verify_send: Loop
    stream_verify_receive: Loop
    ready_send: Loop
    ready_receive: Loop


def compile_loops(statements: Statements, size: int, names: dict[str, Any]) -> Loops:
    """The loops for messages of ``size`` bytes; ``names`` are what the statements refer to."""
    if size >= 8:
        write_word, read_word, word = "words_out[0] = i", statements.incoming_word, "i"
    elif size > 0:  # one byte is all the word there is
        write_word, read_word, word = "words_out[0] = i & 255", statements.incoming_word, "i & 255"
    else:
        write_word, read_word, word = "pass", "0", "0"
    words = {
        "write_word": write_word,
        "read_word": read_word,
        "word": word,
        "pause": "await sleep(pause_s)" if statements.asynchronous else "sleep(pause_s)",
        "send": statements.send,
        "receive": statements.receive,
        "send_back": statements.send_back,
        "send_on": statements.send_on or statements.send,
        "acknowledge": statements.acknowledge,
        "receive_acknowledgement": statements.receive_acknowledgement,
        "incoming": statements.incoming,
    }
    names = {"VerificationError": VerificationError, "WRONG_WORD": WRONG_WORD, **names}

    def build(template: str, parameters: str) -> Loop:
        return build_loop(template.format(**words), parameters, names, statements.asynchronous)

    return Loops(
        pingpong_initiate=build(_PINGPONG_INITIATE, "iterations, times, clock"),
        pingpong_initiate_paused=build(
            _PINGPONG_INITIATE_PAUSED, "iterations, times, clock, pause_s, sleep"
        ),
        pingpong_initiate_touched=build(
            _PINGPONG_INITIATE_TOUCHED, "iterations, times, clock, fresh"
        ),
        pingpong_respond=build(_PINGPONG_RESPOND, "iterations"),
        pingpong_respond_touched=build(_PINGPONG_RESPOND_TOUCHED, "iterations, fresh"),
        pingpong_verify_initiate=build(
            _PINGPONG_VERIFY_INITIATE, "iterations, outgoing_pattern, incoming_pattern"
        ),
        pingpong_verify_respond=build(
            _PINGPONG_VERIFY_RESPOND, "iterations, outgoing_pattern, incoming_pattern"
        ),
        stream_send=build(_STREAM_SEND, "windows, window, times, clock"),
        stream_receive=build(_STREAM_RECEIVE, "windows, window"),
        stream_verify_send=build(_STREAM_VERIFY_SEND, "iterations, outgoing_pattern"),
        stream_verify_receive=build(_STREAM_VERIFY_RECEIVE, "iterations, incoming_pattern"),
        ready_send=build(_READY_SEND, "iterations"),
        ready_receive=build(_READY_RECEIVE, "iterations, times, clock"),
    )


def build_loop(body: str, parameters: str, names: dict[str, Any], asynchronous: bool) -> Loop:
    """One loop as a function whose ``names`` are locals: a global costs a lookup each time."""
    keyword = "async def" if asynchronous else "def"
    bindings = "".join(f"    {name} = _names[{name!r}]\n" for name in names)
    source = f"{keyword} loop({parameters}):\n{bindings}{textwrap.indent(body, '')}"
    scope: dict[str, Any] = {"_names": names}
    exec(compile(source, "<diolkos bench loop>", "exec"), scope)  # our own text, no input
    loop: Loop = scope["loop"]
    return loop
