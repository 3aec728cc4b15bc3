# SPDX-License-Identifier: Apache-2.0
"""The headers compile without a warning in every version of C and C++, each on its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from diolkos import mx
from mxprograms import compile_c

HEADERS = sorted(str(path.relative_to(mx.include_dir())) for path in mx.include_dir().rglob("*.h"))
STANDARDS = {
    "cc": ("c89", "c99", "c11", "c17", "c2x", "gnu89", "gnu17"),
    "c++": ("c++98", "c++11", "c++14", "c++17", "c++20", "c++23"),
}
STRICT = ["-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wundef"]


def source_of(directory: Path, text: str, compiler: str) -> Path:
    source = directory / ("program.c" if compiler == "cc" else "program.cc")
    source.write_text(text)
    return source


def test_all_headers_are_there() -> None:
    assert HEADERS == [
        "mx_extensions.h",
        "mx_internals/mx__driver_interface.h",
        "mx_internals/mx__fops.h",
        "mx_io.h",
        "mx_raw.h",
        "myriexpress.h",
        "open-mx.h",
    ]


@pytest.mark.parametrize(
    ("compiler", "standard"),
    [(compiler, standard) for compiler in STANDARDS for standard in STANDARDS[compiler]],
)
def test_every_standard_takes_them(compiler: str, standard: str, tmp_path: Path) -> None:
    together = "".join(f"#include <{header}>\n" for header in HEADERS * 2)
    source = source_of(tmp_path, together + "int something;\n", compiler)
    include = f"-I{mx.include_dir()}"
    compile_c([compiler, f"-std={standard}", *STRICT, include, "-fsyntax-only", str(source)])


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("compiler", STANDARDS)
def test_each_header_stands_alone(header: str, compiler: str, tmp_path: Path) -> None:
    source = source_of(tmp_path, f"#include <{header}>\nint something;\n", compiler)
    include = f"-I{mx.include_dir()}"
    compile_c([compiler, *STRICT, include, "-fsyntax-only", str(source)])


def test_a_wrong_layout_does_not_compile(tmp_path: Path) -> None:
    """The assertions of the headers are awake: packed structures are refused."""
    text = "#include <stdint.h>\n#pragma pack(push, 1)\n#include <myriexpress.h>\nint something;\n"
    source = source_of(tmp_path, text, "cc")
    command = ["cc", f"-I{mx.include_dir()}", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "mx__assert_param_size" in done.stderr


# Name -> value, from the interface that programs were compiled against.
CONSTANTS = {
    "MX_API": 0x301,
    "MX_MAX_STR_LEN": 128,
    "MX_SIZEOF_ADDR": 16,
    "MX_ANY_NIC": 0xFFFFFFFF,
    "MX_ANY_ENDPOINT": 0xFFFFFFFF,
    "MX_INFINITE": 0,
    "MX_MAX_SEGMENTS": 256,
    "MX_MATCH_MASK_NONE": 2**64 - 1,
    "MX_MAX_HOSTNAME_LEN": 80,
    "MX_CONTEXT_ID_BITS_MAX": 16,
    "MX_HAS_ICONNECT_V2": 1,
    "MX_RAW_POLL_SUPPORTED": 1,
    "MX_SET_ROUTE_TAKES_MAGID": 1,
    "MX_HAS_RAW_LINE_SPEED": 1,
    "MX_HAS_RAW_SET_NIC_REPLY_INFO": 1,
    "MX__INVALID_HANDLE + 1": 0,
    "MX_U32(0x123456789abcdef0)": 0x12345678,
    "MX_L32(0x123456789abcdef0)": 0x9ABCDEF0,
    "MX_BAD_SEG_CNT": 12,
    "MX_BUSY": 20,
    "MX_BAD_INFO_KEY": 21,
    "MX_HOST_NOT_FOUND": 28,
    "MX_TIMEOUT": 30,
    "MX_CONNECTION_FAILED": 33,
    "MX_NIC_NOT_FOUND": 36,
    "MX_CLOSE_IN_HANDLER": 41,
    "MX_NOT_SUPPORTED_WITH_CONTEXT_ID": 43,
    "MX_STATUS_TRUNCATED": 5,
    "MX_STATUS_ENDPOINT_UNREACHABLE": 9,
    "MX_STATUS_NO_RESOURCES": 16,
    "MX_PARAM_CONTEXT_ID": 2,
    "MX_SPEED_OPEN_MX": 2,
    "MX_NET_ETHER": 1,
    "MX_RECV_FINISHED": 1,
    "MX_NIC_COUNT": 1,
    "MX_COUNTERS_VALUES": 7,
    "MX_COPY_SEND_MAX": 13,
    "MX_LINE_SPEED": 16,
    "MX_RAW_RECV_COMPLETE": 2,
    "MX_DEAD_PCI_MASTER_ABORT": 17,
    "MX_HOST_MXvM": 4,
    "OMX_TIMEOUT_INFINITE": 0xFFFFFFFF,
    "OMX_HOSTNAMELEN_MAX": 80,
    "OMX_BOARD_ADDR_STRLEN": 18,
    "OMX_REMOTE_ENDPOINT_UNREACHABLE": 92,
    "OMX_MESSAGE_TRUNCATED": 95,
    "OMX_NOT_IMPLEMENTED": 99,
    "OMX_INFO_COUNTER_LABEL": 9,
}


def test_constants_have_their_values(tmp_path: Path) -> None:
    checks = [
        f"typedef char check_{number}[((uint64_t)({name}) == {value}ULL) ? 1 : -1];"
        for number, (name, value) in enumerate(CONSTANTS.items())
    ]
    includes = "".join(f"#include <{header}>\n" for header in HEADERS)
    source = source_of(tmp_path, includes + "\n".join(checks) + "\n", "cc")
    compile_c(["cc", f"-I{mx.include_dir()}", "-fsyntax-only", str(source)])


def test_the_feature_macro_without_a_value_is_defined(tmp_path: Path) -> None:
    text = "#include <myriexpress.h>\n#ifndef MX_HAS_NET_TYPE\n#error\n#endif\nint something;\n"
    source = source_of(tmp_path, text, "cc")
    compile_c(["cc", f"-I{mx.include_dir()}", "-fsyntax-only", str(source)])
