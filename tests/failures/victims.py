# SPDX-License-Identifier: Apache-2.0
"""The nursery of `test_sigkill`: forks processes that come to a stage of a message and stay there.

Run as a program, by `Nursery`. It has no endpoint and no thread of its own, so that a fork of it
is cheap and clean; a victim opens its own endpoint and connects to the survivor. Lines::

    to the nursery:     fork NAME STAGE SEED     reap
    from the nursery:   reaped STATUS CHILDREN-LEFT
    from the victim:    connected PID            ready (it is at its stage and stays there)
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import diolkos

# Match infos of what crosses.
FILLER, MESSAGE, ECHO = 1, 2, 3
# A message that is never in flight as a whole: a channel's area has 4 MiB.
LONG = 16 << 20
# A message that is announced first, and the longest that is not.
ANNOUNCED, EAGER = 100_000, 64 << 10
# Cells of a ring but for two: of what is sent next two of four pieces leave, and then there is no
# room. Each is just long enough to have a line of the ring for itself.
FILLERS, FILLER_BYTES = 510, bytes(9)
_PR_SET_PDEATHSIG = 1

Stage = Callable[[diolkos.Endpoint, diolkos.Peer, random.Random], None]


def contents(size: int) -> bytes:
    """Bytes that are nowhere alike."""
    return random.Random(size).randbytes(size)


# The same at the victim and at the survivor; made before the fork, so that it costs nothing after.
TEXT = contents(LONG)


def say(line: str) -> None:
    """To the survivor."""
    os.write(1, f"{line}\n".encode())


def stay() -> None:
    """Alive, and silent."""
    say("ready")
    while True:
        signal.pause()


def before(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """Nothing was sent."""
    stay()


def between(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """The first pieces of an eager message have left."""
    for _ in range(FILLERS):
        ep.send(FILLER_BYTES, to, match=FILLER)
    message = ep.isend(TEXT[:EAGER], to, match=MESSAGE)
    if message.done:
        say("the whole message has left")
    stay()


def sent(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """A whole message has left."""
    ep.send(TEXT[: dice.choice((0, 8, 32, 33, 4096, EAGER))], to, match=MESSAGE)
    stay()


def announced(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """A message was announced."""
    message = ep.issend(TEXT[: dice.choice((8, ANNOUNCED))], to, match=MESSAGE)
    stay()
    del message


def streaming(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """It streams, until a signal says that some of it has come."""
    enough: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: enough.append(number))
    message = ep.isend(TEXT, to, match=MESSAGE)
    say("started")
    while not enough:
        message.test()
    stay()


def receiving(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """It has received the beginning of a long message."""
    room = bytearray(LONG)
    message = ep.irecv_into(room, match=MESSAGE, source=to)
    while room[0] != TEXT[0]:
        message.test()
    stay()


def deaf(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """It receives nothing."""
    stay()


def busy(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """It sends and receives whatever, and is killed wherever it is."""
    say("ready")
    room = bytearray(LONG)
    receive = ep.irecv_into(room, match=MESSAGE, source=to)
    while True:
        size = dice.choice((0, 8, 33, 4096, EAGER, ANNOUNCED, 1 << 20))
        send = ep.isend(TEXT[:size], to, match=MESSAGE)
        while send.test() is None:
            if receive.test() is not None:
                receive = ep.irecv_into(room, match=MESSAGE, source=to)


def echo(ep: diolkos.Endpoint, to: diolkos.Peer, dice: random.Random) -> None:
    """The third endpoint: gives back what it gets, to the end."""
    say("ready")
    while True:
        message = ep.recv(match=ECHO)
        ep.send(message, to, match=ECHO, immediate=message.immediate)


STAGES: dict[str, Stage] = {
    stage.__name__: stage
    for stage in (before, between, sent, announced, streaming, receiving, deaf, busy)
}


def live(name: str, stage: str, seed: int) -> None:
    """A victim's life."""
    with diolkos.Endpoint(name, start_backend=False) as ep:
        survivor = ep.connect("survivor")
        say(f"connected {os.getpid()}")
        (STAGES | {"echo": echo})[stage](ep, survivor, random.Random(seed))


def fork(name: str, stage: str, seed: int) -> None:
    """A new victim, which does not outlive the nursery."""
    if os.fork() == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            live(name, stage, seed)
        except diolkos.PeerError:
            os._exit(0)
        except BaseException as error:
            say(f"failed: {error!r}")
            os._exit(1)


def main() -> None:
    """Forks and reaps until the survivor closes the pipe."""
    for line in sys.stdin:
        match line.split():
            case ["fork", name, stage, seed]:
                fork(name, stage, int(seed))
            case ["reap"]:
                _, status = os.wait()
                children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
                say(f"reaped {status} {len(children)}")


class Nursery:
    """The survivor's side: a subprocess with victims. Ends with them at the end of the `with`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._heard = b""

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def has_line(self) -> bool:
        """Whether `expect` would not wait."""
        assert self._process.stdout is not None
        return b"\n" in self._heard or bool(select.select([self._process.stdout], [], [], 0)[0])

    def expect(self, start: str) -> list[str]:
        """The next line, which must begin so; its other words."""
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            piece = os.read(self._process.stdout.fileno(), 4096)
            assert piece, "the nursery ended"
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        words = line.decode().split()
        assert words[0] == start, f"{line!r} instead of {start}"
        return words[1:]

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def fork(self, name: str, stage: str, seed: int = 0) -> int:
        """A victim that has connected to the survivor; its process."""
        self._tell(f"fork {name} {stage} {seed}")
        (pid,) = self.expect("connected")
        return int(pid)

    def reap(self, alive: int) -> None:
        """The victim was killed, and so many others are alive."""
        self._tell("reap")
        status, children = self.expect("reaped")
        assert os.WTERMSIG(int(status)) == signal.SIGKILL
        assert int(children) == alive


if __name__ == "__main__":
    main()
