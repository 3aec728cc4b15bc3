# SPDX-License-Identifier: Apache-2.0
"""From results to rows, tables and pictures; and the options in front of it all."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from diolkos.bench import options, plot, table
from diolkos.bench.contenders import Contender, Diolkos, ours, rival
from diolkos.bench.control import Operation
from diolkos.bench.machine import Machine, Watch
from diolkos.bench.results import Result, Slice
from diolkos.bench.rows import Row, rows_of
from diolkos.bench.slices import Histogram

OURS = Diolkos("native", "auto")
ISOLATED = Diolkos("native", "auto", isolated=True)


def result_of(contender: Contender, round_trip_ns: int, reference_ns: int) -> Result:
    road = "direct" if contender.ours else None
    result = Result(contender, Operation.PINGPONG, 1000, "some library", road)
    own = Slice(Histogram([round_trip_ns] * 10))
    result.add(own)
    if contender is not OURS:
        result.compare(Slice(Histogram([reference_ns] * 10)), own)
    return result


def pingpong_rows() -> list[Row]:
    contenders = ((OURS, 200), (ISOLATED, 220), (rival("mpi"), 400), (rival("impi"), 250))
    return rows_of([result_of(each, time, 200) for each, time in contenders], window=1)


def test_a_row_has_the_keys_of_the_interface() -> None:
    row = json.loads(json.dumps(pingpong_rows()[0]))
    assert row["bench"] == "pingpong"
    assert (row["contender"], row["face"], row["road"]) == ("diolkos", "native", "direct")
    assert row["half_rtt_us"] == {"min": 0.1, "p50": 0.1, "p99": 0.1, "p999": 0.1, "max": 0.1}
    assert row["MBps"] == 10_000
    assert row["iterations"] == 10
    assert "ours_over_theirs" not in row


def test_what_a_test_costs_is_a_row_of_its_own() -> None:
    contender = ours("mx", "auto", idle_peers=64)
    result = Result(contender, Operation.INCOMPLETE_TEST, 8, "some library", None)
    result.times = Histogram([200_000, 250_000, 400_000])
    result.calls = 10_000
    (row,) = rows_of([result], window=1)
    assert (row["bench"], row["contender"]) == ("incomplete_test", "diolkos-idle64")
    assert row["mx_test_ns"] == {"p10": 20.0, "p50": 25.0, "p90": 40.0}
    assert row["iterations"] == 30_000
    assert "half_rtt_us" not in row
    (line,) = table.lines([row])
    assert "25.0 ns (20.0 to 40.0)" in line


def test_rivals_carry_ratios_and_the_best_is_marked() -> None:
    _, _, mpi, impi = pingpong_rows()
    assert mpi["ours_over_theirs"] == {"p10": 0.5, "p50": 0.5, "p90": 0.5}
    assert impi["ours_over_theirs_p99"]["p50"] == 0.8
    assert impi["best_rival"]
    assert "best_rival" not in mpi


def test_ours_in_other_conditions_is_compared_with_plain() -> None:
    isolated = pingpong_rows()[1]
    assert isolated["over_plain"]["p50"] == 1.1
    assert "ours_over_theirs" not in isolated


def test_rates_are_compared_the_other_way_round() -> None:
    ours = Result(OURS, Operation.RATE, 8, "", "direct", messages_per_s=[2e6])
    theirs = Result(rival("mpi"), Operation.RATE, 8, "", None)
    theirs.add(Slice(messages_per_s=1e6))
    theirs.compare(Slice(messages_per_s=2e6), Slice(messages_per_s=1e6))
    rows = rows_of([ours, theirs], window=64)
    assert rows[0]["msgs_per_s"] == 2_000_000
    assert rows[1]["ours_over_theirs"]["p50"] == 2.0
    assert rows[1]["window"] == 64


def test_the_table_lines_up() -> None:
    columns = table.heading("pingpong")[1]
    for line in table.lines(pingpong_rows()):
        assert line[: columns.index("MB/s") + 4].rstrip()[-1].isdigit()
    assert table.size_text(65536) == "64 KiB"
    assert table.size_text(1000) == "1000 B"


def watch(other_s: float, cache_line_ns: list[float], pinning: tuple[int, int] = (0, 1)) -> Watch:
    made = Watch(Machine("a machine", "6.1", 2, pinning), probe=lambda a, b, n: 50.0)
    made.meter.other_s, made.meter.wall_s = other_s, 10.0
    made.cache_line_ns = cache_line_ns
    return made


def test_a_quiet_machine_is_believed() -> None:
    row = watch(0.5, [50.0] * 20).row("diolkos pingpong")
    assert row["believable"]
    assert row["other_load"] == 0.05
    assert row["cache_line_ns"] == {"p10": 50.0, "p50": 50.0, "p90": 50.0}
    assert (row["bench"], row["pinning"]) == ("machine", [0, 1])


@pytest.mark.parametrize(
    ("watched", "doubt"),
    [
        (watch(5.0, [50.0] * 20), "0.50 processors"),
        (watch(0.0, [50.0] * 15 + [250.0] * 5), "from 50 to 250 ns"),
        (watch(0.0, [], pinning=(0, 0)), "one processor"),
    ],
)
def test_a_busy_machine_is_doubted(watched: Watch, doubt: str) -> None:
    row = watched.row("diolkos pingpong")
    assert not row["believable"]
    assert doubt in row["doubts"][0]
    assert doubt in table.machine_lines(row)[-1]


@pytest.mark.slow
def test_the_picture_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    plot.draw(pingpong_rows(), watch(0, [50.0]).row("diolkos pingpong"), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_sizes_are_parsed() -> None:
    assert options.size_list("8,1024,64K,1M,1GiB") == [8, 1024, 65536, 1 << 20, 1 << 30]
    for wrong in ("", "8,", "-1", "1.5K", "K", "²"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.size_list(wrong)


def test_unknown_rivals_are_refused_by_name() -> None:
    assert options.rival_list("pipe,zmq,pipe") == ["pipe", "zmq"]
    with pytest.raises(argparse.ArgumentTypeError, match="carrier-pigeon"):
        options.rival_list("pipe,carrier-pigeon")


def test_options_become_a_plan() -> None:
    parser = argparse.ArgumentParser()
    options.add_options(parser, sizes="8")
    words = ["--face", "native", "--isolate", "--idle-peers", "64", "--against", "mpi,impi"]
    words += ["--seconds", "2"]
    plan = options.plan(parser.parse_args(words), Operation.PINGPONG)
    names = [contender.name for contender in plan.contenders]
    assert names == ["diolkos", "diolkos-isolated", "diolkos-idle64", "mpi", "impi"]
    assert plan.rounds == 50
    assert plan.sizes == [8]
