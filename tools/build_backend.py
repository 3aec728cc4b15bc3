# SPDX-License-Identifier: Apache-2.0
"""Builds wheels: the libraries for C first, which become a part of the package; then as maturin.

This is the build backend of `pyproject.toml` (PEP 517). A wheel must be whole, so that a library
that cannot be built fails it. Source archives hold sources only.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import maturin
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# A source archive does not keep that it may be executed.
_BUILD_C = Path(__file__).resolve().with_name("build-c")


def _build_libraries() -> None:
    for name in ("mx", "capi"):
        subprocess.run(["bash", _BUILD_C, name], check=True)


def build_wheel(*arguments: Any, **named: Any) -> str:
    """As maturin, with the libraries for C in it."""
    _build_libraries()
    return maturin.build_wheel(*arguments, **named)


def build_editable(*arguments: Any, **named: Any) -> str:
    """As maturin, with the libraries for C in the package's folders."""
    _build_libraries()
    return maturin.build_editable(*arguments, **named)
