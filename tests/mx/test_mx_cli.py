# SPDX-License-Identifier: Apache-2.0
"""`diolkos mx`, and `python -m diolkos.mx`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import diolkos
from diolkos import mx
from mxprograms import SOURCES, Machine, compile_c


def run(*words: str, module: str = "diolkos") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


def output(*words: str) -> str:
    done = run("mx", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(*words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output(*words, "--json").splitlines()]


def one_row(kind: str, *words: str) -> dict[str, Any]:
    (found,) = [row for row in rows(*words) if row["kind"] == kind]
    return found


def test_help_names_every_command() -> None:
    shown = run("mx", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for command in ("info", "counters", "endpoints", "hostname", "peers"):
        assert any(line.split()[:1] == [command] for line in shown.stdout.splitlines())
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


@pytest.mark.parametrize("words", [[], ["nonsense"], ["hostname", "-c", "-n", "x"]])
def test_a_wrong_command_line_is_a_usage_error(words: list[str]) -> None:
    wrong = run("mx", *words)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "usage: diolkos mx" in wrong.stderr


def test_without_a_backend(session_dir: Path) -> None:
    assert "no backend yet" in output("info")
    board = one_row("board", "info")
    assert (board["backend_pid"], board["endpoints"]) == (None, 0)
    assert len(output("peers").splitlines()) == 1
    for command in ("counters", "endpoints"):
        asked = run("mx", command)
        assert (asked.returncode, asked.stdout) == (3, "")
        assert re.match(r"error: no backend is running in .*\nhint: ", asked.stderr)
    asked = run("mx", "hostname", "--name", "isthmus")
    assert (asked.returncode, asked.stdout) == (3, "")
    assert "\nhint: " in asked.stderr
    assert output("hostname", "--clear") == output("hostname")  # there is nothing to clear


def test_there_is_one_board(session_dir: Path) -> None:
    assert rows("info", "-b", "0") == rows("info")
    asked = run("mx", "info", "-b", "1")
    assert asked.returncode == 1
    assert asked.stderr == "error: there is no board 1\nhint: this host has board 0 only\n"


@pytest.mark.slow
def test_endpoints_and_counters(machine: Machine) -> None:
    for command in ("endpoints", "counters"):
        assert rows(command) == []
        nothing = run("mx", command)
        assert (nothing.returncode, nothing.stdout) == (0, "")
        assert nothing.stderr.startswith("hint: no endpoint is open")
    with diolkos.Endpoint(number=7) as seven, diolkos.Endpoint() as other:
        other.send(b"x" * 1000, other.connect(7), match=1)
        seven.recv(match=1)
        found = {row["endpoint"]: row for row in rows("endpoints")}
        assert found.keys() == {7, other.number}
        assert found[7]["pid"] == os.getpid()
        assert found[7]["command"] == Path("/proc/self/comm").read_text().strip()
        assert found[7]["board"] == 0
        assert f"endpoint 7: pid {os.getpid()}" in output("endpoints")
        verbose = {row["counter"] for row in rows("counters", "-v")}
        assert {"tx_messages", "rx_bytes"} <= verbose
        assert all(row["value"] > 0 for row in rows("counters"))
        assert one_row("board", "info")["endpoints"] == 2


@pytest.mark.slow
def test_the_board_can_be_renamed(machine: Machine) -> None:
    usual = output("hostname")
    assert usual.endswith(":0\n")
    assert output("hostname", "--name", "isthmus") == "isthmus:0\n"
    assert output("hostname", "--name", "isthmus.example:0") == "isthmus.example:0\n"
    assert one_row("board", "info")["name"] == "isthmus.example:0"
    assert one_row("peer", "peers")["name"] == "isthmus.example:0"
    for bad in ("", "a b", "a/b", "x" * 78, "ä"):
        asked = run("mx", "hostname", "--name", bad)
        assert asked.returncode == 2, bad
        assert asked.stderr.startswith("error: "), bad
    assert output("hostname") == "isthmus.example:0\n"
    assert output("hostname", "--clear") == usual
    assert output("hostname", "--clear") == usual
    # Nothing is left half-written.
    directory = machine.session_dir / "diolkos"
    assert not [path.name for path in directory.iterdir() if path.name.startswith("mx-")]


def test_a_name_file_that_is_nonsense_is_not_believed(session_dir: Path) -> None:
    directory = session_dir / "diolkos"
    directory.mkdir(mode=0o700)
    usual = output("hostname")
    for text in (b"", b"a b\n", b"x" * 5000, b"\xff\n", b"../up\n"):
        (directory / "mx-hostname").write_bytes(text)
        assert output("hostname") == usual, text


@pytest.mark.slow
def test_programs_see_the_same_board(machine: Machine) -> None:
    def seen() -> dict[str, str]:
        return dict(line.split("=") for line in machine.run("names").splitlines())

    board = one_row("board", "info")
    assert seen()["nic"] == board["address"].replace(":", "")
    assert seen()["hostname"] == board["name"]
    output("hostname", "--name", "isthmus")
    assert seen()["hostname"] == "isthmus:0"


def test_where_things_are() -> None:
    def told(*words: str) -> str:
        done = run(*words, module="diolkos.mx")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.removesuffix("\n")

    assert shlex.split(told("--cflags")) == [f"-I{mx.include_dir()}"]
    assert told("--includedir") == str(mx.include_dir())
    assert "--libdir" in told("--help")
    assert run(module="diolkos.mx").returncode == 2


def test_a_program_is_built_as_the_documents_say(library_dir: Path, tmp_path: Path) -> None:
    """With what the command line prints, and nothing else; where the package has its library."""
    where = run("--libdir", module="diolkos.mx")
    if where.returncode != 0:
        assert where.stderr.startswith("error: there is no libmyriexpress.so in ")
        assert "\nhint: run `make mx`" in where.stderr
        pytest.skip("the package has no library: it is under test somewhere else")
    flags = shlex.split(run("--cflags", "--libs", module="diolkos.mx").stdout)
    program = tmp_path / "everything"
    compile_c(["cc", str(SOURCES / "everything.c"), "-o", str(program), *flags])
    # Found without LD_LIBRARY_PATH.
    assert subprocess.run([program], timeout=60, check=False).returncode == 0
