# SPDX-License-Identifier: Apache-2.0
"""The rivals that come with a launcher: Open MPI in four settings, Intel MPI, and mpi4py.

==============  ==================================================================================
``mpi``         Open MPI as it is, over its shared memory (``vader``; called ``sm`` from 5.0 on)
``mpi-tuned``   the same with eager and send limits raised to 64 KiB
``mpi-nocma``   the same without the kernel's single copy (``process_vm_readv``)
``mpi-ucx``     Open MPI over UCX's shared memory
``impi``        Intel MPI from its wheel, over shared memory only
``mpi4py``      Python over the system's Open MPI; over Intel MPI where that is all there is
==============  ==================================================================================

All run the same loop (``native/mpi_loop.c``; mpi4py the loop of all Python contenders). Launchers
are told not to bind, because the sides pin themselves as all other sides do.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from diolkos.bench import native
from diolkos.bench.contenders.base import (
    EXCHANGES,
    ONE_SIDED,
    Contender,
    Launch,
    Missing,
    Workspace,
    python_side,
)

_INSTALL_OPENMPI = "apt-get install openmpi-bin libopenmpi-dev"
_INSTALL_IMPI = "pip install impi-rt"
_LIMIT = "65536"

#: Setting -> parameters of Open MPI; BTL stands for the name of its shared-memory transport.
_SHARED_MEMORY = {"pml": "ob1", "btl": "self,BTL"}
SETTINGS: dict[str, dict[str, str]] = {
    "mpi": _SHARED_MEMORY,
    "mpi-tuned": {
        **_SHARED_MEMORY,
        "btl_BTL_eager_limit": _LIMIT,
        "btl_BTL_rndv_eager_limit": _LIMIT,
        "btl_BTL_max_send_size": _LIMIT,
    },
    "mpi-nocma": {**_SHARED_MEMORY, "btl_BTL_single_copy_mechanism": "none"},
    # Open MPI leaves UCX alone unless there is InfiniBand, so it is told that anything will do.
    "mpi-ucx": {"pml": "ucx", "pml_ucx_tls": "any", "pml_ucx_devices": "any"},
}


class OpenMpi(Contender):
    """The C loop under the system's Open MPI in one of the ``SETTINGS``."""

    face = "native"
    operations = EXCHANGES | ONE_SIDED

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> Missing | None:
        """Open MPI, its compiler, or its UCX component."""
        if _open_mpi() is None or shutil.which("mpicc") is None:
            return Missing("there is no Open MPI with mpicc", _INSTALL_OPENMPI)
        if self.name == "mpi-ucx" and "pml: ucx" not in _open_mpi_components():
            return Missing("this Open MPI was built without UCX", f"{_INSTALL_OPENMPI} libucx0")
        return None

    def launches(self, workspace: Workspace) -> list[Launch]:
        """One ``mpirun`` for both sides."""
        program = native.compiled("mpi_loop.c", "mpicc")
        return [_mpirun(self.name, workspace, [str(program)])]


class IntelMpi(Contender):
    """The C loop under Intel MPI, built against the MPICH ABI that both share."""

    name = "impi"
    face = "native"
    operations = EXCHANGES | ONE_SIDED

    def missing(self) -> Missing | None:
        """The wheel, or a C compiler."""
        if intel_library() is None:
            return Missing("the Python package impi-rt is not installed", _INSTALL_IMPI)
        if shutil.which("cc") is None:
            return Missing("there is no C compiler", "apt-get install gcc")
        return None

    def launches(self, workspace: Workspace) -> list[Launch]:
        """One ``mpiexec.hydra`` for both sides."""
        library = intel_library()
        assert library is not None, "missing() said that it is there"
        program = native.compiled(
            "mpi_loop.c",
            "cc",
            define=["DIOLKOS_MPICH_ABI"],
            link=[str(library), f"-Wl,-rpath,{library.parent}"],
        )
        return [_hydra(library, workspace, [str(program)])]


