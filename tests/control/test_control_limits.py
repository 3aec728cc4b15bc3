# SPDX-License-Identifier: Apache-2.0
"""Limits: who reaches one is told which, and nothing is half-made."""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from conftest import RunningBackend, running
from rawclient import CHANNEL_FILE_BYTES, RawClient


def _limited(runtime_dir: Path, policy_file: Path, limits: str) -> tuple[Path, str, str]:
    policy_file.write_text(f"version = 1\n[limits]\n{limits}\n")
    policy_file.chmod(0o600)
    return runtime_dir, "--policy", str(policy_file)


def _opened(backend: RunningBackend, stack: ExitStack, count: int) -> list[RawClient]:
    clients = [stack.enter_context(backend.client()) for _ in range(count)]
    for client in clients:
        client.open()
    return clients


def test_endpoints(runtime_dir: Path, policy_file: Path) -> None:
    with running(*_limited(runtime_dir, policy_file, "endpoints = 2")) as backend, ExitStack() as s:
        first, second = _opened(backend, s, 2)
        third = s.enter_context(backend.client())
        wanted = third.send("open", version=1)
        error = third.expect("error", id=wanted, code="limit")
        assert "endpoints" in error["message"]
        # One leaves, and its peer hears of it before there is room again.
        first.send("connect", target=1)
        first.expect("connected")
        second.close()
        first.expect("gone")
        third.open()


def test_channels(runtime_dir: Path, policy_file: Path) -> None:
    """Both ends are this user's, so three channel ends are one channel and a half."""
    with running(*_limited(runtime_dir, policy_file, "channels = 3")) as backend, ExitStack() as s:
        a, b, c = _opened(backend, s, 3)
        a.send("connect", target=1)
        channel = a.expect("connected")["channel"]
        b.expect("introduced")
        a.send("connect", target=2)
        a.expect("error", code="limit")
        c.round_trip()
        a.send("disconnect", channel=channel)
        a.send("connect", target=2)
        a.expect("connected")
        c.expect("introduced")


def test_granted_bytes(runtime_dir: Path, policy_file: Path) -> None:
    limits = f"granted_bytes = {2 * CHANNEL_FILE_BYTES}"
    with running(*_limited(runtime_dir, policy_file, limits)) as backend, ExitStack() as s:
        a, _, _ = _opened(backend, s, 3)
        a.send("connect", target=1)
        a.expect("connected")
        a.send("connect", target=2)
        assert "granted_bytes" in a.expect("error", code="limit")["message"]


def test_connections_of_one_user(runtime_dir: Path, policy_file: Path) -> None:
    with running(*_limited(runtime_dir, policy_file, "endpoints = 1")) as backend, ExitStack() as s:
        clients = [s.enter_context(backend.client()) for _ in range(17)]
        clients[0].open()
        with backend.client() as one_more:
            one_more.expect("error", code="limit")
            one_more.expect_end()
        asked = subprocess.run(
            [sys.executable, "-m", "diolkos", "info", "--runtime-dir", str(runtime_dir)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 3
        assert "the limit of 17 connections for this user is reached" in asked.stderr
        clients[0].round_trip()


def test_waiting_connects(backend: RunningBackend) -> None:
    with backend.client() as client:
        client.open()
        for number in range(1024):
            client.send("connect", target=f"nobody-{number}")
        wanted = client.send("connect", target="one-too-many")
        client.expect("error", id=wanted, code="limit")


def _set_descriptor_limit(backend: RunningBackend, most: int) -> None:
    hard = resource.prlimit(backend.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(backend.pid, resource.RLIMIT_NOFILE, (most, hard))


def test_backend_without_descriptors_for_a_channel(backend: RunningBackend) -> None:
    """Nothing is half-made: no descriptor is lost, and afterwards it works."""
    with backend.client() as a, backend.client() as b:
        a.open("a")
        b.open("b")
        a.round_trip()
        used = backend.fd_count()
        before = resource.prlimit(backend.pid, resource.RLIMIT_NOFILE)[0]
        for spare in range(8):
            _set_descriptor_limit(backend, used + spare)
            wanted = a.send("connect", target="b")
            error = a.expect("error", id=wanted, code="limit")
            assert "Too many open files" in error["message"]
            b.round_trip()
            assert backend.fd_count() == used
        _set_descriptor_limit(backend, before)
        a.send("connect", target="b")
        a.expect("connected")
        b.expect("introduced")


def test_backend_without_descriptors_for_an_endpoint(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        a.open()
        # The answer proves that b was accepted before.
        b.send("connect", target="x")
        b.expect("error", code="invalid")
        a.round_trip()
        used = backend.fd_count()
        _set_descriptor_limit(backend, used)
        b.send("open", version=1)
        b.expect("error", code="limit")
        assert backend.fd_count() == used
        a.round_trip()


def test_backend_without_descriptors_turns_connections_away(backend: RunningBackend) -> None:
    """It says why, does not spin, and goes on serving those who are there."""
    with backend.client() as a:
        a.open()
        a.round_trip()
        used = backend.fd_count()
        _set_descriptor_limit(backend, used)
        for _ in range(20):
            with backend.client() as late:
                late.expect("error", code="limit")
                late.expect_end()
            a.round_trip()
        assert backend.fd_count() == used


def test_a_small_descriptor_limit_bounds_connections(runtime_dir: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

    with running(runtime_dir, preexec_fn=few) as backend, ExitStack() as stack:
        clients = _opened(backend, stack, 4)
        # It counts three descriptors for each connection and keeps half of so few for itself.
        for _ in range(4):
            stack.enter_context(backend.client()).open()
        late = stack.enter_context(backend.client())
        late.expect("error", code="limit")
        late.expect_end()
        clients[0].send("connect", target=1)
        clients[0].expect("connected")


def test_the_soft_descriptor_limit_is_raised(runtime_dir: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def low() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    with running(runtime_dir, preexec_fn=low) as backend:
        assert resource.prlimit(backend.pid, resource.RLIMIT_NOFILE) == (hard, hard)
