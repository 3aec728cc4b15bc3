# SPDX-License-Identifier: Apache-2.0
"""Carrying out a benchmark command: measure, print as results come, draw, and say what to doubt.

stdout gets data only: the table, or with ``--json`` one object a line, the ``machine`` row last.
stderr gets the rest: the progress bar, missing rivals, doubts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from diolkos.bench import options, plot, table
from diolkos.bench.backend import BackendError
from diolkos.bench.control import Operation
from diolkos.bench.coordinator import Coordinator
from diolkos.bench.machine import CacheLineProbe, Watch, this_machine
from diolkos.bench.native import CompileError
from diolkos.bench.progress import ProgressBar
from diolkos.bench.results import Plan
from diolkos.bench.rows import BENCH_NAMES, Row, rows_of
from diolkos.bench.running import ContenderError
from diolkos.cli.codes import CliError, ExitCode


class Report:
    """Where the rows of a run go: to stdout, to a file, and into memory for the picture."""

    def __init__(self, as_json: bool, output: Path | None = None) -> None:
        self.rows: list[Row] = []
        self.machines: list[Row] = []
        self._as_json = as_json
        self._output = output
        self._lines: list[str] = []

    def heading(self, bench: str) -> None:
        """Begins the table of a benchmark."""
        self._text(table.heading(bench))

    def add(self, rows: list[Row]) -> None:
        """Takes in the rows of one size."""
        self.rows += rows
        self._data(rows)
        self._text([*table.lines(rows), ""])

    def finish(self, machine: Row) -> None:
        """Ends the table with the machine, and writes the file. Raises :class:`CliError`."""
        self.machines.append(machine)
        self._data([machine])
        self._text([*table.machine_lines(machine), ""])
        if self._output is not None:
            try:
                self._output.write_text("\n".join(self._lines) + "\n")
            except OSError as error:
                raise CliError(f"cannot write {self._output}: {error.strerror}") from error

    def _data(self, rows: list[Row]) -> None:
        if self._as_json:
            for row in rows:
                print(json.dumps(row), flush=True)

    def _text(self, lines: list[str]) -> None:
        self._lines += lines
        if not self._as_json:
            print("\n".join(lines), flush=True)


def run(args: argparse.Namespace, operation: Operation) -> ExitCode:
    """A whole command. Raises :class:`CliError` with what went wrong and what would help."""
    if args.plot is not None:
        _translated(plot.check)
    report = Report(args.json, args.output)
    command = ["diolkos", *sys.argv[1:]]
    with ended_by_signals():
        believable = measure(options.plan(args, operation), report, command)
    if args.plot is not None:
        _translated(lambda: plot.draw(report.rows, report.machines[-1], args.plot))
        print(f"plot: {args.plot}", file=sys.stderr)
    if not believable:
        print("hint: end what else is running and measure again", file=sys.stderr)
    return ExitCode.OK


def measure(
    plan: Plan, report: Report, command: list[str], probe: CacheLineProbe | None = None
) -> bool:
    """Measures ``plan`` into ``report``; False when the machine was too busy to believe.

    ``command`` is what the user typed. Raises :class:`CliError`.
    """
    bar = ProgressBar()
    watch = Watch(this_machine(), probe or _native_probe())
    try:
        with Coordinator(plan, watch, bar.talk, bar.step) as coordinator:
            report.heading(BENCH_NAMES[plan.operation])
            for results in coordinator.measure():
                bar.clear()
                report.add(rows_of(results, plan.window))
    except (ContenderError, BackendError, CompileError) as error:
        raise CliError(str(error)) from error
    finally:
        bar.clear()
    row = watch.row(shlex.join(command))
    report.finish(row)
    for doubt in row["doubts"]:
        print(f"warning: too busy to believe: {doubt}", file=sys.stderr)
    return bool(row["believable"])


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end the block as Ctrl-C does, so that everything is cleaned up."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _native_probe() -> CacheLineProbe:
    try:
        core: Any = importlib.import_module("diolkos._core")
    except ImportError as error:
        raise CliError(f"the native module is not built: {error}", "make setup") from error
    probe: CacheLineProbe = core.cache_line_ns
    return probe


def _translated(action: Any) -> None:
    try:
        action()
    except plot.PlotError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"cannot write the plot: {error}") from error
