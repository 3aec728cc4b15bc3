# SPDX-License-Identifier: Apache-2.0
"""How commands end: exit codes, and the error that becomes `error:` and `hint:` lines."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit code of `diolkos` means."""

    OK = 0
    FAILURE = 1
    """It could not be done; the error line says why."""
    USAGE = 2
    """The command line is wrong."""
    NO_BACKEND = 3
    """There is no backend to ask."""
    ALREADY_RUNNING = 4
    """A backend has that runtime directory already."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CliError(Exception):
    """A command cannot go on. `hint` says what would help."""

    def __init__(
        self, message: str, hint: str | None = None, code: ExitCode = ExitCode.FAILURE
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
