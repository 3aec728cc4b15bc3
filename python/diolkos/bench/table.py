# SPDX-License-Identifier: Apache-2.0
"""Rows as a table that a person reads: fixed columns, so that it can be printed as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

_NAME_COLUMNS = f"{'contender':<18} {'face':<8} {'road':<9} {'size':>8}"
_LATENCY_COLUMNS = "".join(f" {name:>9}" for name in ("min", "p50", "p99", "p99.9", "max"))
_RATIO_COLUMN = "  ours/theirs (p10 to p90)"

_KEYS = ("min", "p50", "p99", "p999", "max")
#: The key of a row that holds its times.
_TIMES = {"pingpong": "half_rtt_us", "loan": "half_rtt_us", "rdma": "operation_us"}
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def size_text(size: int) -> str:
    """``65536`` as ``64 KiB``."""
    for unit, name in _UNITS:
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def heading(bench: str) -> list[str]:
    """The lines above the rows of a benchmark."""
    if bench == "rdma":
        what = "one operation in microseconds; below 1 in the last column is good for us"
        columns = f"{_NAME_COLUMNS}{_LATENCY_COLUMNS} {'MB/s':>9}{_RATIO_COLUMN}"
    elif bench in ("pingpong", "loan"):
        what = "half round trip in microseconds; below 1 in the last column is good for us"
        columns = f"{_NAME_COLUMNS}{_LATENCY_COLUMNS} {'MB/s':>9}{_RATIO_COLUMN}"
    elif bench == "rate":
        what = "messages a second one way; above 1 in the last column is good for us"
        columns = f"{_NAME_COLUMNS} {'messages/s':>12} {'MB/s':>9}{_RATIO_COLUMN}"
    else:
        what = "bandwidth one way; above 1 in the last column is good for us"
        columns = f"{_NAME_COLUMNS} {'MB/s':>9}{_RATIO_COLUMN}"
    return [f"{bench}: {what}", columns]


def lines(rows: Sequence[Row]) -> list[str]:
    """One line for each row."""
    return [_line(row).rstrip() for row in rows]


def machine_lines(row: Row) -> list[str]:
    """The lines below the table: where and how it was measured, and whether to believe it."""
    cache_line = row["cache_line_ns"]
    hand_over = (
        f"cache line hand-over {cache_line['p50']:.0f} ns "
        f"({cache_line['p10']:.0f} to {cache_line['p90']:.0f})"
        if cache_line
        else "cache line hand-over not measured"
    )
    first, second = row["pinning"]
    found = [
        f"machine: {row['machine']}, {row['cpus']} processors, Linux {row['kernel']}, "
        f"sides pinned to processors {first} and {second}",
        f"         {hand_over}, others kept {row['other_load']:.2f} processors busy",
        f"command: {row['command']}",
    ]
    found += [f"too busy to believe: {doubt}" for doubt in row["doubts"]]
    return found


def _line(row: Row) -> str:
    name = (
        f"{row['contender']:<18} {row['face']:<8} {row['road'] or '-':<9} "
        f"{size_text(row['size']):>8}"
    )
    if row["bench"] in _TIMES:
        times = "".join(f" {_number(row[_TIMES[row['bench']]][key]):>9}" for key in _KEYS)
        speed = f"{row['MBps']:.0f}" if "MBps" in row else "-"
        return f"{name}{times} {speed:>9}{_ratio(row)}{_remarks(row)}"
    if row["bench"] == "already_there":
        times = "".join(f" {_number(row['receive_us'][key]):>9}" for key in _KEYS)
        return f"{name}{times} {'-':>9}  a receive of what is already there"
    if row["bench"] == "incomplete_test":
        ns = row["mx_test_ns"]
        cost = f"{ns['p50']:.1f} ns ({ns['p10']:.1f} to {ns['p90']:.1f})"
        return f"{name} {cost:>40} {'-':>18}  a test of what is not complete"
    if row["bench"] == "rate":
        return f"{name} {row['msgs_per_s']:>12,} {row['MBps']:>9.0f}{_ratio(row)}"
    return f"{name} {row['MBps']:>9.0f}{_ratio(row)}"


def _number(value: float) -> str:
    """Three or four digits that matter: 0.134, 35.92, 1204."""
    if value < 10:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _remarks(row: Row) -> str:
    """What else a reader must know of the times."""
    remarks = []
    if "operation" in row:
        remarks.append(row["operation"])
    if row.get("batch", 1) > 1:
        remarks.append(f"batches of {row['batch']}")
    if "over_smallest" in row:
        remarks.append(f"{row['over_smallest']['p50']:.2f} of the smallest size")
    return f"  [{', '.join(remarks)}]" if remarks else ""


def _ratio(row: Row) -> str:
    ratio, mark = row.get("ours_over_theirs"), " best rival" if row.get("best_rival") else ""
    if ratio is None:
        ratio, mark = row.get("over_plain"), " of plain diolkos"
    if ratio is None:
        return ""
    return f"  {ratio['p50']:8.3f} ({ratio['p10']:.3f} to {ratio['p90']:.3f}){mark}"
