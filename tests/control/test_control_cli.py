# SPDX-License-Identifier: Apache-2.0
"""The command line: help, exit codes, errors with hints, and `info`."""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import RunningBackend
from rawclient import HOME_FILE_BYTES, PATIENCE_S


def _diolkos(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "diolkos", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def test_help_fits_one_screen_and_goes_to_stdout() -> None:
    shown = _diolkos("--help")
    assert shown.returncode == 0
    assert shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    for command in ("pingpong", "stream", "rate", "rdma", "loan", "info", "backend"):
        assert any(line.split()[:1] == [command] for line in lines)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["info", "--nonsense"], ["backend", "x"]])
def test_a_wrong_command_line_is_a_usage_error(words: list[str]) -> None:
    wrong = _diolkos(*words)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert "usage: diolkos" in wrong.stderr


def test_info_without_a_backend(runtime_dir: Path) -> None:
    for place in (runtime_dir, runtime_dir / "not-there"):
        asked = _diolkos("info", DIOLKOS_RUNTIME_DIR=str(place))
        assert asked.returncode == 3
        assert asked.stdout == ""
        assert asked.stderr.startswith(f"error: no backend is running in {place}\nhint: ")


def test_info_refuses_an_untrusted_directory(runtime_dir: Path) -> None:
    runtime_dir.chmod(0o777)
    asked = _diolkos("info", "--runtime-dir", str(runtime_dir))
    assert asked.returncode == 1
    assert "others could pose as the backend" in asked.stderr


def test_info_shows_everything_and_reads_counters_live(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b:
        (home,) = a.open("alice", partition="red").fds
        b.open("bob", partition="red")
        a.send("connect", target="bob")
        channel = a.expect("connected")["channel"]
        with mmap.mmap(home, HOME_FILE_BYTES) as memory:
            memory[0x1000:0x1040] = struct.pack("<8Q", 1, 2, 3, 4, 5, 6, 7, 8)
            memory[0x1040:0x1080] = struct.pack("<8Q", channel, 10, 11, 12, 13, 14, 15, 16)
        asked = _diolkos("info", "--json", "--runtime-dir", str(backend.runtime_dir))
        assert asked.returncode == 0, asked.stderr
        assert asked.stderr == ""
        rows = [json.loads(line) for line in asked.stdout.splitlines()]
        assert [row["kind"] for row in rows] == ["backend", "endpoint", "endpoint", "channel"]
        assert rows[0]["pid"] == backend.pid
        assert (rows[0]["endpoints"], rows[0]["channels"]) == (2, 1)
        alice = rows[1]
        assert (alice["name"], alice["number"], alice["partition"]) == ("alice", 0, "red")
        assert alice["pid"] == os.getpid()
        assert alice["counters"]["wakeups"] == 2
        assert alice["counters"]["requests_now"] == 8
        link = rows[3]
        assert (link["channel"], link["a_name"], link["b_name"]) == (channel, "alice", "bob")
        assert link["road"] == "direct"
        assert "same partition" in link["reason"]
        assert link["counters"]["a"]["tx_messages"] == 10
        assert link["counters"]["a"]["rx_unexpected_now"] == 16
        assert link["counters"]["b"] is None
        table = _diolkos("info", "--runtime-dir", str(backend.runtime_dir))
        assert "0 'alice' to 1 'bob', direct" in table.stdout
        assert "sent 10 (11 bytes)" in table.stdout
        # Nobody was disturbed.
        a.round_trip()


def test_info_of_many_endpoints_comes_in_pages(backend: RunningBackend) -> None:
    clients = [backend.client() for _ in range(70)]
    for client in clients:
        client.open()
    for client in clients[1:]:
        client.send("connect", target=0)
        client.expect("connected")
    asked = _diolkos("info", "--json", "--runtime-dir", str(backend.runtime_dir))
    rows = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [r["number"] for r in rows if r["kind"] == "endpoint"] == list(range(70))
    assert sum(r["kind"] == "channel" for r in rows) == 69
    for client in clients:
        client.close()


def test_watch_ends_with_ctrl_c_and_without_a_traceback(backend: RunningBackend) -> None:
    command = [sys.executable, "-m", "diolkos", "info", "--watch", "--json"]
    watching = subprocess.Popen(
        [*command, "--runtime-dir", str(backend.runtime_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    for _ in range(2):
        assert json.loads(watching.stdout.readline())["kind"] == "backend"
    watching.send_signal(signal.SIGINT)
    _, talk = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 130
    assert talk == ""


def test_a_reader_that_leaves_early_is_no_traceback(backend: RunningBackend) -> None:
    command = [sys.executable, "-m", "diolkos", "info", "--watch"]
    watching = subprocess.Popen(
        [*command, "--runtime-dir", str(backend.runtime_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    assert watching.wait(PATIENCE_S) == 1
    assert watching.stderr.read() == ""
    watching.stderr.close()
