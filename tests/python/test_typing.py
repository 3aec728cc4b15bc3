# SPDX-License-Identifier: Apache-2.0
"""The types: what must check, what must not, and the stub against the built module."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diolkos

TYPING = Path(__file__).resolve().parents[1] / "typing"
SOURCES = str(Path(diolkos.__file__).resolve().parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCES}
if not SOURCES.endswith("-packages"):  # where mypy looks anyway, and does not want to be told
    ENVIRONMENT["MYPYPATH"] = SOURCES


def mypy(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs mypy without anybody's settings or cache."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )


@pytest.mark.slow
def test_accepted_and_refused_programs(tmp_path: Path) -> None:
    expected = {}
    for number, line in enumerate((TYPING / "refused.py").read_text().splitlines(), 1):
        if (marked := re.search(r"# E: \[([\w-]+)\]", line)) is not None:
            expected[number] = marked[1]
    files = [str(TYPING / name) for name in ("accepted.py", "refused.py")]
    done = mypy(tmp_path, "mypy", "--strict", "--enable-error-code=unused-coroutine", *files)
    found = {}
    for line in done.stdout.splitlines():
        if (error := re.match(r".*/(\w+)\.py:(\d+): error: .*\[([\w-]+)\]$", line)) is not None:
            assert error[1] == "refused", line
            found[int(error[2])] = error[3]
    assert found == expected, done.stdout + done.stderr


@pytest.mark.slow
def test_the_stub_says_what_the_module_has(tmp_path: Path) -> None:
    allowlist = ["--allowlist", str(TYPING / "stubtest-allowlist.txt"), "--ignore-unused-allowlist"]
    done = mypy(tmp_path, "mypy.stubtest", "diolkos._core", *allowlist)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_native_name_is_documented() -> None:
    """Users read docstrings in the stub and the reference made of it."""
    stub = (Path(SOURCES) / "diolkos" / "_core.pyi").read_text()
    undocumented = re.findall(r"def ((?!_)\w+)\([^\n]*\)[^\n]*: \.\.\.", stub)
    assert undocumented == []
