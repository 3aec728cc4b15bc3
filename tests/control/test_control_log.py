# SPDX-License-Identifier: Apache-2.0
"""The log: bounded in size and rate, whole lines only, never in the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from diolkos.backend import log as log_module
from diolkos.backend.log import LINES_BURST, Log


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_object_with_time_level_and_event(directory: int, tmp_path: Path) -> None:
    log = Log(directory, "log")
    log.info("something", number=3, text='with "quotes"\nand lines')
    log.close()
    (line,) = _lines(tmp_path / "log")
    assert line["level"] == "info"
    assert line["event"] == "something"
    assert line["number"] == 3
    assert line["text"] == 'with "quotes"\nand lines'
    assert str(line["time"]).endswith("+00:00")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_two_files_of_bounded_size(directory: int, tmp_path: Path) -> None:
    log = Log(directory, "log", bytes_max=4096)
    for number in range(1000):
        log.info("line", number=number)
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    assert all((tmp_path / name).stat().st_size <= 4096 for name in ("log", "log.1"))
    numbers = [line["number"] for name in ("log.1", "log") for line in _lines(tmp_path / name)]
    assert numbers == list(range(1000 - len(numbers), 1000))


def test_a_file_of_an_earlier_backend_is_continued(directory: int, tmp_path: Path) -> None:
    for _ in range(2):
        log = Log(directory, "log")
        log.info("started")
        log.close()
    assert len(_lines(tmp_path / "log")) == 2


def test_one_user_cannot_fill_it(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(log_module.time, "monotonic", lambda: clock[0])
    log = Log(directory, "log")
    for _ in range(10_000):
        log.client("warning", "fault", uid=1)
    log.client("warning", "fault", uid=2)
    clock[0] = 3600.0
    log.client("warning", "fault", uid=1)
    log.close()
    lines = _lines(tmp_path / "log")
    assert [line["uid"] for line in lines[:-2]] == [1] * LINES_BURST + [2]
    assert lines[-2]["event"] == "lines suppressed"
    assert lines[-2]["lines"] == 10_000 - LINES_BURST
    assert lines[-1]["uid"] == 1


def test_it_never_follows_a_symbolic_link(directory: int, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "log").symlink_to(target)
    log = Log(directory, "log")
    log.info("lost")
    log.close()
    assert not target.exists()
