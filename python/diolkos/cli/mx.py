# SPDX-License-Identifier: Apache-2.0
"""`diolkos mx`: what MX programs of this host see, for administrators.

=============  =====================================================================
``info``       the library, the boards with their addresses and names, the peers
``counters``   what crossed so far, summed over the endpoints of the board
``endpoints``  which processes have which endpoints open
``hostname``   the name of the board, or another name for it
``peers``      who can be reached by name or nic id
=============  =====================================================================

With ``--json`` there is one object a line, and ``kind`` says what it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diolkos.cli.codes import CliError, ExitCode

if TYPE_CHECKING:
    from diolkos.backend.client import Snapshot
    from diolkos.backend.paths import RuntimeDir

_Row = dict[str, Any]
_Rows = Iterator[tuple[_Row, str]]


def prepare_parser(subparsers: Any) -> None:
    """Adds the command, and its commands, to the parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "mx",
        help="show what MX programs see: boards, endpoints, counters, names",
        description="Show what MX programs of this host see.",
    )
    commands = parser.add_subparsers(dest="mx_command", metavar="COMMAND", required=True)
    _add(commands, "info", "the library, the boards, the peers", _info)
    counters = _add(commands, "counters", "what crossed so far", _counters)
    counters.add_argument("-v", "--verbose", action="store_true", help="counters that are 0, too")
    counters.set_defaults(if_nothing="no endpoint is open that you may see, or all counters are 0")
    _add(commands, "endpoints", "which processes have which endpoints open", _endpoints)
    hostname = _add(commands, "hostname", "the name of the board, or another name", _hostname)
    change = hostname.add_mutually_exclusive_group()
    change.add_argument("-n", "--name", metavar="NAME", help="call the board so from now on")
    change.add_argument("-c", "--clear", action="store_true", help="call it as the host again")
    _add(commands, "peers", "who can be reached by name or nic id", _peers)


def _add(
    commands: Any, name: str, text: str, answer: Callable[[argparse.Namespace], _Rows]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"Show {text}."
    )
    parser.add_argument("-b", "--board", metavar="N", type=int, help="of this board only")
    parser.add_argument("--runtime-dir", metavar="DIR", help="where the backend listens")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(answer=answer, if_nothing="no endpoint is open that you may see")
    return parser


def run(args: argparse.Namespace) -> ExitCode:
    """Prints what is asked for."""
    from diolkos.mx import board

    if args.board not in (None, board.BOARD):
        raise CliError(f"there is no board {args.board}", f"this host has board {board.BOARD} only")
    silent = True
    for row, line in args.answer(args):
        print(json.dumps(row) if args.json else line, flush=True)
        silent = False
    if silent and not args.json:
        print(f"hint: {args.if_nothing}", file=sys.stderr)
    return ExitCode.OK


def _info(args: argparse.Namespace) -> _Rows:
    from diolkos import mx
    from diolkos.backend import report

    try:
        library: str | None = str(mx.library_dir() / mx.LIBRARY_NAMES[0])
    except mx.MissingLibrary:
        library = None
    version = report.version()
    yield (
        {"kind": "library", "version": version, "api": "0x301", "library": library},
        f"library   Diolkos {version}, MX API 0x301, {library or 'not installed here'}",
    )
    snapshot = _look_if_any(args)
    row = {"kind": "board", **_board(args), "interface": "shared memory", "backend_pid": None}
    row["endpoints"] = 0
    status = "no backend yet; the first endpoint starts one"
    if snapshot is not None:
        row["backend_pid"] = snapshot.backend.pid
        row["endpoints"] = snapshot.backend.endpoints
        status = f"backend {snapshot.backend.pid}, {snapshot.backend.endpoints} endpoints"
        snapshot.close()
    yield (
        row,
        f"board     {row['board']}: {row['address']}, {row['name']}, {row['interface']}, {status}",
    )
    yield from _peers(args)


