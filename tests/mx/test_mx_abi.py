# SPDX-License-Identifier: Apache-2.0
"""The binary interface: names, symbol versions, sonames, and programs that were linked long ago."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from diolkos import mx
from mxprograms import SOURCES, Compiler, Machine, compile_c

VERSIONED = {
    "mx_open_endpoint": "MX_0.9",
    "mx_decompose_endpoint_addr": "MX_0.9",
    "mx_get_info": "MX_0.91",
    "mx_test": "MX_0.91",
    "mx_wait": "MX_0.91",
    "mx_iprobe": "MX_0.91",
    "mx__init_api": "MX_0.92",
}
_FUNCTIONS = """
mx__init_api mx_finalize mx_set_error_handler mx_open_endpoint mx_close_endpoint mx_wakeup
mx_disable_progression mx_reenable_progression mx_isend mx_issend mx_irecv mx_cancel mx_test mx_wait
mx_test_any mx_wait_any mx_ipeek mx_peek mx_iprobe mx_probe mx_ibuffered mx_context mx_get_info
mx_hostname_to_nic_id mx_board_number_to_nic_id mx_nic_id_to_board_number mx_nic_id_to_hostname
mx_connect mx_decompose_endpoint_addr mx_get_endpoint_addr mx_strerror mx_strstatus
mx_register_unexp_callback mx_iput mx_iget mx_buffered mx_iconnect mx_disconnect
mx_register_unexp_handler mx_forget mx_progress mx_set_endpoint_addr_context
mx_get_endpoint_addr_context mx_set_request_timeout mx_decompose_endpoint_addr2 mx_raw_handle
mx_raw_open_endpoint mx_raw_close_endpoint mx_raw_send mx_raw_next_event mx_raw_set_route_begin
mx_raw_set_route_end mx_raw_set_route_mag mx_raw_set_route mx_raw_clear_routes mx_raw_remove_peer
mx_raw_set_map_version mx_raw_num_ports mx_raw_line_speed mx_raw_set_hostname mx_raw_set_peer_name
mx_raw_set_nic_reply_info mx_open_board mx__get_mapper_state mx__regcache_clean
"""
FUNCTIONS = _FUNCTIONS.split()
DATA = ["MX_ERRORS_ARE_FATAL", "MX_ERRORS_RETURN"]
NATIVE_DATA = ["OMX_ERRORS_ARE_FATAL", "OMX_ERRORS_RETURN"]


def readelf(*words: str) -> str:
    command = ["readelf", "--wide", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def exported(library: Path) -> dict[str, tuple[str, str]]:
    """Name -> type and version (with its at signs) of each dynamic symbol that is defined."""
    found = {}
    for line in readelf("--dyn-syms", str(library)).splitlines():
        words = line.split()
        if len(words) >= 8 and words[0][:-1].isdecimal() and words[6] != "UND":
            name, at, version = words[7].partition("@")
            found[name] = (words[3], at + version)
    return found


@pytest.fixture
def library(library_dir: Path) -> Path:
    return library_dir / mx.LIBRARY_NAMES[0]


def test_the_list_of_names_is_whole() -> None:
    assert len(FUNCTIONS) == 65


def test_exported_functions_and_data(library: Path) -> None:
    symbols = exported(library)
    for name in FUNCTIONS:
        assert symbols.get(name, ("missing", ""))[0] == "FUNC", name
    for name in DATA + NATIVE_DATA:
        assert symbols.get(name, ("missing", ""))[0] == "OBJECT", name
    ours = {name for name in symbols if re.match(r"mx_|MX_ERRORS", name)}
    assert ours == {*FUNCTIONS, *DATA}


def test_exported_native_functions(library: Path) -> None:
    header = (mx.include_dir() / "open-mx.h").read_text()
    declared = set(re.findall(r"^[\w ]+[ *](omx__?\w+)\(", header, re.MULTILINE)) - {"omx_init"}
    assert len(declared) > 40
    assert not declared - exported(library).keys()


def test_nothing_else_is_exported(library: Path) -> None:
    """Names of Rust, or of libraries inside, must not get into programs."""
    strange = [
        name
        for name, (kind, _) in exported(library).items()
        if not re.match(r"o?mx_|O?MX_", name) and kind in ("FUNC", "OBJECT", "TLS")
    ]
    assert not strange


def test_symbol_versions(library: Path) -> None:
    symbols = exported(library)
    for name in FUNCTIONS:
        wanted = f"@@{VERSIONED[name]}" if name in VERSIONED else ""
        assert symbols[name][1] == wanted, name
    text = readelf("--version-info", str(library))
    nodes = dict(re.findall(r"Flags: .*?Cnt: (\d)\s+Name: (MX_[\d.]+)", text))
    names = set(nodes.values())
    assert {"MX_0.0", "MX_0.9", "MX_0.91", "MX_0.92"} <= names | set(
        re.findall(r"Name: (MX_[\d.]+)", text)
    )


def test_it_is_reachable_under_every_name(library_dir: Path) -> None:
    files = {(library_dir / name).resolve() for name in mx.LIBRARY_NAMES}
    assert len(files) == 1
    (file,) = files
    dynamic = readelf("--dynamic", str(file))
    assert "(SONAME)" in dynamic
    # Nothing is needed that a bare system lacks; Python least of all.
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert all(re.match(r"lib(c|m|gcc_s|pthread|dl|rt)\.so|ld-linux", name) for name in needed)
    assert "TEXTREL" not in dynamic


def test_everything_links(compiler: Compiler) -> None:
    program = compiler.program(SOURCES / "everything.c")
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


STUB_NODES = """
MX_0.0 { };
MX_0.9 { global: mx_open_endpoint; mx_decompose_endpoint_addr; };
MX_0.91 { global: mx_get_info; mx_test; mx_wait; mx_iprobe; } MX_0.9;
MX_0.92 { global: mx__init_api; } MX_0.91;
"""


def stub(directory: Path, soname: str, *, versions: bool) -> Path:
    """A library with all names and nothing in them, as an old one looked to the linker."""
    source = directory / "stub.c"
    functions = "".join(f"void {name}(void) {{}}\n" for name in FUNCTIONS)
    source.write_text(functions + "".join(f"void *{name};\n" for name in DATA))
    library = directory / "libmyriexpress.so"
    command = ["cc", "-shared", "-fPIC", str(source), "-o", str(library)]
    if soname:
        command.append(f"-Wl,-soname,{soname}")
    if versions:
        script = directory / "stub.map"
        script.write_text(STUB_NODES)
        command.append(f"-Wl,--version-script={script}")
    compile_c(command)
    return library


@pytest.mark.slow
@pytest.mark.parametrize(
    ("soname", "versions"),
    [("libmyriexpress.so", True), ("libopen-mx.so.0", True), ("libmyriexpress.so", False)],
)
def test_a_program_linked_against_an_older_library_runs(
    machine: Machine, library_dir: Path, tmp_path: Path, soname: str, versions: bool
) -> None:
    """Linked against a library of other makers with these names and versions, and never rebuilt."""
    old = stub(tmp_path, soname, versions=versions)
    program = tmp_path / "old"
    source, include = str(SOURCES / "unexpected.c"), f"-I{mx.include_dir()}"
    compile_c(
        ["cc", "-std=gnu11", "-O1", "-pthread", include, source, "-o", str(program), str(old)]
    )
    needed = readelf("--dynamic", str(program))
    assert f"[{soname}]" in needed
    if versions:
        assert {"MX_0.9", "MX_0.91", "MX_0.92"} <= set(
            re.findall(r"Name: (MX_[\d.]+)", readelf("--version-info", str(program)))
        )
    old.unlink()
    process = machine.start([program], {"LD_LIBRARY_PATH": str(library_dir)})
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    # The loader has nothing to complain of either.
    assert "version" not in errors


def test_a_layout_of_the_headers_is_what_the_library_fills(machine: Machine) -> None:
    """Statuses are filled to the byte and not beyond: the programs check each member, this one the
    size, with a guard behind."""
    source = machine.session_dir / "guard.c"
    source.write_text(
        """
        #include "check.h"
        int main(void)
        {
            struct { mx_status_t status; unsigned char guard[64]; } probed;
            mx_request_t send;
            uint32_t result;
            mx_endpoint_t ep;
            begin();
            ep = open_any();
            memset(&probed, 0x5a, sizeof probed);
            send = send_bytes(ep, own_address(ep), "x", 1, 1);
            OK(mx_probe(ep, MX_INFINITE, 1, MX_MATCH_MASK_NONE, &probed.status, &result));
            done(ep, receive_bytes(ep, &result, 1, 1, MX_MATCH_MASK_NONE));
            OK(mx_wait(ep, &send, MX_INFINITE, &probed.status, &result));
            for (size_t i = 0; i < sizeof probed.guard; i++)
                EQUAL(probed.guard[i], 0x5a);
            end(ep);
            return 0;
        }
        """.replace("check.h", str(SOURCES / "check.h"))
    )
    machine.run(source)
