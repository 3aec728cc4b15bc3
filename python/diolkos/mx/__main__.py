# SPDX-License-Identifier: Apache-2.0
"""``python -m diolkos.mx``: prints what a C compiler needs, as pkg-config does."""

from __future__ import annotations

import sys

from diolkos.mx import LIBRARY

if __name__ == "__main__":
    sys.exit(
        LIBRARY.main("diolkos.mx", "Say where the MX library and its headers are, for C compilers.")
    )
