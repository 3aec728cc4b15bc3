# SPDX-License-Identifier: Apache-2.0
"""The system runs out of something: a typed error that says what to do, and nothing half-made.

Limits are set in programs of their own, which give them back before they go on, so that each can
show that it still works: an endpoint that could not have one channel more has lost nothing.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from disasters import Program, RunningBackend, endpoints, until

PRELUDE = """
def count():
    return len(os.listdir("/proc/self/fd"))

def maps():
    return sum("memfd:diolkos" in line for line in open("/proc/self/maps"))

def limited(kind, soft):
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))

def unlimited(kind):
    limited(kind, resource.getrlimit(kind)[1])

def talk(ep, peer):
    ep.send(b"hello", peer, timeout=60)
    assert ep.recv(timeout=60) == b"hello"
"""
ECHO = """
with diolkos.Endpoint("echo", start_backend=False) as ep:
    say("open")
    while True:
        try:
            message = ep.recv()
            ep.send(message, message.source)
        except diolkos.PeerError:
            # The one that was there left, or could not be let in.
            pass
"""


def test_no_descriptors_left_for_an_endpoint(backend: RunningBackend) -> None:
    """At every number of free descriptors that is too small, the same error and nothing open."""
    source = """
    diolkos.Endpoint("warm-up", start_backend=False).close()
    before, mapped = count(), maps()
    held = []
    failures = 0
    for spare in range(40):
        # One of them is what `count` looks with.
        limited(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + spare)
        try:
            ep = diolkos.Endpoint("alice", start_backend=False)
        except diolkos.DiolkosError as error:
            caught = error
        else:
            caught = None
            ep.close()
            del ep
        unlimited(resource.RLIMIT_NOFILE)
        assert (count(), maps()) == (before, mapped), (spare, count(), before)
        if caught is None:
            break
        assert isinstance(caught, diolkos.SystemRefusal), repr(caught)
        assert caught.errno == errno.EMFILE, caught
        assert "ulimit -n" in caught.hint
        failures += 1
    else:
        raise AssertionError("never enough")
    with diolkos.Endpoint("alice", start_backend=False) as ep:
        ep.isend(b"", ep.self_peer)
        ep.recv()
    say(failures)
    """
    with Program(PRELUDE + _flat(source)) as program:
        assert int(program.succeed()) >= 3
    until("the backend's farewell", lambda: endpoints(backend.runtime_dir) == {})


def test_no_descriptors_left_for_a_channel(backend: RunningBackend) -> None:
    source = """
    with diolkos.Endpoint("alice", start_backend=False) as ep:
        before, mapped = count(), maps()
        failures = 0
        for spare in range(12):
            limited(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + spare)
            try:
                peer = ep.connect("echo", timeout=10)
            except diolkos.SystemRefusal as error:
                peer = None
                assert error.errno == errno.EMFILE, error
                assert "ulimit -n" in error.hint
                del error
            unlimited(resource.RLIMIT_NOFILE)
            if peer is not None:
                break
            assert (count(), maps()) == (before, mapped), spare
            failures += 1
        peer = ep.connect("echo", timeout=60)
        talk(ep, peer)
        ep.disconnect(peer)
        assert maps() == mapped, maps()
        say(failures, count() - before)
    """
    with Program(ECHO) as echo, Program(PRELUDE + _flat(source)) as program:
        assert echo.line() == "open"
        failures, more = program.succeed().split()
        assert int(failures) >= 1
        assert int(more) == 0


def test_no_address_space_for_a_channel(backend: RunningBackend) -> None:
    """A channel maps two files of 4 MiB each. With less than that to spare it is not made; the
    endpoint and its other channels go on."""
    source = """
    with diolkos.Endpoint("alice", start_backend=False) as ep:
        with diolkos.Endpoint("other", start_backend=False) as other:
            to_other = ep.connect("other", timeout=60)
            ep.send(b"both are here", to_other)
            other.recv(timeout=60)
            before, mapped = count(), maps()
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            for spare in (1 << 20, 6 << 20):
                limited(resource.RLIMIT_AS, used + spare)
                try:
                    ep.connect("echo", timeout=10)
                except diolkos.SystemRefusal as error:
                    assert error.errno == errno.ENOMEM, error
                    assert "ulimit -v" in error.hint
                else:
                    raise AssertionError("mapped without address space")
                finally:
                    unlimited(resource.RLIMIT_AS)
                assert (count(), maps()) == (before, mapped)
                ep.send(b"still", to_other, timeout=60)
                assert other.recv(timeout=60) == b"still"
            peer = ep.connect("echo", timeout=60)
            talk(ep, peer)
            ep.disconnect(peer)
            assert maps() == mapped
            say(count() - before)
    """
    with Program(ECHO) as echo, Program(PRELUDE + _flat(source)) as program:
        assert echo.line() == "open"
        assert program.succeed().split() == ["0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system is for root")
def test_a_full_runtime_directory(tmp_path: Path) -> None:
    """No room for a socket or a lock: no backend can be started, and its words say why."""
    source = """
    import subprocess
    directory = sys.argv[1]
    # Inodes for the directory itself, and for nothing in it.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2,mode=0700", "none",
                    directory], check=True)
    open(os.path.join(directory, "fills"), "w").close()
    before = count()
    for _ in range(3):
        try:
            diolkos.Endpoint("alice", runtime_dir=directory)
        except diolkos.BackendError as error:
            say(error)
            say(error.hint)
        else:
            raise AssertionError("opened")
        assert count() == before
        assert os.listdir(directory) == ["fills"]
    """
    if subprocess.run(["unshare", "-m", "true"]).returncode != 0:
        pytest.skip("this root may not have a mount namespace")
    with Program(PRELUDE + _flat(source), tmp_path, under=("unshare", "-m")) as program:
        said = program.succeed().splitlines()
    assert len(said) == 6
    for message, hint in zip(said[::2], said[1::2], strict=True):
        assert os.strerror(errno.ENOSPC) in message
        assert str(tmp_path) in message
        assert hint != "None"


def _flat(source: str) -> str:
    """The program without the test's indentation, after a prelude that has none."""
    import textwrap

    return textwrap.dedent(source)
