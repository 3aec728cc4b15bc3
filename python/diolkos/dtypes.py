# SPDX-License-Identifier: Apache-2.0
"""What programs call the elements of memory: names of NumPy, or letters of `struct`.

The usual names are known here, so that programs without NumPy have them too, and those with it need
not load it for them. Everything else is NumPy's business.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["element"]

# As NumPy's arrays describe themselves to others on 64-bit Linux.
_NAMES = {
    "?": ("b1", "bool"),
    "b": ("i1", "int8"),
    "B": ("u1", "uint8"),
    "h": ("i2", "int16"),
    "H": ("u2", "uint16"),
    "i": ("i4", "int32"),
    "I": ("u4", "uint32"),
    "l": ("i8", "int64", "int"),
    "L": ("u8", "uint64", "uint"),
    "e": ("f2", "float16"),
    "f": ("f4", "float32"),
    "d": ("f8", "float64", "float"),
}

_KNOWN: dict[object, tuple[str, int]] = {
    letter: (letter, struct.calcsize(letter)) for letter in "?cbBhHiIlLqQefd"
}
for _letter, _aliases in _NAMES.items():
    for _name in _aliases:
        _KNOWN[_name] = _KNOWN[_letter]
_KNOWN |= {bool: _KNOWN["?"], int: _KNOWN["l"], float: _KNOWN["d"]}
# Not of `struct`, but of the buffer protocol.
_KNOWN |= dict.fromkeys(("c8", "complex64"), ("Zf", 8))
_KNOWN |= dict.fromkeys(("c16", "complex128", "complex", complex), ("Zd", 16))


def element(dtype: Any) -> tuple[str, int]:
    """Format and length in bytes of an element."""
    try:
        if (known := _KNOWN.get(dtype)) is not None:
            return known
    except TypeError:  # not hashable: a list of fields, say
        pass
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise TypeError(
            f"{dtype!r} is no known type of elements; without NumPy these are the letters of the "
            "struct module and names such as 'f8' or 'float64'"
        ) from None
    described = np.dtype(dtype)
    if described.hasobject:
        raise TypeError(
            "elements that hold references to Python objects mean nothing elsewhere; "
            "send objects with send_object()"
        )
    if described.subdtype is not None:
        raise ValueError(f"{described} is an array by itself; make its shape part of `shape`")
    if described.itemsize == 0:
        raise ValueError(f"elements of {described!r} have no length; say how long they are")
    try:
        # Of two: a single one says nothing of how they are aligned.
        return np.empty(2, described).data.format, described.itemsize
    except (ValueError, BufferError):
        raise ValueError(
            f"{described} cannot be shared as a buffer; use 'i8' or bytes, and view() the array"
        ) from None
