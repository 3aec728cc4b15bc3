# SPDX-License-Identifier: Apache-2.0
"""Writes the man pages of the MX interface: ``python tools/man_pages.py DIRECTORY``.

The text is in `docs/man/mx.txt`, the prototypes come from the headers, so they cannot differ from
what a compiler sees. A page describes several functions; each of the others gets a page that refers
to it.

The text is made of pages, each of which begins with ``page NAME - SUMMARY``. Then come::

    functions: NAME NAME ...       which prototypes it shows; the first is the page's own
    header: FILE                   what a program includes
    see: NAME NAME ...             other pages

and paragraphs, divided by empty lines. A paragraph of lines that begin with a name such as
``MX_BUSY`` and two spaces is a list of results. In a paragraph, ``*word*`` is a name.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "docs" / "man" / "mx.txt"
INCLUDE = ROOT / "python" / "diolkos" / "mx" / "include"

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_PROTOTYPE = re.compile(r"^(?:const char \*|[a-z]\w+ )(o?mx_\w+)\([^;{]*\)(?=;)", re.MULTILINE)
_RESULT = re.compile(r"(O?MX_\w+)  +(.*)")


@dataclass
class Page:
    """One page, as it is written down."""

    name: str
    summary: str
    functions: list[str] = field(default_factory=list)
    header: str = ""
    see: list[str] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)


def prototypes() -> dict[str, str]:
    """Name -> declaration of every function in the headers."""
    found = {}
    for header in sorted(INCLUDE.rglob("*.h")):
        for match in _PROTOTYPE.finditer(_COMMENT.sub("", header.read_text())):
            found[match[1]] = " ".join(match[0].split()) + ";"
    # Macros and inline functions that programs call.
    found["mx_init"] = "mx_return_t mx_init(void);"
    found["omx_init"] = "omx_return_t omx_init(void);"
    return found


def pages(text: str) -> list[Page]:
    """The pages in ``text``."""
    found: list[Page] = []
    for block in re.split(r"^page ", text, flags=re.MULTILINE)[1:]:
        head, *paragraphs = [part.strip("\n") for part in block.strip().split("\n\n")]
        title, *fields = head.splitlines()
        name, summary = title.split(" - ", 1)
        page = Page(name, summary, paragraphs=paragraphs)
        for line in fields:
            key, value = line.split(": ", 1)
            setattr(page, key, value if key == "header" else value.split())
        found.append(page)
    return found


def roff(page: Page, declared: dict[str, str], version: str) -> str:
    """A page in the language of man pages. Raises KeyError for a function without a prototype."""
    lines = [
        f'.\\" SPDX-License-Identifier: Apache-2.0\n.TH {page.name} 3 "" "Diolkos {version}"',
        ".SH NAME",
        f"{', '.join(page.functions)} \\- {page.summary}",
        ".SH SYNOPSIS",
        ".nf",
        f".B #include <{page.header}>",
        ".PP",
        *(
            f'.B "{_escaped(wrapped)}"'
            for name in page.functions
            for wrapped in _wrapped(declared[name])
        ),
        ".fi",
        ".SH DESCRIPTION",
    ]
    results: list[str] = []
    for paragraph in page.paragraphs:
        if _RESULT.match(paragraph):
            results += paragraph.splitlines()
        else:
            lines += [".PP", _names(_escaped(" ".join(paragraph.split())))]
    if results:
        lines.append(".SH RESULTS")
        for result in results:
            match = _RESULT.match(result)
            assert match is not None, f"{page.name}: {result!r} is no result"
            lines += [".TP", f".B {match[1]}", _escaped(match[2])]
    if page.see:
        lines.append(".SH SEE ALSO")
        lines += [f".BR {name} (3)," for name in page.see]
        lines[-1] = lines[-1].removesuffix(",")
    return "\n".join(lines) + "\n"


def _wrapped(declaration: str) -> list[str]:
    """A declaration in lines that fit a terminal, continued by eight blanks."""
    lines, line = [], ""
    for part in re.split(r"(?<=,) ", declaration):
        if line and len(line) + 1 + len(part) > 70:
            lines.append(line)
            line = " " * 8 + part
        else:
            line = f"{line} {part}" if line else part
    return [*lines, line]


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    # A line that begins with one of these would be a request.
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _names(text: str) -> str:
    return re.sub(r"\*(\w[\w()]*)\*", r"\\fI\1\\fP", text)


def write(directory: Path) -> list[Path]:
    """Writes all pages; returns their files."""
    declared, written = prototypes(), []
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    directory.mkdir(parents=True, exist_ok=True)
    for page in pages(TEXT.read_text()):
        for name in dict.fromkeys([page.name, *page.functions]):
            path = directory / f"{name}.3"
            own = name == page.name
            path.write_text(roff(page, declared, version) if own else f".so man3/{page.name}.3\n")
            written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: man_pages.py DIRECTORY")
    write(Path(sys.argv[1]))
