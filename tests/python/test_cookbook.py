# SPDX-License-Identifier: Apache-2.0
"""The programs of `examples/python` for real, and the blocks of code in documents for users."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos.backend import client
from diolkos.bench import isolate
from programs import PATIENCE_S

pytest.importorskip("numpy")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "python"
PROGRAMS = ("camera_frames", "parameter_server", "shared_table")
NO_CONTAINERS = isolate.why_impossible()

pytestmark = pytest.mark.usefixtures("backend")


def names(runtime_dir: Path) -> dict[str, int]:
    """The endpoints that there are, and the channels of each."""
    snapshot = client.query(runtime_dir)
    snapshot.close()
    return {endpoint.name: endpoint.channels for endpoint, _ in snapshot.endpoints}


def start(name: str, *words: str) -> subprocess.Popen[str]:
    """An example, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(name: str, *words: str) -> str:
    """What an example says, which must end well and complain of nothing."""
    process = start(name, *words)
    try:
        out, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, ""), out + errors
    return out


@pytest.fixture(autouse=True)
def nothing_is_left(runtime_dir: Path, backend: subprocess.Popen[str]) -> Iterator[None]:
    """No endpoint of an example outlives it, but for the time until the backend hears of that."""
    yield
    deadline = time.monotonic() + PATIENCE_S
    while names(runtime_dir):
        assert time.monotonic() < deadline, names(runtime_dir)


SMALL = ("--height=120", "--width=160", "--frames=40", "--fps=200")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_camera_frames(killed: bool) -> None:
    out = run("camera_frames", *SMALL, *["--kill"] * killed)
    found = re.search(r"([0-9.]+) frames/s; .* looked at (\d+) and (\d+) of 40\.", out)
    assert found, out
    prompt, late = int(found[2]), int(found[3])
    assert 0 < late <= 40
    assert 0 < prompt <= (20 if killed else 40)
    assert "\n0 frames were copied." in out
    if NO_CONTAINERS is None:
        assert "in 3 containers" in out


@pytest.mark.slow
def test_camera_frames_between_containers() -> None:
    if NO_CONTAINERS is not None:
        pytest.skip(NO_CONTAINERS)
    out = run("camera_frames", "--frames=20", "--late=0")
    assert "The camera and its consumers are in 3 containers." in out
    assert "\n0 frames were copied." in out


@pytest.mark.slow
def test_camera_frames_without_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel refuses, that is said, and all else is the same."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare failed: not here' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    out = run("camera_frames", *SMALL)
    assert out.startswith("No containers: unshare failed: not here. The consumers are plain")
    assert "\n0 frames were copied." in out


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_parameter_server(workers: int) -> None:
    out = run("parameter_server", f"--workers={workers}", "--size=20", "--rows=400", "--seed=7")
    assert re.fullmatch(rf"\d+ steps with {workers} workers in .* error [0-9.]+e-1\d\n", out), out


@pytest.mark.slow
def test_parameter_server_that_does_not_converge() -> None:
    process = start("parameter_server", "--size=20", "--rows=100", "--steps=3")
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert errors == "the parameters were not found\n"
    assert out.startswith("3 steps")


@pytest.mark.slow
def test_shared_table() -> None:
    """Also with so few slots that nearly every one is taken."""
    for words in ((), ("--words=100", "--slots=101", "--clients=4")):
        out = run("shared_table", "--operations=2000", *words)
        assert out.endswith("Every number is right.\n"), out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "endless"),
    [
        ("camera_frames", ["--frames=1000000"]),
        ("parameter_server", ["--rate=1e-9", "--steps=1000000000"]),
        ("shared_table", ["--operations=1000000000"]),
    ],
)
def test_ctrl_c_ends_all_of_it(runtime_dir: Path, name: str, endless: list[str]) -> None:
    process = start(name, *endless)
    others = {"camera_frames": 2}.get(name, 3)
    # All are there and have found each other.
    while sum(names(runtime_dir).values()) < 2 * others:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (130, ""), out + errors


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_and_documents(name: str) -> None:
    out = run(name, "--help")
    assert out.startswith(f"usage: {name}.py")
    for document in (EXAMPLES / "README.md", ROOT / "docs/guides/granted-memory.md"):
        assert f"{name}.py" in document.read_text()


def blocks(document: Path) -> list[str]:
    """The blocks of Python code in a document."""
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


def test_the_guide_shows_what_the_programs_do() -> None:
    """But for the first block, each is a part of a program, at any depth of indentation."""
    programs = [(EXAMPLES / f"{name}.py").read_text() for name in PROGRAMS]
    flat = ["\n".join(map(str.strip, program.splitlines())) for program in programs]
    _, *rest = blocks(ROOT / "docs/guides/granted-memory.md")
    assert len(rest) > 6
    for block in rest:
        code = "\n".join(map(str.strip, block.strip().splitlines()))
        assert any(code in program for program in flat), block


def test_the_blocks_of_the_readme_run(tmp_path: Path) -> None:
    """In files of their own; `bob.py` and `alice.py` belong together."""
    bob, alice, *rest = blocks(ROOT / "README.md")
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for code in (bob, alice)
    ]
    said = [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
    assert said == ["", "the sum is 499500\n"]
    assert len(rest) >= 3
    for code in rest:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # A comment at the end of a line that prints says what it prints.
        promised = re.findall(r"print\(.*\) +# (.+)$", code, re.MULTILINE)
        assert promised == done.stdout.splitlines()
