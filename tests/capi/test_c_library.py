# SPDX-License-Identifier: Apache-2.0
"""The header, the symbols of the library, and where both are installed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cprograms import SOURCES, compile_c
from diolkos import c

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/diolkos"
STRICT = ["-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wundef"]
STANDARDS = {
    "cc": ("c89", "c99", "c11", "c17", "c2x", "gnu89", "gnu17"),
    "c++": ("c++98", "c++11", "c++14", "c++17", "c++20", "c++23"),
}


def header_text() -> str:
    text = (c.include_dir() / "diolkos.h").read_text()
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("compiler", "standard"),
    [(compiler, standard) for compiler in STANDARDS for standard in STANDARDS[compiler]],
)
def test_every_standard_takes_the_header(compiler: str, standard: str, tmp_path: Path) -> None:
    source = tmp_path / ("program.c" if compiler == "cc" else "program.cc")
    use = "dio_options something = DIO_OPTIONS_INIT;\n"
    source.write_text("#include <diolkos.h>\n#include <diolkos.h>\n" + use)
    command = [compiler, f"-std={standard}", *STRICT, c.cflags(), "-fsyntax-only", str(source)]
    compile_c(command)


def test_layouts_are_those_of_the_library(tmp_path: Path) -> None:
    sizes = {"dio_status": 40, "dio_options": 56, "dio_counters_t": 72, "dio_arena_t": 40}
    sizes["dio_key"] = 40
    checks = [
        f"typedef char check_{name}[sizeof({name}) == {size} ? 1 : -1];\n"
        for name, size in sizes.items()
    ]
    source = tmp_path / "program.c"
    source.write_text("#include <diolkos.h>\n" + "".join(checks) + "int something;\n")
    compile_c(["cc", c.cflags(), "-fsyntax-only", str(source)])


def test_the_library_has_the_functions_of_the_header_and_no_others() -> None:
    command = ["nm", "-D", "--defined-only", str(c.library_dir() / "libdiolkos.so.1")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    symbols = {line.split()[-1] for line in text.splitlines()}
    assert symbols == set(re.findall(r"\b(dio_\w+)\(", header_text()))
    assert len(symbols) > 50


def test_every_code_has_the_number_of_the_library() -> None:
    numbers = dict(re.findall(r"\bDIO_(\w+) = (\d+)", header_text()))
    rust = (ROOT / "crates" / "capi" / "src" / "codes.rs").read_text()
    assert numbers == dict(re.findall(r"const (\w+): Code = (\d+);", rust))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for `/` in which all was installed."""
    if not (ROOT / "python" / "diolkos" / "mx" / "lib").is_dir():
        pytest.skip("the MX library, which is installed as well, was not built")
    destination = tmp_path_factory.mktemp("installed")
    words = [f"DESTDIR={destination}", f"PREFIX={PREFIX}", f"C_LIB={c.library_dir()}"]
    command = ["make", "-s", "install-files", *words, f"PYTHON={sys.executable}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return destination


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="there is no pkg-config")
@pytest.mark.parametrize("words", [["--libs"], ["--libs", "--static"]])
def test_a_program_is_built_with_pkg_config(
    words: list[str], installed: Path, tmp_path: Path
) -> None:
    lib = installed / PREFIX.lstrip("/") / "lib"
    environment = {
        **os.environ,
        "PKG_CONFIG_PATH": str(lib / "pkgconfig"),
        "PKG_CONFIG_SYSROOT_DIR": str(installed),
    }
    command = ["pkg-config", "--cflags", *words, "diolkos"]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    flags = shlex.split(told.stdout)
    if "--static" in words:
        flags = [str(lib / "libdiolkos.a") if flag == "-ldiolkos" else flag for flag in flags]
    program = tmp_path / "version"
    source = tmp_path / "version.c"
    source.write_text(
        "#include <diolkos.h>\n#include <stdio.h>\n"
        "int main(void) { puts(dio_version()); return dio_api_version() != 0x10000; }\n"
    )
    compile_c(["cc", str(source), "-o", str(program), *flags])
    path = {"LD_LIBRARY_PATH": str(lib)} if "--static" not in words else {}
    done = subprocess.run(
        [program], env={**os.environ, **path}, check=True, capture_output=True, text=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_the_command_line_says_where_things_are() -> None:
    command = [sys.executable, "-m", "diolkos.c", "--cflags", "--libs"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told == f"{c.cflags()} {c.libs()}\n"
    assert (SOURCES / "check.h").is_file()