class Mpi4py(Contender):
    """mpi4py, over the best library that is installed for it."""

    name = "mpi4py"
    face = "python"
    operations = EXCHANGES | ONE_SIDED

    def missing(self) -> Missing | None:
        """mpi4py, or a library for it."""
        try:
            importlib.metadata.version("mpi4py")
        except importlib.metadata.PackageNotFoundError:
            return Missing("the Python package mpi4py is not installed", "pip install mpi4py")
        if _open_mpi() is None and intel_library() is None:
            return Missing("there is no MPI library for mpi4py", _INSTALL_OPENMPI)
        return None

    def launches(self, workspace: Workspace) -> list[Launch]:
        """One launcher of the library for both sides."""
        worker = "mpi4py-rdma" if workspace.operation.is_one_sided else "mpi4py"
        side = python_side(worker, None)
        library = intel_library()
        if _open_mpi() is not None:
            # A wheel of mpi4py serves several libraries and would prefer Intel's beside it.
            choice = {"MPI4PY_MPIABI": "openmpi"}
            launch = _mpirun("mpi", workspace, list(side.command))
        else:
            assert library is not None, "missing() said that one of them is there"
            choice = {"MPI4PY_MPIABI": "impi"}
            launch = _hydra(library, workspace, list(side.command))
        return [Launch(launch.command, {**launch.environment, **side.environment, **choice})]


def intel_library() -> Path | None:
    """The ``libmpi.so.12`` of the installed wheel of Intel MPI."""
    try:
        files = importlib.metadata.files("impi-rt") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())).resolve() for f in files if f.name == "libmpi.so.12"]
    return found[0] if found and found[0].exists() else None


def _mpirun(setting: str, workspace: Workspace, command: list[str]) -> Launch:
    installation = _open_mpi()
    assert installation is not None, "missing() said that it is there"
    transport = "vader" if installation.version < 5 else "sm"
    words = [installation.mpirun, "-np", "2", "--host", "localhost:2", "--bind-to", "none"]
    for name, value in SETTINGS[setting].items():
        words += ["--mca", name.replace("BTL", transport), value.replace("BTL", transport)]
    words += ["--mca", f"btl_{transport}_backing_directory", str(workspace.shared)]
    environment = {
        "TMPDIR": str(workspace.directory),
        # It refuses to run as root otherwise, as in a container.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "UCX_TLS": "self,sm",
        "UCX_POSIX_DIR": str(workspace.shared),
    }
    return Launch([*words, *command], environment)


def _hydra(library: Path, workspace: Workspace, command: list[str]) -> Launch:
    launcher = Path(sys.prefix, "bin", "mpiexec.hydra")
    environment = {
        "TMPDIR": str(workspace.directory),
        "I_MPI_ROOT": sys.prefix,
        "I_MPI_FABRICS": "shm",
        "I_MPI_PIN": "0",
        "I_MPI_HYDRA_BOOTSTRAP": "fork",
        "LD_LIBRARY_PATH": os.pathsep.join(
            [str(library.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        ),
    }
    return Launch([str(launcher), "-n", "2", *command], environment)


class _OpenMpiInstallation(NamedTuple):
    """An Open MPI: its launcher and its major version."""

    mpirun: str
    version: int


@functools.cache
def _open_mpi() -> _OpenMpiInstallation | None:
    """The first Open MPI on the path. Others are passed over: the wheel of Intel MPI puts an
    ``mpirun`` of its own into the virtual environment."""
    for directory in os.get_exec_path():
        mpirun = shutil.which("mpirun", path=directory)
        if mpirun is None:
            continue
        match = re.search(r"\(Open MPI\) (\d+)\.", _output([mpirun, "--version"]))
        if match:
            return _OpenMpiInstallation(mpirun, int(match[1]))
    return None


@functools.cache
def _open_mpi_components() -> str:
    return _output(["ompi_info"])


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
