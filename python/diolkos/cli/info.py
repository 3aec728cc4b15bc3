# SPDX-License-Identifier: Apache-2.0
"""`diolkos info`: the backend, its endpoints and channels, and their counters, live.

The counters are read from the endpoints' home files, read-only: watching disturbs nobody. With
`--json` there is one object a line, and `kind` says what it is: `backend`, `endpoint`, `channel`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from diolkos.cli.codes import CliError, ExitCode

if TYPE_CHECKING:
    from diolkos.backend.client import Snapshot

WATCH_PERIOD_S = 1.0
_CLEAR = "\x1b[H\x1b[2J"
_Row = dict[str, Any]


def prepare_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "info",
        help="show the backend, its endpoints and channels, and their counters",
        description="Show the backend, its endpoints and channels, the road of each channel and "
        "why it was chosen, and live counters. Nobody is disturbed by looking.",
    )
    parser.add_argument("--runtime-dir", metavar="DIR", help="where the backend listens")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")


def run(args: argparse.Namespace) -> ExitCode:
    """Prints what there is, once or until interrupted."""
    while True:
        rows = _look(args.runtime_dir)
        if args.json:
            lines = [json.dumps(row) for row in rows]
        else:
            lines = list(_table(rows))
            if args.watch and sys.stdout.isatty():
                lines[0] = _CLEAR + lines[0]
        print("\n".join(lines), flush=True)
        if not args.watch:
            return ExitCode.OK
        time.sleep(WATCH_PERIOD_S)


def _look(runtime_dir: str | None) -> list[_Row]:
    """One answer of the backend, as rows; raises CliError."""
    from diolkos.backend import client, paths

    try:
        snapshot = client.query(runtime_dir)
    except client.NoBackend as error:
        raise CliError(str(error), error.hint, ExitCode.NO_BACKEND) from None
    except paths.RuntimeDirError as error:
        raise CliError(str(error), error.hint) from None
    except OSError as error:
        raise CliError(f"the backend does not answer: {error}", code=ExitCode.NO_BACKEND) from None
    try:
        return list(_rows(snapshot))
    finally:
        snapshot.close()


def _rows(snapshot: Snapshot) -> Iterator[_Row]:
    """The answer and the counters as flat objects."""
    import msgspec

    yield {"kind": "backend", **msgspec.to_builtins(snapshot.backend)}
    names: dict[int | None, str] = {}
    counters: dict[int, dict[int, dict[str, int]]] = {}
    for endpoint, home in snapshot.endpoints:
        names[endpoint.number] = endpoint.name
        counters[endpoint.number] = home.channels()
        yield {"kind": "endpoint", **msgspec.to_builtins(endpoint), "counters": home.endpoint()}
    for channel in snapshot.channels:
        sides = {"a": channel.a, "b": channel.b}
        yield {
            "kind": "channel",
            **msgspec.to_builtins(channel),
            "a_name": names.get(channel.a),
            "b_name": names.get(channel.b),
            "counters": {
                side: counters[number].get(channel.channel)
                for side, number in sides.items()
                if number in counters
            },
        }


def _table(rows: list[_Row]) -> Iterator[str]:
    """The same for people."""
    backend = rows[0]
    policy = backend["policy"] or "default (same user, same partition)"
    yield (
        f"backend   pid {backend['pid']}, user {backend['uid']}, up {backend['uptime_s']:.0f} s, "
        f"{backend['endpoints']} endpoints, {backend['channels']} channels, policy: {policy}"
    )
    for row in rows[1:]:
        yield from _endpoint_lines(row) if row["kind"] == "endpoint" else _channel_lines(row)


def _endpoint_lines(row: _Row) -> Iterator[str]:
    counters = row["counters"]
    yield (
        f"endpoint  {row['number']} {row['name']!r} in {row['partition']!r}, user {row['uid']}, "
        f"pid {row['pid']}, {row['channels']} channels"
    )
    yield (
        f"          woken {counters['wakeups']}, slept {counters['sleeps']}, "
        f"now: {counters['posted_now']} posted, {counters['requests_now']} requests, "
        f"{counters['unexpected_messages_now']} unexpected "
        f"({counters['unexpected_bytes_now']} bytes)"
    )


def _channel_lines(row: _Row) -> Iterator[str]:
    a, b = (_end_name(row, side) for side in ("a", "b"))
    yield f"channel   {row['channel']:x}: {a} to {b}, {row['road']} ({row['reason']})"
    for side, counters in row["counters"].items():
        if counters is not None:
            yield (
                f"          {_end_name(row, side)}: sent {counters['tx_messages']} "
                f"({counters['tx_bytes']} bytes), received {counters['rx_messages']} "
                f"({counters['rx_bytes']} bytes), rang {counters['doorbells_rung']}, "
                f"now: {counters['tx_queued_now']} queued, "
                f"{counters['rx_unexpected_now']} unexpected"
            )


def _end_name(row: _Row, side: str) -> str:
    if row[side] is None:
        return "(not back)"
    name = row[f"{side}_name"]
    return f"{row[side]} {name!r}" if name else str(row[side])
