# SPDX-License-Identifier: Apache-2.0
"""`make install`: library, headers, pkg-config file, man pages, where C programs look for them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diolkos import mx
from mxprograms import SOURCES, compile_c

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/diolkos"


@pytest.fixture(scope="module")
def installed(library_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for `/` in which all was installed."""
    destination = tmp_path_factory.mktemp("installed")
    words = [f"DESTDIR={destination}", f"PREFIX={PREFIX}", f"MX_LIB={library_dir}"]
    command = ["make", "-s", "install-files", *words, f"PYTHON={sys.executable}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return destination


def test_everything_is_in_its_place(installed: Path) -> None:
    prefix = installed / PREFIX.lstrip("/")
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    headers = {
        f"include/{path.relative_to(mx.include_dir())}" for path in mx.include_dir().rglob("*.h")
    }
    libraries = {f"lib/{name}" for name in mx.LIBRARY_NAMES}
    pages = {name for name in files if name.startswith("share/man/man3/")}
    # Installed beside it: `tests/capi` looks at that.
    native = {name for name in files if "diolkos" in name}
    assert files - native == headers | libraries | pages | {"lib/pkgconfig/myriexpress.pc"}
    assert "share/man/man3/mx_isend.3" in pages
    for name in mx.LIBRARY_NAMES[::2]:
        assert os.readlink(prefix / "lib" / name) == "libopen-mx.so.0"
    # Nothing outside of the prefix, and nothing that says where it was staged.
    assert [path.name for path in installed.iterdir()] == ["opt"]
    assert str(installed) not in (prefix / "lib/pkgconfig/myriexpress.pc").read_text()


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="there is no pkg-config")
def test_a_program_is_built_with_pkg_config(installed: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PKG_CONFIG_PATH": str(installed / PREFIX.lstrip("/") / "lib/pkgconfig"),
        "PKG_CONFIG_SYSROOT_DIR": str(installed),
    }

    def ask(*words: str) -> str:
        command = ["pkg-config", *words, "myriexpress"]
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert re.fullmatch(r"\d+\.\d+\.\d+", ask("--modversion"))
    flags = shlex.split(ask("--cflags", "--libs"))
    program = tmp_path / "everything"
    compile_c(["cc", str(SOURCES / "everything.c"), "-o", str(program), *flags])
    path = {"LD_LIBRARY_PATH": str(installed / PREFIX.lstrip("/") / "lib")}
    assert subprocess.run([program], env={**os.environ, **path}, check=False).returncode == 0


def test_every_function_has_a_man_page(installed: Path) -> None:
    man = installed / PREFIX.lstrip("/") / "share/man/man3"
    text = "".join(path.read_text() for path in mx.include_dir().rglob("*.h"))
    functions = set(re.findall(r"\b(o?mx_\w+)\(", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)))
    assert len(functions) > 100
    assert {path.stem for path in man.iterdir()} >= functions | {"mx_init", "omx_init"}
    for path in man.iterdir():
        referred = re.match(r"\.so man3/(\S+)\n", path.read_text())
        assert referred is None or (man / referred[1]).is_file(), path.name


@pytest.mark.skipif(
    shutil.which("man") is None or shutil.which("groff") is None, reason="there is no man"
)
def test_man_pages_are_without_fault(installed: Path) -> None:
    man = installed / PREFIX.lstrip("/") / "share/man/man3"
    shown = ""
    for path in sorted(man.iterdir()):
        if path.read_text().startswith(".so"):
            continue
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(path)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        )
        assert (done.returncode, done.stderr) == (0, ""), path.name
        shown += done.stdout
    assert len(shown) > 10000
    # The links among them lead somewhere.
    for path in man.iterdir():
        for name in re.findall(r"^\.BR (\w+) \(3\)", path.read_text(), re.MULTILINE):
            assert (man / f"{name}.3").is_file(), f"{path.name} refers to {name}"


def test_man_pages_name_results_that_exist() -> None:
    headers = "".join(path.read_text() for path in mx.include_dir().rglob("*.h"))
    text = (ROOT / "docs" / "man" / "mx.txt").read_text()
    for name in re.findall(r"\bO?MX_[A-Z0-9_]+", text):
        assert re.search(rf"\b{name}\b", headers) or name == "MX_MONOTHREAD", name
