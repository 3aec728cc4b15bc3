# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that no linter knows (CONTRIBUTING.md, "House rules").

Everything here reads the files that git would commit, so it sees what a reader sees. A rule that
is broken on purpose is named in a table beside the rule, with the reason.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Which crates a crate may depend on. The edges point one way: the protocol never learns of memory
# or sockets, and the doors see the Rust API only (the Python door also carries the relay).
EDGES = {
    "diolkos-shm": set(),
    "diolkos-proto": set(),
    "diolkos-island": {"diolkos-shm"},
    "diolkos-switch": {"diolkos-island", "diolkos-shm"},
    "diolkos": {"diolkos-island", "diolkos-proto", "diolkos-shm"},
    "diolkos-python": {"diolkos", "diolkos-switch"},
    "diolkos-mx": {"diolkos", "diolkos-island", "diolkos-shm"},
    "diolkos-capi": {"diolkos"},
}

# Crates that may hold unsafe code; all others forbid it.
UNSAFE_CRATES = {"shm", "python", "mx", "capi"}

# Code that may hold no unsafe, but whose tests lend buffers and act as hostile peers.
UNSAFE_TESTS = ("crates/diolkos/tests/", "crates/switch/src/relay/tests", "fuzz/src/")

COLUMNS_MAX = 100
# Comments are broken by hand, and may be a word longer.
COMMENT_COLUMNS_MAX = 110
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 1000
# How far above an `unsafe` its proof may begin.
PROOF_LINES = 12

MARKERS = re.compile(r"\b(TODO|FIXME|XXX|HACK|todo!|unimplemented!|dbg!)(?=\W|$)")
MACHINE_PATHS = re.compile(r"/root/|/work/|/home/\w|index\.crates\.io|pypi\.org/simple")


