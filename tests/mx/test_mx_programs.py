# SPDX-License-Identifier: Apache-2.0
"""The C programs in ``c/``, each with its own backend. What one checks is said on top of it."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from mxprograms import PATIENCE_S, SOURCES, Machine, await_endpoints

pytestmark = pytest.mark.slow

# Program -> the ways to run it: arguments and settings.
RUNS: dict[str, list[list[str]]] = {
    "loopback": [[]],
    "pair": [[], ["MX_DISABLE_SHARED=1"], ["OMX_WAITSPIN=1"], ["MX_MONOTHREAD=1"]],
    "unexpected": [[], ["with context ids"], ["OMX_CTXIDS=10,40"]],
    "handler": [[], ["MX_MONOTHREAD=1"]],
    "handler_order": [[], ["MX_MONOTHREAD=1"]],
    "callback": [[], ["MX_MONOTHREAD=1"]],
    "truncation": [[], ["MX_MONOTHREAD=1"]],
    "vectors": [[]],
    "cancel": [[], ["MX_MONOTHREAD=1"]],
    "connecting": [[], ["MX_MONOTHREAD=1"]],
    "address_context": [[]],
    "many": [[], ["MX_MONOTHREAD=1"]],
    "threads_wait_any": [[], ["MX_MONOTHREAD=1"]],
    "threads_endpoints": [[]],
    "timeouts": [[], ["MX_MONOTHREAD=1"]],
    "request_timeout": [[], ["MX_MONOTHREAD=1"]],
    "signals": [[], ["end", "OMX_WAITINTR=1"]],
    "wakeup": [[], ["MX_MONOTHREAD=1"]],
    "contexts": [[]],
    "reconnect": [[], ["MX_MONOTHREAD=1"]],
    "peeking": [[], ["MX_MONOTHREAD=1"]],
    "errors": [[]],
    "misuse": [[]],
    "leaving": [["return"], ["exit"], ["_exit"], ["thread"], ["finalize"]],
    "forked": [[]],
    "killed": [[], ["MX_MONOTHREAD=1"]],
    "progression": [[]],
    "names": [[]],
    "raw": [[]],
    "native": [[], ["OMX_MONOTHREAD=1"]],
}
# Run by other tests.
ELSEWHERE = {"everything", "fatal", "garbage"}


def test_every_program_is_run() -> None:
    assert {path.stem for path in SOURCES.glob("*.c")} == RUNS.keys() | ELSEWHERE


@pytest.mark.parametrize(
    ("program", "how"),
    [
        pytest.param(program, how, id=" ".join([program, *how]))
        for program, ways in RUNS.items()
        for how in ways
    ],
)
def test_program(machine: Machine, program: str, how: list[str]) -> None:
    settings = dict(word.split("=") for word in how if "=" in word)
    arguments = [word for word in how if "=" not in word]
    machine.run(program, *arguments, **settings)
    await_endpoints(0)


@pytest.mark.parametrize("program", ["pair", "connecting", "cancel", "wakeup", "request_timeout"])
def test_program_on_the_switched_road(switched_machine: Machine, program: str) -> None:
    """The answer to a connect is the peer's there, too, and not the relay's."""
    switched_machine.run(program, DIOLKOS_PARTITION="p")
    await_endpoints(0)


@pytest.mark.parametrize("when", ["call", "request"])
@pytest.mark.parametrize("setting", ["", "MX_ERRORS_ARE_FATAL=1", "OMX_FATAL_ERRORS=1"])
def test_errors_are_fatal_unless_told_otherwise(machine: Machine, when: str, setting: str) -> None:
    settings = dict([setting.split("=")]) if setting else {}
    process = machine.start([machine.program("fatal"), when], settings)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (255, "")
    assert errors.strip()


@pytest.mark.parametrize("when", ["call", "request"])
@pytest.mark.parametrize("setting", ["MX_ERRORS_ARE_FATAL", "OMX_FATAL_ERRORS"])
def test_the_environment_makes_errors_return(machine: Machine, when: str, setting: str) -> None:
    assert machine.run("fatal", when, **{setting: "0"}) == "alive\n"


def test_the_native_variable_comes_first(machine: Machine) -> None:
    settings = {"OMX_FATAL_ERRORS": "1", "MX_ERRORS_ARE_FATAL": "0"}
    assert machine.run("fatal", "call", code=255, **settings) == ""
    settings = {"MX_ERRORS_ARE_FATAL": "0", "OMX_IGNORE_MX_ENV": "1"}
    assert machine.run("fatal", "call", code=255, **settings) == ""


def test_before_init_errors_are_fatal_whatever_the_environment_says(machine: Machine) -> None:
    assert machine.run("fatal", "uninitialized", code=255, MX_ERRORS_ARE_FATAL="0") == ""
    assert machine.run("fatal", "installed") == "alive\n"


def test_a_fatal_error_that_nobody_reads_of_is_one_all_the_same(machine: Machine) -> None:
    """With nobody at the other end of stderr, and SIGPIPE ignored, as this process does."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [machine.program("fatal"), "call"]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=writer,
            restore_signals=False,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (255, b"")


def test_a_program_that_is_killed_leaves_nothing(machine: Machine) -> None:
    """The victim is killed while its own child waits for it; both endpoints vanish."""
    process = machine.start([machine.program("killed")])
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    await_endpoints(0)


def test_it_says_where_the_board_is(machine: Machine) -> None:
    answers = dict(line.split("=") for line in machine.run("names").splitlines())
    assert len(answers["nic"]) == 12
    assert int(answers["endpoints"]) >= 32
    assert answers["hostname"]
