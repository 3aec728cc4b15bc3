# SPDX-License-Identifier: Apache-2.0
"""Putting a side where it has no right over anybody: the ``--isolate`` row.

::

    coordinator, backend          (this user, the host's name spaces)
      |                     |
    side 0                side 1
    user, PID, mount,     user, PID, mount,
    network, IPC          network, IPC          each its own; /dev/shm private and empty

The two sides cannot see each other's processes, share no ``/dev/shm``, no loopback network and no
System V memory, and neither has a capability in the other's user name space, so that the kernel
refuses ``ptrace`` and ``process_vm_readv`` between them. What is left is the file system, and in
it the sockets of the backend and of the coordinator: all that Diolkos needs.

util-linux's ``unshare`` does the work. It needs root, or a kernel that lets users make user name
spaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

#: The name spaces that must differ, as they are called in /proc/PID/ns.
NAMESPACES = ("user", "pid", "mnt", "net", "ipc")

_UNSHARE = (
    "unshare --user --map-root-user --pid --fork --mount --net --ipc --mount-proc --kill-child"
)

# The shell stays as the first process of the PID name space: the kernel protects that one from
# signals without a handler, and the side must be able to die by its alarm.
_SCRIPT = 'mount -t tmpfs -o mode=1777 tmpfs /dev/shm && "$@"; exit $?'


def isolated(command: Sequence[str]) -> list[str]:
    """``command``, to be run in name spaces of its own."""
    return [*_UNSHARE.split(), "--", "sh", "-c", _SCRIPT, "sh", *command]


def why_impossible() -> str | None:
    """Why this machine cannot isolate a side, as one sentence, or None when it can."""
    if shutil.which("unshare") is None:
        return "unshare is missing: apt-get install util-linux"
    attempt = subprocess.run(isolated(["true"]), capture_output=True, text=True, check=False)
    if attempt.returncode == 0:
        return None
    return f"the kernel refuses name spaces of its own: {attempt.stderr.strip()}"


def shared_namespaces(first: int, second: int) -> list[str]:
    """The name spaces that two processes have in common, although they should not."""
    return [
        name
        for name in NAMESPACES
        if os.readlink(f"/proc/{first}/ns/{name}") == os.readlink(f"/proc/{second}/ns/{name}")
    ]
