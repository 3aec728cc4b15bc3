# SPDX-License-Identifier: Apache-2.0
"""``make demo``: ours against every rival that is installed, as a table, JSON lines and a picture.

    python -m diolkos.bench.demo --output-dir demo

It runs two comparisons of about a minute each: the Python face against what Python programs use,
and the native face against MPI, both with the row of ours in name spaces of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from diolkos.bench import plot
from diolkos.bench.command import Report, ended_by_signals, measure
from diolkos.bench.contenders import Diolkos, rival
from diolkos.bench.control import Operation
from diolkos.bench.results import Plan
from diolkos.cli.codes import CliError, ExitCode

_SIZES = (8, 64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20)
_PYTHON_RIVALS = ("pipe", "unix", "tcp", "zmq", "mpi4py", "iceoryx2")
_NATIVE_RIVALS = ("mpi", "mpi-tuned", "mpi-nocma", "mpi-ucx", "impi")
_ROUNDS = 20


def plans() -> list[Plan]:
    """The two comparisons."""
    return [
        Plan(
            operation=Operation.PINGPONG,
            sizes=_SIZES,
            contenders=[
                Diolkos(face, "auto"),
                Diolkos(face, "auto", isolated=True),
                *map(rival, rivals),
            ],
            rounds=_ROUNDS,
        )
        for face, rivals in (("python", _PYTHON_RIVALS), ("native", _NATIVE_RIVALS))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m diolkos.bench.demo", description=__doc__)
    parser.add_argument("--output-dir", metavar="DIR", type=Path, default=Path("demo"))
    directory: Path = parser.parse_args(arguments).output_dir
    try:
        with ended_by_signals():
            _run(directory)
    except CliError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _run(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    files = {kind: directory / f"pingpong.{kind}" for kind in ("txt", "jsonl", "png")}
    command = ["python", "-m", "diolkos.bench.demo", "--output-dir", str(directory)]
    report = Report(as_json=False, output=files["txt"])
    for plan in plans():
        measure(plan, report, command)
    lines = [json.dumps(row) for row in [*report.rows, *report.machines]]
    files["jsonl"].write_text("\n".join(lines) + "\n")
    try:
        doubtful = max(report.machines, key=lambda machine: len(machine["doubts"]))
        plot.draw(report.rows, doubtful, files["png"])
    except plot.PlotError as error:
        print(f"there is no picture: {error}", file=sys.stderr)
        del files["png"]
    print(f"written: {', '.join(map(str, files.values()))}")


if __name__ == "__main__":
    sys.exit(main())
