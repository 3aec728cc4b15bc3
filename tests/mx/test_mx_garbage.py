# SPDX-License-Identifier: Apache-2.0
"""A peer that speaks garbage: a client of the backend that gets the real descriptors of its end of
a channel, and writes into its file whatever a seed says. `c/garbage.c` is its victim."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time

import pytest

from mxprograms import PATIENCE_S, Machine
from rawclient import CHANNEL_FILE_BYTES, End, RawClient, mapped, ring

pytestmark = pytest.mark.slow

CONSUMED, WINDOW, CLOSING, CELLS = 0x40, 0x58, 0xC0, 0x1000
CELL_COUNT = 512
EAGER, MORE, RTS, CTS, DATA, CLOSE = 1, 2, 3, 4, 5, 6
LIARS = 12
# What the victim's receive looks for.
FROM_LIAR = 7


def write_cell(end: End, number: int, kind: int, flags: int, inline: int, words: list[int]) -> None:
    """A cell as it should be written: the first word last."""
    at = CELLS + 64 * (number % CELL_COUNT)
    end.outgoing[at + 8 : at + 32] = struct.pack("<3Q", *words)
    stamp = (number + 1) % 2**32
    end.outgoing[at : at + 8] = struct.pack("<IBBH", stamp, kind, flags, inline)


def a_size(dice: random.Random) -> int:
    """A number of any magnitude."""
    return dice.getrandbits(64) >> dice.randrange(64)


def scribble(end: End, dice: random.Random) -> None:
    """Bytes anywhere, but not a farewell, which would be no lie."""
    at = dice.choice([0, CONSUMED, CELLS, CELLS, dice.randrange(CHANNEL_FILE_BYTES)])
    length = dice.choice([1, 8, 64, 4096])
    stop = min(at + length, CHANNEL_FILE_BYTES)
    end.outgoing[at:stop] = dice.randbytes(stop - at)
    end.outgoing[CLOSING : CLOSING + 8] = bytes(8)


def almost(end: End, dice: random.Random, number: int) -> None:
    """The next cell, with a frame that nearly makes sense."""
    kind = dice.choice([EAGER, MORE, RTS, CTS, DATA, dice.randrange(256)])
    inline = dice.choice([0, 8, 32, dice.getrandbits(16)])
    words = [a_size(dice) >> 1, a_size(dice), a_size(dice)]
    write_cell(end, number, kind, dice.choice([0, 1, 0x80, dice.getrandbits(8)]), inline, words)


def wake(end: End) -> None:
    """Rings, if the victim has not parted from us yet."""
    with contextlib.suppress(OSError):
        ring(end.bell)


def lie(end: End, seed: int) -> None:
    """One liar's life, from the moment the channel is there."""
    dice = random.Random(seed)
    # It says that it is there, and begins a message of which it has eight bytes.
    end.outgoing[WINDOW : WINDOW + 8] = struct.pack("<Q", a_size(dice) | 1)
    write_cell(end, 0, EAGER, 0, 8, [FROM_LIAR, 0, 50000])
    ring(end.bell)
    deadline = time.monotonic() + PATIENCE_S
    # The victim has taken it in, and has sent its own.
    while not (end.incoming[CONSUMED] and end.incoming[CELLS]):
        assert time.monotonic() < deadline
        os.sched_yield()
    for number in range(1, dice.choice([1, 2, 20])):
        dice.choice([scribble, lambda end, dice, n=number: almost(end, dice, n)])(end, dice)
        if dice.randrange(2):
            wake(end)
    # Whatever it has come to so far, this is no frame at all, wherever the victim reads next.
    for number in range(CELL_COUNT):
        write_cell(end, number, 99, 0, 0, [0, 0, 0])
    wake(end)


def test_liars_harm_nobody_but_themselves(machine: Machine) -> None:
    seed = int(os.environ.get("DIOLKOS_SEED", random.randrange(2**32)))
    print(f"DIOLKOS_SEED={seed}")
    victim = machine.start([machine.program("garbage")])
    assert victim.stdin is not None
    assert victim.stdout is not None
    endpoint = victim.stdout.readline()
    assert endpoint.startswith("endpoint="), victim.communicate()
    for count in range(LIARS):
        with RawClient(machine.session_dir / "diolkos") as liar:
            number = liar.open(f"liar-{count}")["number"]
            victim.stdin.write(f"{number}\n")
            victim.stdin.flush()
            with mapped(liar.expect("introduced")) as end:
                lie(end, seed + count)
                line = victim.stdout.readline()
                assert line.startswith("failed="), (seed, count, victim.communicate())
    victim.stdin.close()
    victim.stdin = None
    machine.finish(victim)