def committed_files() -> list[Path]:
    """Every file that git tracks, or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for line in listed.splitlines() if (path := ROOT / line).is_file()]


FILES = committed_files()
RUST = [path for path in FILES if path.suffix == ".rs"]
PYTHON = [path for path in FILES if path.suffix in (".py", ".pyi")]
PROSE = [path for path in FILES if path.suffix == ".md"]
OTHER_CODE = [path for path in FILES if path.suffix in (".c", ".h", ".toml", ".supp")]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_there_is_something_to_look_at() -> None:
    assert min(len(RUST), len(PYTHON)) > 30
    assert len(PROSE) > 5


def test_dependencies_point_one_way() -> None:
    command = ["cargo", "metadata", "--offline", "--no-deps", "--format-version", "1"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    packages = json.loads(text)["packages"]
    ours = {package["name"] for package in packages}
    assert ours == set(EDGES), "a crate that the table of edges does not know"
    for package in packages:
        edges = {
            dependency["name"]
            for dependency in package["dependencies"]
            if dependency["name"] in ours and dependency["kind"] != "dev"
        }
        extra = edges - EDGES[package["name"]]
        assert not extra, f"{package['name']} must not depend on {sorted(extra)}"


def test_unsafe_code_is_forbidden_where_it_is_not_needed() -> None:
    for source in sorted(ROOT.glob("crates/*/src/lib.rs")):
        crate = source.parts[-3]
        forbids = "#![forbid(unsafe_code)]" in lines(source)
        assert forbids != (crate in UNSAFE_CRATES), name(source)


def strip_comments_and_strings(line: str) -> str:
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    return line.split("//")[0]


@pytest.mark.parametrize("path", RUST, ids=name)
def test_every_unsafe_has_its_proof(path: Path) -> None:
    text = lines(path)
    for number, line in enumerate(text):
        code = strip_comments_and_strings(line)
        if not re.search(r"\bunsafe\b(?!_)", code):
            continue
        if re.search(r'#\[unsafe\(|\bunsafe extern "" (fn\(|\{)', code):
            # An exported name, a type, or a list of foreign functions: nothing is done here.
            continue
        crate = name(path).split("/")[1]
        allowed = crate in UNSAFE_CRATES or name(path).startswith(UNSAFE_TESTS)
        assert allowed, f"{name(path)}:{number + 1}: unsafe code has no business here"
        declares = re.search(r"\bunsafe (extern \"\" )?fn\b", code)
        if declares and not code.lstrip().startswith("pub"):
            # Called by this file alone, or by an interpreter: what it does is proved inside.
            continue
        # The contract of an unsafe function stands in its documentation.
        proof = "# Safety" if declares else "SAFETY:"
        above = "\n".join(text[max(0, number - PROOF_LINES) : number + 1])
        assert proof in above, f"{name(path)}:{number + 1}: unsafe without `{proof}`"


def test_unsafe_files_are_listed() -> None:
    rules = (ROOT / "crates/shm/SAFETY.md").read_text(encoding="utf-8")
    listed = rules.split("## Where the unsafe code is")[1]
    for path in RUST:
        if not name(path).startswith("crates/shm/src/") or "test" in name(path):
            continue
        code = "\n".join(strip_comments_and_strings(line) for line in lines(path))
        own = code.split("#[cfg(all(test")[0]
        has_unsafe = re.search(r"\bunsafe\b", own) is not None
        short = name(path).removeprefix("crates/shm/src/")
        assert has_unsafe == (f"`{short}`" in listed), f"SAFETY.md and {short} disagree"


@pytest.mark.parametrize("path", RUST + PYTHON + OTHER_CODE, ids=name)
def test_licence_line(path: Path) -> None:
    head = lines(path)[:3]
    if path.suffix in (".toml",) and path.name not in ("Cargo.toml", "pyproject.toml"):
        return
    if path.name == "Cargo.toml" and path.parent != ROOT / "fuzz":
        # The workspace's manifests say it with their `license` field.
        assert any(line.startswith("license") for line in lines(path)), name(path)
        return
    if path.name == "pyproject.toml":
        return
    assert any("SPDX-License-Identifier: Apache-2.0" in line for line in head), name(path)


@pytest.mark.parametrize("path", RUST + PYTHON + OTHER_CODE, ids=name)
def test_lines_fit_and_files_can_be_read(path: Path) -> None:
    text = lines(path)
    assert len(text) <= FILE_LINES_MAX, f"{name(path)} has {len(text)} lines"
    if path.suffix == ".toml":
        return
    for number, line in enumerate(text, 1):
        is_comment = line.lstrip().startswith(("//", "#", "*"))
        columns = COMMENT_COLUMNS_MAX if is_comment else COLUMNS_MAX
        # An address cannot be broken.
        assert len(line) <= columns or "://" in line, f"{name(path)}:{number}: too long"


def rust_functions(text: list[str]) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of each function; relies on the formatter's indentation."""
    pattern = re.compile(r'^(\s*)(pub(\([a-z: ]+\))? )?((const|unsafe|extern "C") )*fn (\w+)')
    for first, line in enumerate(text):
        found = pattern.match(line)
        if not found:
            continue
        closing = found.group(1) + "}"
        for last in range(first, len(text)):
            if text[last] == closing or (last == first and text[last].endswith("}")):
                yield found.group(6), first + 1, last - first + 1
                break
            if (
                last > first
                and text[last].endswith(";")
                and text[last].startswith(found.group(1) + ")")
            ):
                break


@pytest.mark.parametrize("path", RUST, ids=name)
def test_rust_functions_fit_a_screen(path: Path) -> None:
    for function, first, length in rust_functions(lines(path)):
        assert length <= FUNCTION_LINES_MAX, f"{name(path)}:{first}: {function}, {length} lines"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_functions_fit_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            place = f"{name(path)}:{node.lineno}: {node.name}, {length} lines"
            assert length <= FUNCTION_LINES_MAX, place


@pytest.mark.parametrize("path", RUST + PYTHON + OTHER_CODE + PROSE, ids=name)
def test_nothing_is_left_over(path: Path) -> None:
    if path == Path(__file__).resolve():
        return
    for number, line in enumerate(lines(path), 1):
        assert not MARKERS.search(line), f"{name(path)}:{number}: {line.strip()}"
        assert not MACHINE_PATHS.search(line), f"{name(path)}:{number}: {line.strip()}"


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        assert (path.parent / target).exists(), f"{name(path)} links to {target}"


def test_no_two_test_files_have_one_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, "pytest imports test files by their names"


def test_documents_name_tests_that_exist() -> None:
    """A claim that names a test must name one that is there."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in RUST + PYTHON)
    known = set(re.findall(r"(?:fn|def) (\w+)", code))
    for path in [*PROSE, *RUST]:
        for quoted in re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8")):
            module = any(other.stem == quoted for other in PYTHON)
            assert quoted in known or module, f"{name(path)} names `{quoted}`"
