# SPDX-License-Identifier: Apache-2.0
"""Least squares with a parameter server, whose memory the workers read and write themselves.

All workers may read the parameters, by one key. Each has a key of its own to the place where it
writes its gradient; a notification says that it is there. When all are, the server takes a step,
and tells the workers by a message without data. So nothing is read while it is changed.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

import diolkos

HELLO, KEYS, STEP, ENOUGH, GRADIENT = range(1, 6)


def problem(args: argparse.Namespace, worker: int) -> tuple[np.ndarray, np.ndarray]:
    """A worker's share of the data: rows, and what the parameters that are sought make of them."""
    rows = np.random.default_rng([args.seed, worker]).standard_normal((args.rows, args.size))
    return rows, rows @ sought(args)


def sought(args: argparse.Namespace) -> np.ndarray:
    """The parameters that shall be found. Only the check at the end uses them at the server."""
    parameters: np.ndarray = np.random.default_rng(args.seed).standard_normal(args.size)
    return parameters


def work(args: argparse.Namespace) -> None:
    """A worker: reads parameters and writes gradients, until the server has enough."""
    rows, wanted = problem(args, args.worker)
    parameters = np.empty(args.size)
    with diolkos.Endpoint() as ep:
        server = ep.connect(args.server, timeout=10)
        ep.send(b"", server, match=HELLO)
        parameters_key, gradient_key = ep.recv_object(match=KEYS, source=server)
        while True:
            ep.rdma_read(parameters, server, parameters_key)
            gradient = rows.T @ (rows @ parameters - wanted) / args.rows
            ep.rdma_write(gradient, server, gradient_key, notify=GRADIENT)
            if ep.recv(match=STEP, source=server).immediate == ENOUGH:
                return


def serve(args: argparse.Namespace, children: list[subprocess.Popen[bytes]]) -> None:
    """The server: adds up gradients until they are small."""
    with diolkos.Endpoint() as ep:
        for worker in range(args.workers):
            command = [sys.executable, __file__, *sys.argv[1:], f"--server={ep.name}"]
            children.append(subprocess.Popen([*command, f"--worker={worker}"], process_group=0))
        memory = ep.alloc(args.size, "f8")
        parameters = np.asarray(memory)
        parameters[:] = 0
        region = ep.register(memory, "r")
        peers = [ep.recv(match=HELLO, timeout=30).source for _ in children]
        # Where workers write is allocated apart: none of them can reach what another writes.
        places = [ep.alloc(args.size, "f8", peer=peer) for peer in peers]
        regions = [
            ep.register(place, "rw", peer=peer) for place, peer in zip(places, peers, strict=True)
        ]
        for peer, own in zip(peers, regions, strict=True):
            ep.send_object((region.key, own.key), peer, match=KEYS)

        start, steps, enough = time.monotonic(), 0, False
        while not enough:
            for peer in peers:
                ep.recv(match=GRADIENT, source=peer)
            gradient = np.mean([np.asarray(place) for place in places], axis=0)
            parameters -= args.rate * gradient
            steps += 1
            enough = steps == args.steps or bool(np.abs(gradient).max() < args.tolerance)
            for peer in peers:
                ep.send(b"", peer, match=STEP, immediate=ENOUGH if enough else STEP)
        seconds = time.monotonic() - start
        # From here on the memory is the server's alone, whatever a worker does.
        for each in (region, *regions):
            each.revoke()
    error = float(np.abs(parameters - sought(args)).max())
    for child in children:
        child.wait()
    print(
        f"{steps} steps with {args.workers} workers in {seconds:.2f} s, largest error {error:.1e}"
    )
    if not error < 100 * args.tolerance:
        raise SystemExit("the parameters were not found")


def main() -> int | str:
    """Runs the server, or a worker that a server has started."""
    parser = argparse.ArgumentParser(description="Least squares with a parameter server.")
    parser.add_argument("--workers", type=int, default=3, help="processes (%(default)s)")
    parser.add_argument("--size", type=int, default=200, help="parameters (%(default)s)")
    parser.add_argument("--rows", type=int, default=2000, help="of each worker (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="at most (%(default)s)")
    parser.add_argument("--rate", type=float, default=0.8, help="of learning (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=1e-10, help="to stop (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the data (%(default)s)")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    children: list[subprocess.Popen[bytes]] = []
    try:
        if args.server:
            work(args)
        else:
            serve(args, children)
    except (diolkos.PeerError, diolkos.RevokedError) as error:
        # To a worker: that the end has come.
        return f"a worker is gone: {error}" if children else 0
    except KeyboardInterrupt:
        return 130
    finally:
        for child in children:
            child.kill()
            child.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
