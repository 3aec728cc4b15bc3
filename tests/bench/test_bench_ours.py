# SPDX-License-Identifier: Apache-2.0
"""The commands with ours in them, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from diolkos.bench import isolate

pytestmark = pytest.mark.slow


def rows_of(*words: str) -> list[dict[str, Any]]:
    """Runs `diolkos` with three slices of eight bytes and parses what it prints."""
    command = [sys.executable, "-m", "diolkos", *words, "--sizes", "8", "--slices", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("face", ["python", "native", "asyncio"])
def test_pingpong_against_a_pipe(face: str) -> None:
    rows = rows_of("pingpong", "--face", face, "--against", "pipe")
    ours, pipe, machine = rows[0], rows[1], rows[-1]
    assert (ours["bench"], ours["contender"], ours["face"]) == ("pingpong", "diolkos", face)
    assert ours["road"] == "direct"
    assert ours["half_rtt_us"]["p50"] > 0 < pipe["half_rtt_us"]["p50"]
    assert pipe["ours_over_theirs"]["p50"] > 0
    assert machine["bench"] == "machine"
    assert machine["command"].startswith("diolkos pingpong")
    assert (rows[2]["bench"] == "already_there") == (face == "asyncio")


def test_pingpong_through_the_mx_interface() -> None:
    rows = rows_of("pingpong", "--face", "mx", "--against", "native,unix")
    ours, native, unix, tests, machine = rows
    assert (ours["contender"], ours["face"], ours["road"]) == ("diolkos", "mx", None)
    assert ours["half_rtt_us"]["p50"] > 0
    # The face below is a rival here, so that what the interface costs is a ratio of one run.
    assert (native["contender"], native["face"], native["road"]) == (
        "diolkos-native",
        "native",
        "direct",
    )
    assert native["ours_over_theirs"]["p50"] > 0
    assert unix["ours_over_theirs"]["p50"] > 0
    assert (tests["bench"], tests["contender"]) == ("incomplete_test", "diolkos")
    assert machine["bench"] == "machine"


def test_the_mx_interface_in_other_conditions() -> None:
    _, crowd, alone, tests, _ = rows_of("pingpong", "--face", "mx", "--idle-peers", "4")
    assert crowd["contender"] == "diolkos-idle4"
    assert "over_plain" in crowd
    assert (alone["contender"], tests["contender"]) == ("diolkos", "diolkos-idle4")
    assert alone["bench"] == tests["bench"] == "incomplete_test"
    ns = tests["mx_test_ns"]
    assert 0 < ns["p10"] <= ns["p50"] <= ns["p90"]
    assert tests["iterations"] == 3 * 32 * 10_000  # slices, batches, calls
    assert rows_of("pingpong", "--face", "mx", "--pause", "2")[0]["iterations"] > 0


def test_the_mx_interface_cannot_choose_a_road() -> None:
    command = [sys.executable, "-m", "diolkos", "pingpong", "--face", "mx", "--road", "switched"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "cannot ask for a road" in done.stderr


@pytest.mark.parametrize("face", ["python", "native", "mx"])
def test_rate_and_stream(face: str) -> None:
    assert rows_of("rate", "--face", face, "--window", "8")[0]["msgs_per_s"] > 0
    assert rows_of("stream", "--face", face)[0]["MBps"] > 0


@pytest.mark.skipif(
    isolate.why_impossible() is not None, reason="the kernel refuses name spaces here"
)
def test_ours_crosses_between_name_spaces_on_the_same_road() -> None:
    plain, isolated, _ = rows_of("pingpong", "--face", "native", "--isolate")
    assert isolated["contender"] == "diolkos-isolated"
    assert isolated["road"] == plain["road"] == "direct"
    assert "over_plain" in isolated


def test_a_crowd_of_idle_peers() -> None:
    _, crowd, _ = rows_of("pingpong", "--face", "native", "--idle-peers", "4")
    assert crowd["contender"] == "diolkos-idle4"
    assert "over_plain" in crowd


def test_a_sleeping_peer_is_woken() -> None:
    ours, bare, _ = rows_of("pingpong", "--face", "native", "--pause", "2", "--against", "eventfd")
    assert ours["iterations"] > 0
    assert "ours_over_theirs" in bare


def test_a_missing_rival_is_named_and_the_run_goes_on() -> None:
    environment = {**os.environ, "PATH": os.path.dirname(sys.executable)}
    words = ["pingpong", "--sizes", "8", "--slices", "3", "--against", "mpi,unix", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "diolkos", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mpi is missing" in done.stderr
    assert "apt-get install openmpi-bin" in done.stderr
    contenders = [json.loads(line).get("contender") for line in done.stdout.splitlines()]
    assert contenders == ["diolkos", "unix", None]
