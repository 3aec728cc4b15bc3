# SPDX-License-Identifier: Apache-2.0
"""Folders that go away with the run, even with one that was killed.

A run holds a lock on each of its folders. The kernel releases it however the run ends, so the next
run knows which folders nobody owns any more, and removes them first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

_PREFIX = "diolkos-bench-"

#: A folder this young may be one whose owner is just about to lock it.
_YOUNG_S = 60.0


def scratch_directory(stack: ExitStack, parent: Path | None = None) -> Path:
    """A new folder in ``parent`` (default: the usual place), removed when ``stack`` closes."""
    where = parent or Path(tempfile.gettempdir())
    _remove_abandoned(where)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=where))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(
                directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError:
            continue  # removed meanwhile, or not ours to open
        try:
            status = os.fstat(descriptor)
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _YOUNG_S:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            pass  # its run is alive
        finally:
            os.close(descriptor)
