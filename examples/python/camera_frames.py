# SPDX-License-Identifier: Apache-2.0
"""A camera lends its frames to two consumers in containers of their own. Nothing is copied.

The first consumer looks at each frame at once; the second takes its time, and misses what is shown
meanwhile. Each holds at most HELD frames, so that 2 * HELD + 1 buffers are enough for a camera that
never waits: it draws in a buffer again when the loans of it are back. With --kill, one consumer is
killed halfway: what it had borrowed is the camera's again, and the camera goes on.
"""

import argparse
import os
import struct
import subprocess
import sys
import time
from collections import Counter

import numpy as np

import diolkos

HELLO, RESULT = 1, 2
HELD = 2
APART = ("pid", "mnt", "net", "ipc", "uts")
UNSHARE = "unshare --user --map-current-user --pid --fork --mount --net --ipc --uts --mount-proc"


def containers() -> list[str]:
    """What starts a program in name spaces of its own; nothing where that is not permitted."""
    command = [*UNSHARE.split(), "--kill-child", "--"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", error)).strip()
        print(f"No containers: {reason}. The consumers are plain processes.")
        return []
    return command


def namespaces() -> str:
    """The name spaces that this process is in."""
    return " ".join(os.readlink(f"/proc/self/ns/{name}") for name in APART)


def consume(camera_name: str, late: float, shape: tuple[int, ...]) -> None:
    """A consumer looks at frames where the camera drew them, until the camera is gone."""
    with diolkos.Endpoint() as ep:
        camera = ep.connect(camera_name, timeout=10)
        ep.send(namespaces().encode(), camera, match=HELLO, immediate=round(late * 1000))
        while True:
            with ep.recv_loan(source=camera, shape=shape) as loan:
                time.sleep(late)
                brightness = np.asarray(loan)[::8, ::8].mean()
                result = struct.pack("d?", brightness, loan.copied)
                ep.send(result, camera, match=RESULT, immediate=loan.immediate)


def is_back(loan: diolkos.Request) -> bool:
    """Whether a loan has ended, by its borrower or with it."""
    try:
        return loan.test() is not None
    except diolkos.PeerError:
        return True


class Camera:
    """Buffers, who has borrowed them, and what came of it."""

    def __init__(self, ep: diolkos.Endpoint, peers: list[diolkos.Peer], shape: tuple[int, ...]):
        self.ep, self.peers = ep, peers
        self.buffers = [ep.alloc(shape) for _ in range(len(peers) * HELD + 1)]
        self.loans: list[dict[diolkos.Peer, diolkos.Request]] = [{} for _ in self.buffers]
        self.seen: Counter[diolkos.Peer] = Counter()
        self.copied = 0

    def show(self, number: int) -> None:
        """Draws a frame, and lends it to all who are not late."""
        self.loans = [{k: v for k, v in loans.items() if not is_back(v)} for loans in self.loans]
        free = self.loans.index({})
        np.asarray(self.buffers[free])[:] = number % 256
        for peer in self.peers:
            if peer.is_connected and sum(peer in loans for loans in self.loans) < HELD:
                self.loans[free][peer] = self.ep.lend(self.buffers[free], peer, immediate=number)

    def listen(self, until: float) -> None:
        """Takes what the consumers have found, until it is time for something else."""
        while (left := until - time.monotonic()) > 0:
            try:
                found = self.ep.recv(match=RESULT, timeout=left)
            except diolkos.Timeout:
                return
            brightness, copied = struct.unpack("d?", found)
            assert brightness == found.immediate % 256, "a frame changed while it was lent"
            self.seen[found.source] += 1
            self.copied += copied


def film(args: argparse.Namespace, children: list[subprocess.Popen[bytes]]) -> None:
    """Starts the consumers, and shows them all frames."""
    prefix = containers()
    with diolkos.Endpoint() as ep:
        for late in (0.0, args.late):
            size = f"--height={args.height} --width={args.width}".split()
            command = [sys.executable, __file__, f"--camera={ep.name}", f"--late={late}", *size]
            children.append(subprocess.Popen([*prefix, *command], process_group=0))
        hellos = [ep.recv(match=HELLO, timeout=30) for _ in children]
        hellos.sort(key=lambda hello: hello.immediate)
        if prefix:
            places = {namespaces(), *(bytes(hello).decode() for hello in hellos)}
            print(f"The camera and its consumers are in {len(places)} containers.")
        camera = Camera(ep, [hello.source for hello in hellos], (args.height, args.width, 3))
        start = time.monotonic()
        for number in range(args.frames):
            if args.kill and number == args.frames // 2:
                children[0].kill()
            camera.show(number)
            camera.listen(start + (number + 1) / args.fps)
        seconds = time.monotonic() - start
        while not all(is_back(loan) for loans in camera.loans for loan in loans.values()):
            camera.listen(time.monotonic() + 0.01)
        camera.listen(time.monotonic() + 0.01)
    seen = " and ".join(str(camera.seen[peer]) for peer in camera.peers)
    print(f"{args.frames / seconds:.0f} frames/s; the consumers looked at {seen} of {args.frames}.")
    print(f"{camera.copied} frames were copied.")
    # The camera is closed, which the consumers take as the end.
    for child in children:
        child.wait()


def main() -> int | str:
    """Runs the camera, or a consumer that a camera has started."""
    parser = argparse.ArgumentParser(description="Camera frames that are looked at, not copied.")
    parser.add_argument("--frames", type=int, default=300, help="how many (%(default)s)")
    parser.add_argument("--fps", type=float, default=120, help="frames a second (%(default)s)")
    parser.add_argument("--height", type=int, default=1080, help="of a frame (%(default)s)")
    parser.add_argument("--width", type=int, default=1920, help="of a frame (%(default)s)")
    parser.add_argument("--late", type=float, default=0.02, help="seconds that one takes for each")
    parser.add_argument("--kill", action="store_true", help="kill the other one halfway")
    parser.add_argument("--camera", help=argparse.SUPPRESS)
    args = parser.parse_args()
    children: list[subprocess.Popen[bytes]] = []
    try:
        if args.camera:
            consume(args.camera, args.late, (args.height, args.width, 3))
        else:
            film(args, children)
    except diolkos.PeerError as error:
        # To a consumer: the end of the show.
        return 0 if args.camera else f"nobody is left to look: {error}"
    except KeyboardInterrupt:
        return 130
    finally:
        for child in children:
            child.kill()
            child.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
