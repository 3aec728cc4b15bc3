# SPDX-License-Identifier: Apache-2.0
"""`python -m diolkos` is the command `diolkos`."""

import sys

from diolkos.cli import main

sys.exit(main())
