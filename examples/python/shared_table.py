# SPDX-License-Identifier: Apache-2.0
"""A hash table in the memory of one program, which sleeps while others count in it.

A slot is two numbers of 64 bits: a word, and how often it was seen. A client claims a slot with
`compare_swap` on the word, and counts with `fetch_add`. Nothing else is needed: a word stays once
it is there, and 0 says that a slot is free. The owner gives out the key, and waits until all
clients are done.
"""

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

import diolkos

HELLO, TABLE, DONE = 1, 2, 3
COUNT_OFFSET, SLOT_NBYTES = 8, 16
FREE = 0


def words(args: argparse.Namespace, client: int) -> Iterator[int]:
    """What a client counts: words of 64 bits, a few of them often, and most by others too."""
    dice = random.Random(f"{args.seed} {client}")
    for _ in range(args.operations):
        yield random.Random(int(dice.paretovariate(0.7)) % args.words).getrandbits(64) | 1


class Table:
    """A table in the memory of a peer."""

    def __init__(self, ep: diolkos.Endpoint, owner: diolkos.Peer, key: diolkos.Key):
        self.ep, self.owner, self.key = ep, owner, key
        self.slots = key.nbytes // SLOT_NBYTES

    def place(self, word: int) -> int:
        """The offset of a word's slot, which is claimed for it if need be."""
        for step in range(self.slots):
            offset = (word * 0x9E3779B97F4A7C15 + step) % 2**64 % self.slots * SLOT_NBYTES
            found = self.ep.compare_swap(self.owner, self.key, offset, FREE, word)
            if found in (FREE, word):
                return offset
        raise MemoryError("the table is full")

    def add(self, word: int, number: int) -> int:
        """Adds to a word's number, which was 0 at first; returns what it was before."""
        offset = self.place(word) + COUNT_OFFSET
        return self.ep.fetch_add(self.owner, self.key, offset, number)

    def read(self) -> dict[int, int]:
        """All of it, as it is now."""
        slots = np.empty((self.slots, 2), "u8")
        self.ep.rdma_read(slots, self.owner, self.key)
        return {int(word): int(number) for word, number in slots if word != FREE}


def count(args: argparse.Namespace) -> None:
    """A client: counts its words, and looks at the table."""
    with diolkos.Endpoint() as ep:
        owner = ep.connect(args.owner, timeout=10)
        ep.send(b"", owner, match=HELLO)
        table = Table(ep, owner, ep.recv_object(match=TABLE, source=owner))
        mine = Counter(words(args, args.client))
        for word in words(args, args.client):
            table.add(word, 1)
        now = table.read()
        assert all(now[word] >= number for word, number in mine.items()), "a count was lost"
        ep.send(b"", owner, match=DONE)


def own(args: argparse.Namespace, children: list[subprocess.Popen[bytes]]) -> None:
    """The owner: gives out the key, sleeps, and checks every number."""
    with diolkos.Endpoint() as ep:
        for client in range(args.clients):
            command = [sys.executable, __file__, *sys.argv[1:], f"--owner={ep.name}"]
            children.append(subprocess.Popen([*command, f"--client={client}"], process_group=0))
        memory = ep.alloc((args.slots, 2), "u8")
        table = np.asarray(memory)
        table[:] = FREE
        with ep.register(memory, "rw") as region:
            peers = [ep.recv(match=HELLO, timeout=30).source for _ in children]
            for peer in peers:
                ep.send_object(region.key, peer, match=TABLE)
            start = time.monotonic()
            used = time.process_time()
            for peer in peers:
                ep.recv(match=DONE, source=peer)
            seconds, used = time.monotonic() - start, time.process_time() - used
    found = {int(word): int(number) for word, number in table if word != FREE}
    expected: Counter[int] = Counter()
    for client in range(args.clients):
        expected.update(words(args, client))
    for child in children:
        child.wait()
    operations = args.clients * args.operations
    print(f"{operations} words counted in {seconds:.2f} s, {len(found)} different ones")
    print(f"The owner used {1000 * used:.0f} ms of a processor meanwhile.")
    if found != expected:
        raise SystemExit("the table is wrong")
    print("Every number is right.")


def main() -> int | str:
    """Runs the owner, or a client that an owner has started."""
    parser = argparse.ArgumentParser(description="A table in one program, updated by others.")
    parser.add_argument("--clients", type=int, default=3, help="processes (%(default)s)")
    parser.add_argument("--operations", type=int, default=50_000, help="of each (%(default)s)")
    parser.add_argument("--words", type=int, default=1000, help="different ones (%(default)s)")
    parser.add_argument("--slots", type=int, default=4099, help="of the table (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the words (%(default)s)")
    parser.add_argument("--owner", help=argparse.SUPPRESS)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    children: list[subprocess.Popen[bytes]] = []
    try:
        if args.owner:
            count(args)
        else:
            own(args, children)
    except (diolkos.PeerError, diolkos.RevokedError) as error:
        # To a client: that the end has come.
        return f"a client is gone: {error}" if children else 0
    except KeyboardInterrupt:
        return 130
    finally:
        for child in children:
            child.kill()
            child.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
