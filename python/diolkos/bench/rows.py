# SPDX-License-Identifier: Apache-2.0
"""Results as the JSON objects that a script reads, one a line.

``ours_over_theirs`` stands in the row of each rival: our half round trip over theirs (below 1 is
good), or our rate over theirs (above 1 is good), over pairs of adjacent slices. Rows of ours in
other conditions carry ``over_plain`` instead: their value over that of the plain contender.
``best_rival`` marks, for each size, the rival that was hardest to beat among those of our face;
what bounds the machine (``memcpy``) is no rival. ``over_smallest`` is the time at this size over
that of the same contender at the smallest size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diolkos.bench.control import Operation
from diolkos.bench.results import Result
from diolkos.bench.slices import Latency, Spread, megabytes_per_second, spread

Row = dict[str, Any]

#: What a one-sided operation is called in rows and on the command line.
RDMA_NAMES = {
    Operation.RDMA_WRITE: "write",
    Operation.RDMA_READ: "read",
    Operation.RDMA_ATOMIC: "atomic",
}

BENCH_NAMES = {
    Operation.PINGPONG: "pingpong",
    Operation.STREAM: "stream",
    Operation.RATE: "rate",
    Operation.ALREADY_THERE: "already_there",
    Operation.INCOMPLETE_TEST: "incomplete_test",
    **dict.fromkeys(RDMA_NAMES, "rdma"),
    Operation.LOAN: "loan",
}


def rows_of(results: Sequence[Result], window: int) -> list[Row]:
    """The rows of one size; the first result is the reference."""
    rows = [_row(result, window) for result in results]
    _mark_best_rival(results, rows)
    return rows


def _row(result: Result, window: int) -> Row:
    row: Row = {
        "bench": BENCH_NAMES[result.operation],
        "contender": result.contender.name,
        "face": result.contender.face,
        "road": result.road,
        "size": result.size,
    }
    if result.operation is Operation.PINGPONG and result.contender.memory is not None:
        row["memory"] = result.contender.memory
    if result.operation.is_round_trip:
        latency = Latency.of(result.times)
        row["half_rtt_us"] = latency.as_json()
        row["half_rtt_mean_us"] = round(latency.mean, 4)
        if result.operation is Operation.PINGPONG:  # nothing of a loan moves
            row["MBps"] = round(megabytes_per_second(result.size, latency.p50 * 1e-6), 1)
        row["iterations"] = latency.iterations
    elif result.operation.is_one_sided:
        latency = Latency.of(result.times, divisor=result.calls)
        row["operation"] = RDMA_NAMES[result.operation]
        row["operation_us"] = latency.as_json()
        row["operation_mean_us"] = round(latency.mean, 4)
        row["MBps"] = round(megabytes_per_second(result.size, latency.p50 * 1e-6), 1)
        row["iterations"] = latency.iterations * result.calls
        row["batch"] = result.calls
        row["target_touched"] = result.calls == 1
    elif result.operation is Operation.ALREADY_THERE:
        latency = Latency.of(result.times, divisor=1)
        row["receive_us"] = latency.as_json()
        row["iterations"] = latency.iterations
    elif result.operation is Operation.INCOMPLETE_TEST:
        p10, p50, p90 = (ns / result.calls for ns in result.times.percentiles((0.1, 0.5, 0.9)))
        row["mx_test_ns"] = Spread(p10, p50, p90).as_json(2)
        row["iterations"] = len(result.times) * result.calls
    else:
        rates = spread(result.messages_per_s)
        if result.operation is Operation.RATE:
            row["msgs_per_s"] = round(rates.p50)
            row["msgs_per_s_spread"] = rates.as_json(0)
        row["MBps"] = round(rates.p50 * result.size / 1e6, 1)
        row["window"] = window
    row["library"] = result.library
    row.update(_ratios(result))
    if result.over_smallest:
        row["over_smallest"] = spread(result.over_smallest).as_json()
    return row


def _ratios(result: Result) -> Row:
    named = {"": result.ratios, "_p99": result.ratios_p99, "_mean": result.ratios_mean}
    if result.contender.ours:
        return {
            f"over_plain{suffix}": spread([1 / max(ratio, 1e-9) for ratio in ratios]).as_json()
            for suffix, ratios in named.items()
            if ratios
        }
    return {
        f"ours_over_theirs{suffix}": spread(ratios).as_json()
        for suffix, ratios in named.items()
        if ratios
    }


def _mark_best_rival(results: Sequence[Result], rows: Sequence[Row]) -> None:
    if not results:
        return
    face = results[0].contender.face
    ratios = [
        (row["ours_over_theirs"]["p50"], row)
        for result, row in zip(results, rows, strict=True)
        if "ours_over_theirs" in row
        and result.contender.face == face
        and not result.contender.limit
    ]
    if not ratios:
        return
    # For times the best rival leaves us the largest ratio, for rates the smallest.
    choose = max if results[0].operation.takes_times else min
    choose(ratios, key=lambda pair: pair[0])[1]["best_rival"] = True
