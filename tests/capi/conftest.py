# SPDX-License-Identifier: Apache-2.0
"""What the tests of the C interface share: the library, a C compiler, a backend of their own."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cprograms import Programs
from diolkos import c


@pytest.fixture(scope="session")
def programs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs are built, each of them once."""
    return tmp_path_factory.mktemp("programs")


@contextlib.contextmanager
def running(programs_dir: Path, *options: str) -> Iterator[Programs]:
    """A private backend, and programs that run with it."""
    session = Path(tempfile.mkdtemp(prefix="dio-"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DIOLKOS_")}
    # What the programs would start if the backend were not there: nothing.
    environment = {**kept, "XDG_RUNTIME_DIR": str(session), "DIOLKOS_BACKEND_COMMAND": ""}
    command = [sys.executable, "-m", "diolkos", "backend", *options]
    backend = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    flags = [c.cflags(), c.libs(), os.environ.get("DIOLKOS_C_CFLAGS", "")]
    programs = Programs(shlex.split(" ".join(flags)), programs_dir, environment)
    try:
        assert backend.stderr is not None
        line = backend.stderr.readline()
        assert "listening" in line, line
        yield programs
    finally:
        programs.end()
        backend.send_signal(signal.SIGTERM)
        backend.communicate(timeout=60)
        shutil.rmtree(session)


@pytest.fixture
def programs(programs_dir: Path) -> Iterator[Programs]:
    """Programs beside a backend as it comes."""
    with running(programs_dir) as programs:
        yield programs


@pytest.fixture
def switched_programs(programs_dir: Path, tmp_path: Path) -> Iterator[Programs]:
    """Programs beside a backend that puts a relay into each channel."""
    policy = tmp_path / "policy.toml"
    users = f"users = [{os.getuid()}]"
    text = f'version = 1\n[[partition]]\nname = "default"\n{users}\nroad = "switched"\n'
    policy.write_text(text)
    policy.chmod(0o600)
    with running(programs_dir, "--policy", str(policy)) as programs:
        yield programs
