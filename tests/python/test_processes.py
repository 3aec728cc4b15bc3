# SPDX-License-Identifier: Apache-2.0
"""Endpoints of several processes, introduced by a real backend."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest

import diolkos
import diolkos.asyncio
from programs import PATIENCE_S, Program

pytestmark = pytest.mark.usefixtures("backend")

ECHO = """
with diolkos.Endpoint(sys.argv[1]) as ep:
    say(ep.name, ep.number, ep.partition)
    while True:
        message = ep.recv()
        if not len(message):
            break
        ep.send(message, message.source, match=message.match, immediate=message.immediate)
"""


def test_two_processes_talk(program: type[Program]) -> None:
    echo = program(ECHO, "echo")
    with diolkos.Endpoint("alice") as ep:
        peer = ep.connect("echo", timeout=PATIENCE_S)
        assert (peer.name, peer.road, peer.is_connected) == ("echo", "direct", True)
        assert peer.reason
        assert echo.line() == f"echo {peer.number} default"
        buffer = bytearray(300_000)
        for size in (0, 1, 8, 33, 5000, 65536, 65537, 300_000):
            data = os.urandom(size) or b"x"
            ep.send(data, peer, match=size, immediate=9, timeout=PATIENCE_S)
            status = ep.recv_into(buffer, match=size, source=peer, timeout=PATIENCE_S)
            assert buffer[: status.nbytes] == data
            assert (status.immediate, status.source) == (9, peer)
        ep.send(b"", peer)
        echo.succeed()
        with pytest.raises(diolkos.PeerClosed):
            ep.recv(source=peer, timeout=PATIENCE_S)


def test_numbers_and_connecting_again(program: type[Program]) -> None:
    echo = program(ECHO, "echo")
    _, number, _ = echo.line().split()
    with diolkos.Endpoint() as ep:
        assert ep.name == f"ep-{ep.number}"
        by_number = ep.connect(int(number), timeout=PATIENCE_S)
        assert ep.connect("echo", timeout=PATIENCE_S) == by_number
        assert ep.peers == (by_number,)
        assert ep.connect(ep.name) == ep.connect(ep.number) == ep.self_peer
        ep.send(b"", by_number)
    echo.succeed()


def test_connecting_waits_until_the_target_exists(program: type[Program]) -> None:
    with diolkos.Endpoint("alice") as ep:
        request = ep.iconnect("late")
        assert request.test() is None
        late = program(ECHO, "late")
        request.wait(timeout=PATIENCE_S)
        peer = request.peer
        assert peer is not None
        assert peer.name == "late"
        ep.send(b"", peer)
        late.succeed()


def test_connecting_times_out(backend: subprocess.Popen[str]) -> None:
    with diolkos.Endpoint("alice") as ep:
        for timeout in (0, 0.01):
            with pytest.raises((diolkos.Timeout, diolkos.NotFoundError)):
                ep.connect("nobody", timeout=timeout)
        request = ep.iconnect("nobody", timeout=0.01)
        with pytest.raises(diolkos.Timeout):
            request.wait()
        assert ep.counters["requests"] == 0


def test_a_cancelled_connect(backend: subprocess.Popen[str]) -> None:
    with diolkos.Endpoint("alice") as ep:
        request = ep.iconnect("nobody")
        assert request.cancel()
        with pytest.raises(diolkos.Cancelled):
            request.wait()


def test_a_taken_name_is_busy() -> None:
    with diolkos.Endpoint("alice"), pytest.raises(diolkos.BusyError, match="alice"):
        diolkos.Endpoint("alice")
    diolkos.Endpoint("alice").close()


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(ValueError):
        diolkos.Endpoint("no spaces allowed")


def test_partitions_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with diolkos.Endpoint("alice"), diolkos.Endpoint("bob", partition="other") as bob:
        assert bob.partition == "other"
        with pytest.raises((diolkos.Timeout, diolkos.NotFoundError)):
            bob.connect("alice", timeout=0.01)
        monkeypatch.setenv("DIOLKOS_PARTITION", "other")
        with diolkos.Endpoint("carol") as carol:
            assert carol.connect("bob", timeout=PATIENCE_S).name == "bob"


def test_context_ids_must_be_fixed() -> None:
    with diolkos.Endpoint("alice", context_ids=(8, 56)) as ep:
        with pytest.raises(ValueError, match="context"):
            ep.irecv(8)
        with pytest.raises(ValueError, match="context"):
            ep.irecv(8, match=1, mask=0xFF)
        request = ep.irecv(8, match=1 << 56, mask=0xFF << 56)
        send = ep.isend(b"hello", ep.self_peer, match=1 << 56 | 1234)
        assert request.wait(timeout=PATIENCE_S).nbytes == 5
        send.wait(timeout=PATIENCE_S)


def test_a_killed_peer_is_noticed_at_once(program: type[Program]) -> None:
    idle = program("ep = diolkos.Endpoint('idle'); say('ready'); hear()")
    assert idle.line() == "ready"
    with diolkos.Endpoint("alice") as ep:
        peer = ep.connect("idle", timeout=PATIENCE_S)
        receive = ep.irecv(8, source=peer)
        send = ep.issend(b"x" * 100_000, peer, match=1)
        idle.signal(signal.SIGKILL)
        for request in (receive, send):
            with pytest.raises(diolkos.PeerDied, match="idle"):
                request.wait(timeout=PATIENCE_S)
        with pytest.raises(diolkos.PeerDied):
            ep.send(b"", peer)


def test_switched_road(program: type[Program]) -> None:
    echo = program(ECHO, "echo")
    with diolkos.Endpoint("alice") as ep:
        peer = ep.connect("echo", road="switched", timeout=PATIENCE_S)
        assert peer.road == "switched"
        ep.send(b"hello", peer)
        assert ep.recv(timeout=PATIENCE_S) == b"hello"
        ep.send(b"", peer)
        echo.succeed()


def child_of_multiprocessing(name: str) -> None:
    """Opens an endpoint of its own, whatever it inherited."""
    with diolkos.Endpoint(name) as ep:
        peer = ep.connect("parent", timeout=PATIENCE_S)
        ep.send(f"{name} here".encode(), peer)
        assert ep.recv(timeout=PATIENCE_S) == b"welcome"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str) -> None:
    context = multiprocessing.get_context(method)
    with diolkos.Endpoint("parent") as ep:
        children = [
            context.Process(target=child_of_multiprocessing, args=(f"child-{i}",)) for i in range(2)
        ]
        for child in children:
            child.start()
        heard = set()
        for _ in children:
            message = ep.recv(timeout=PATIENCE_S)
            heard.add(bytes(message))
            ep.send(b"welcome", message.source)
        for child in children:
            child.join(PATIENCE_S)
        assert heard == {b"child-0 here", b"child-1 here"}
        assert [child.exitcode for child in children] == [0, 0]


def test_asyncio_between_processes(program: type[Program]) -> None:
    import asyncio

    program(ECHO, "echo")

    async def main() -> None:
        async with await diolkos.asyncio.Endpoint.open("alice") as ep:
            peer = await ep.connect("echo", timeout=PATIENCE_S)
            for size in (1, 5000, 200_000):
                send = asyncio.create_task(ep.send(bytes(size), peer, match=size))
                assert len(await ep.recv(match=size, timeout=PATIENCE_S)) == size
                await send
            with pytest.raises((diolkos.Timeout, diolkos.NotFoundError)):
                await ep.connect("nobody", timeout=0.01)
            task = asyncio.create_task(ep.connect("nobody"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ep.send(b"", peer)

    asyncio.run(main())


def test_opening_and_closing_leaves_nothing_behind() -> None:
    diolkos.Endpoint("warm-up").close()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with diolkos.Endpoint("alice") as alice, diolkos.Endpoint("bob") as bob:
            peer = alice.connect("bob", timeout=PATIENCE_S)
            alice.send(b"hello", peer)
            assert bob.recv(timeout=PATIENCE_S) == b"hello"
    del alice, bob, peer
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_backend_and_none_wanted(tmp_path: Path) -> None:
    with pytest.raises(diolkos.BackendError) as caught:
        diolkos.Endpoint("alice", runtime_dir=tmp_path, start_backend=False)
    assert "diolkos backend" in (caught.value.hint or "")
