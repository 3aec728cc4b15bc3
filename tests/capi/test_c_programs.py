# SPDX-License-Identifier: Apache-2.0
"""C programs over ``libdiolkos``: messages, regions, loans, and arguments that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from cprograms import Programs

EXAMPLES = Path(__file__).parents[2] / "examples" / "c"

pytestmark = pytest.mark.slow


def run_both(programs: Programs, *arguments: str) -> None:
    owner = programs.start("owner", *arguments)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    user = programs.start("user", *arguments)
    programs.finish(user)
    programs.finish(owner)


def test_two_processes_share_messages_regions_and_loans(programs: Programs) -> None:
    run_both(programs)


def test_the_same_through_copies(switched_programs: Programs) -> None:
    run_both(switched_programs, "copies")


def test_arguments_that_make_no_sense_are_found(programs: Programs) -> None:
    programs.finish(programs.start("errors"))


def test_the_example(programs: Programs) -> None:
    counter = programs.start(EXAMPLES / "counter.c", "serve", "3")
    assert counter.stdout is not None
    assert counter.stdout.readline() == "counting at endpoint counter\n"
    askers = [programs.start(EXAMPLES / "counter.c", "count", "1000") for _ in range(3)]
    for asker in askers:
        programs.finish(asker)
    assert programs.finish(counter) == "3000\n"
