# SPDX-License-Identifier: Apache-2.0
"""The examples in C, against themselves and against Python programs on the other face."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import diolkos
from mxprograms import PATIENCE_S, Machine, await_endpoints

EXAMPLES = Path(__file__).parents[2] / "examples" / "c"
BALL, STOP = 1, 2
REPLY = 1 << 63

pytestmark = pytest.mark.slow


def started(machine: Machine, *command: str | Path) -> subprocess.Popen[str]:
    """A program that says one line when it is there."""
    process = machine.start(command)
    assert process.stdout is not None
    assert " at endpoint " in process.stdout.readline()
    return process


def ask(machine: Machine, *arguments: str) -> str:
    return machine.run(EXAMPLES / "service.c", "ask", "localhost", *arguments)


@pytest.mark.parametrize("size", ["0", "8", "4096", "1000000"])
def test_pingpong_between_c_programs(machine: Machine, size: str) -> None:
    program = machine.program(EXAMPLES / "pingpong.c")
    answering = started(machine, program, "3")
    told = machine.run(EXAMPLES / "pingpong.c", "localhost", "3", size, "50")
    assert re.fullmatch(rf"{size} bytes: \d+\.\d+ us\n", told)
    machine.finish(answering)


def test_pingpong_against_python_that_answers(machine: Machine) -> None:
    answering = started(machine, sys.executable, EXAMPLES / "echo.py", "3")
    told = machine.run(EXAMPLES / "pingpong.c", "localhost", "3", "100000", "20")
    assert told.startswith("100000 bytes: ")
    machine.finish(answering)


def test_pingpong_against_python_that_asks(machine: Machine) -> None:
    answering = started(machine, machine.program(EXAMPLES / "pingpong.c"), "3")
    with diolkos.Endpoint() as ep:
        peer = ep.connect(3, timeout=10)
        for size in (0, 8, 5000, 1 << 20):
            ball = bytes(i % 251 for i in range(size))
            request = ep.isend(ball, peer, match=BALL)
            answer = ep.recv(match=BALL, timeout=10)
            request.wait(timeout=10)
            assert bytes(answer) == ball
            assert answer.source == peer
        ep.send(b"", peer, match=STOP)
        machine.finish(answering)


def test_service_with_many_clients(machine: Machine) -> None:
    """Short and long requests, of C and Python clients, all at once."""
    texts = [f"client {number}: " + "to the isthmus " * number**3 for number in range(10)]
    service = started(machine, machine.program(EXAMPLES / "service.c"), "serve", "5", "20")

    def ask_in_python(text: str) -> str:
        process = machine.start([sys.executable, EXAMPLES / "ask.py", "5", text])
        return machine.finish(process)

    with ThreadPoolExecutor(4) as pool:
        in_c = [pool.submit(ask, machine, "5", text) for text in texts]
        in_python = [pool.submit(ask_in_python, text) for text in texts]
        for text, first, second in zip(texts, in_c, in_python, strict=True):
            assert first.result() == second.result() == f"{text.upper()}\n"
    machine.finish(service)


def test_service_takes_long_requests(machine: Machine) -> None:
    """So long that the handler is shown their announcement only."""
    service = started(machine, machine.program(EXAMPLES / "service.c"), "serve", "5", "3")
    with diolkos.Endpoint() as ep:
        peer = ep.connect(5, timeout=10)
        requests = [ep.isend(b"%d" % number * (1 << 19), peer, match=number) for number in range(3)]
        for number, request in enumerate(requests):
            assert bytes(ep.recv(match=number | REPLY, timeout=10)) == b"%d" % number * (1 << 19)
            request.wait(timeout=10)
        machine.finish(service)


def test_service_outlives_a_client_that_vanishes(machine: Machine) -> None:
    service = started(machine, machine.program(EXAMPLES / "service.c"), "serve", "5")
    for _ in range(5):
        with diolkos.Endpoint() as ep:
            ep.isend(b"x" * (1 << 20), ep.connect(5, timeout=10), match=1)
        assert ask(machine, "5", "still there?") == "STILL THERE?\n"
    assert service.poll() is None


def test_service_asked_in_python_serves_c(machine: Machine) -> None:
    """The asking side in C, the service on the Python face."""
    with diolkos.Endpoint(number=6) as ep, ThreadPoolExecutor(1) as pool:
        told = pool.submit(ask, machine, "6", "to the isthmus")
        request = ep.recv(timeout=30)
        ep.send(bytes(request).upper(), request.source, match=request.match | REPLY)
        assert told.result() == "TO THE ISTHMUS\n"


def test_the_readme_says_what_the_programs_print() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for name in ("pingpong.c", "service.c", "echo.py", "ask.py"):
        assert name in text
        assert (EXAMPLES / name).is_file()


@pytest.mark.parametrize("name", ["pingpong", "service"])
def test_a_wrong_command_line_is_explained(machine: Machine, name: str) -> None:
    process = machine.start([machine.program(EXAMPLES / f"{name}.c"), "a", "b", "c", "d", "e"])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith("usage: ")


@pytest.mark.parametrize(
    "words",
    [
        "pingpong three",
        "pingpong localhost",
        "pingpong 256",
        "pingpong localhost 3 -1",
        "pingpong localhost 3 8 0",
        "service",
        "service serve five",
        "service ask localhost 5",
        "service ask localhost 5x text",
    ],
)
def test_wrong_arguments_are_told_before_anything_starts(machine: Machine, words: str) -> None:
    name, *arguments = words.split()
    process = machine.start([machine.program(EXAMPLES / f"{name}.c"), *arguments])
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert errors.startswith(f"usage: {name} ")


def test_ctrl_c_ends_the_answering_side(machine: Machine) -> None:
    """The signal is not caught, the endpoint vanishes, and its number is free again."""
    program = machine.program(EXAMPLES / "pingpong.c")
    for _ in range(2):
        answering = started(machine, program, "3")
        answering.send_signal(signal.SIGINT)
        answering.communicate(timeout=60)
        assert answering.returncode == -signal.SIGINT
        await_endpoints(0)


def test_the_asking_side_ends_soon_after_the_answering_one(machine: Machine) -> None:
    program = machine.program(EXAMPLES / "pingpong.c")
    answering = started(machine, program, "3")
    asking = machine.start([program, "localhost", "3", "8", "2000000000"])
    await_endpoints(2)
    answering.kill()
    _, errors = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode in (1, 255)  # the receive has no answer, or the send has no peer
    assert errors