def _counters(args: argparse.Namespace) -> _Rows:
    snapshot = _look(args)
    totals: dict[str, int] = {}
    try:
        for _, home in snapshot.endpoints:
            for counters in [home.endpoint(), *home.channels().values()]:
                for name, value in counters.items():
                    totals[name] = totals.get(name, 0) + value
    finally:
        snapshot.close()
    board = _board(args)["board"]
    for name, value in totals.items():
        if value or args.verbose:
            row = {"kind": "counter", "board": board, "counter": name, "value": value}
            yield row, f"board {board}  {value:>14}  {name}"


def _endpoints(args: argparse.Namespace) -> _Rows:
    snapshot = _look(args)
    snapshot.close()
    board = _board(args)["board"]
    for endpoint, _ in sorted(snapshot.endpoints, key=lambda pair: pair[0].number):
        row = {
            "kind": "endpoint",
            "board": board,
            "endpoint": endpoint.number,
            "name": endpoint.name,
            "partition": endpoint.partition,
            "uid": endpoint.uid,
            "pid": endpoint.pid,
            "command": _command_of(endpoint.pid),
        }
        yield (
            row,
            f"board {board}  endpoint {endpoint.number}: pid {endpoint.pid} "
            f"({row['command'] or '?'}), user {endpoint.uid}, partition {endpoint.partition!r}",
        )


def _hostname(args: argparse.Namespace) -> _Rows:
    if args.name is not None or args.clear:
        with _directory(args) as directory:
            if directory is not None:
                _rename(directory, args.name)
            elif args.name is not None:  # there is nothing to clear
                raise CliError(
                    "there is no runtime directory to keep the name in",
                    "start a backend first: `diolkos backend`",
                    ExitCode.NO_BACKEND,
                )
    found = _board(args)
    yield {"kind": "hostname", **found}, str(found["name"])


def _rename(directory: RuntimeDir, name: str | None) -> None:
    from diolkos.mx import board

    try:
        board.rename(directory, name)
    except board.BadName as error:
        raise CliError(str(error), code=ExitCode.USAGE) from None
    except OSError as error:
        raise CliError(f"the name cannot be kept: {error.strerror}") from None


def _peers(args: argparse.Namespace) -> _Rows:
    """All that can be reached is on this host, so the table has one row."""
    found = _board(args)
    row = {"kind": "peer", "index": 0, "address": found["address"], "name": found["name"]}
    yield row, f"peer      0: {row['address']}, {row['name']} (this host)"


def _board(args: argparse.Namespace) -> _Row:
    from diolkos.mx import board

    with _directory(args) as directory:
        name = board.name(directory)
    return {"board": board.BOARD, "address": board.address_text(board.nic_id()), "name": name}


@contextlib.contextmanager
def _directory(args: argparse.Namespace) -> Iterator[RuntimeDir | None]:
    from diolkos.backend import paths

    try:
        directory = paths.open_for_client(paths.choose(args.runtime_dir))
    except paths.RuntimeDirError as error:
        raise CliError(str(error), error.hint) from None
    if directory is None:
        yield None
        return
    with directory:
        yield directory


def _look(args: argparse.Namespace) -> Snapshot:
    """One answer of the backend; raises CliError."""
    from diolkos.backend import client, paths

    try:
        return client.query(args.runtime_dir)
    except client.NoBackend as error:
        raise CliError(str(error), error.hint, ExitCode.NO_BACKEND) from None
    except paths.RuntimeDirError as error:
        raise CliError(str(error), error.hint) from None
    except OSError as error:
        raise CliError(f"the backend does not answer: {error}", code=ExitCode.NO_BACKEND) from None


def _look_if_any(args: argparse.Namespace) -> Snapshot | None:
    try:
        return _look(args)
    except CliError as error:
        if error.code is ExitCode.NO_BACKEND:
            return None
        raise


def _command_of(pid: int) -> str | None:
    """The program of a process, None when it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return None
