# SPDX-License-Identifier: Apache-2.0
"""Rows as a picture: size against latency (or rate, or bandwidth), one line a contender.

matplotlib is imported when a picture is wanted, and draws without a display.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diolkos.bench.table import size_text

Row = dict[str, Any]

#: Ours are thick and warm, a colour for each face; rivals are thin and cool. The eye finds the
#: comparison first.
_OURS = {"python": "#c1121f", "native": "#e07a1f", "asyncio": "#b5179e"}
_RIVALS = (
    *("#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#7f7f7f"),
    *("#4b5d16", "#000080", "#e377c2", "#00876c", "#5c4d7d"),
)
_RIVAL_MARKERS = "osv^D<>PX*ph"

_AXES = {
    "pingpong": ("half round trip, median (µs)", lambda row: row["half_rtt_us"]["p50"]),
    "rdma": ("one operation, median (µs)", lambda row: row["operation_us"]["p50"]),
    "loan": ("half round trip, median (µs)", lambda row: row["half_rtt_us"]["p50"]),
    "stream": ("bandwidth (MB/s)", lambda row: row["MBps"]),
    "rate": ("messages a second", lambda row: row["msgs_per_s"]),
}


class PlotError(Exception):
    """The picture cannot be drawn; the text says what is missing."""


def check() -> None:
    """Raises :class:`PlotError` when matplotlib is missing: before the run, not after it."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise PlotError("--plot needs matplotlib: pip install matplotlib") from error


def draw(rows: Sequence[Row], machine: Row, path: Path) -> None:
    """Draws the rows of one kind of benchmark to ``path``; its suffix chooses the format.

    Raises :class:`PlotError` when there is nothing to draw, OSError when it cannot be written.
    """
    drawn = [row for row in rows if row["bench"] in _AXES]
    if not drawn:
        raise PlotError("there are no results to draw")
    check()
    figures: Any = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.add_subplot()
    label, value_of = _AXES[drawn[0]["bench"]]
    _draw_lines(axes, drawn, value_of)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    sizes = sorted({row["size"] for row in drawn if row["size"] > 0})
    axes.set_xticks(sizes, [size_text(size) for size in sizes], rotation=30, ha="right")
    axes.minorticks_off()
    axes.set_xlabel("size")
    axes.set_ylabel(label)
    axes.set_title("Between two processes of one host")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.text(0.01, -0.01, _caption(machine), fontsize=8, color="#444444", va="top")
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.2)


def _draw_lines(axes: Any, rows: Sequence[Row], value_of: Any) -> None:
    faces = {row["face"] for row in rows}
    names = list(dict.fromkeys((row["contender"], row["face"]) for row in rows))
    ours = [name for name in names if name[0].startswith("diolkos")]
    rivals = [name for name in names if name not in ours]
    for contender, face in ours + rivals:
        points = sorted(
            (row["size"], value_of(row))
            for row in rows
            if (row["contender"], row["face"]) == (contender, face) and row["size"] > 0
        )
        if not points:
            continue
        style: dict[str, Any]
        if contender == "diolkos":
            style = {"linewidth": 3.0, "marker": "o", "markersize": 5, "zorder": 3}
        elif (contender, face) in ours:  # over the plain line, which it mostly covers
            style = {"linewidth": 1.4, "linestyle": "--", "marker": "|", "zorder": 4}
        else:
            number = rivals.index((contender, face))
            style = {"color": _RIVALS[number % len(_RIVALS)], "linewidth": 1.2, "markersize": 5}
            style |= {"marker": _RIVAL_MARKERS[number % len(_RIVAL_MARKERS)]}
        if (contender, face) in ours:
            style["color"] = _OURS[face] if contender == "diolkos" else "black"
        label = f"{contender} ({face})" if len(faces) > 1 else contender
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _caption(machine: Row) -> str:
    first, second = machine["pinning"]
    busy = "" if machine["believable"] else f"\nToo busy to believe: {'; '.join(machine['doubts'])}"
    return (
        f"{machine['machine']}, {machine['cpus']} processors, Linux {machine['kernel']}; "
        f"sides pinned to processors {first} and {second}.\n{machine['command']}{busy}"
    )
