# SPDX-License-Identifier: Apache-2.0
"""``python -m diolkos.c``: prints what a C compiler needs, as pkg-config does."""

from __future__ import annotations

import sys

from diolkos.c import LIBRARY

if __name__ == "__main__":
    sys.exit(
        LIBRARY.main(
            "diolkos.c", "Say where the native C library and its header are, for C compilers."
        )
    )
