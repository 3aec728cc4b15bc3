# SPDX-License-Identifier: Apache-2.0
"""What the tests of the MX interface share: the library, a C compiler, a backend of their own.

The library is the one in the package, or where ``DIOLKOS_MX_LIB`` says: a folder, or the file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos import mx

# For `rawclient`.
sys.path.append(str(Path(__file__).parent.parent / "control"))

from mxprograms import Compiler, Machine


@pytest.fixture(scope="session")
def library_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the library has all of its names."""
    told = os.environ.get("DIOLKOS_MX_LIB")
    if told is None:
        return mx.library_dir()
    path = Path(told).absolute()
    if path.is_dir():
        return path
    assert path.is_file(), f"DIOLKOS_MX_LIB is {told}, where nothing is"
    directory = tmp_path_factory.mktemp("lib")
    for name in mx.LIBRARY_NAMES:
        (directory / name).symlink_to(path)
    return directory


@pytest.fixture(scope="session")
def compiler(library_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Builds each program once."""
    return Compiler(library_dir, tmp_path_factory.mktemp("programs"))


@pytest.fixture
def session_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short, private ``XDG_RUNTIME_DIR``, and none of the variables that would change things."""
    path = Path(tempfile.mkdtemp(prefix="dio-"))
    for name in list(os.environ):
        if name.startswith(("MX_", "OMX_", "DIOLKOS_RUNTIME_DIR", "DIOLKOS_PARTITION")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def running(session_dir: Path, request: pytest.FixtureRequest, *options: str) -> Iterator[Machine]:
    """A backend, and the programs that run with it; all of them end with the test. The library is
    looked for only when a program is built, so that a backend alone needs none."""
    backend = subprocess.Popen(
        [sys.executable, "-m", "diolkos", "backend", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    machine = Machine(lambda: request.getfixturevalue("compiler"), session_dir)
    try:
        assert backend.stderr is not None
        line = backend.stderr.readline()
        assert "listening" in line, line + backend.stderr.read()
        yield machine
    finally:
        machine.end()
        backend.send_signal(signal.SIGTERM)
        backend.communicate(timeout=60)


@pytest.fixture
def machine(session_dir: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A backend as it comes."""
    with running(session_dir, request) as machine:
        yield machine


@pytest.fixture
def switched_machine(
    session_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Machine]:
    """A backend that puts a relay into each channel."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f'version = 1\n[[partition]]\nname = "p"\nusers = [{os.getuid()}]\nroad = "switched"\n'
    )
    policy.chmod(0o600)
    with running(session_dir, request, "--policy", str(policy)) as machine:
        yield machine
