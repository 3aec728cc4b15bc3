# SPDX-License-Identifier: Apache-2.0
"""The two sides of a contender: the programs that the coordinator starts.

``python -m diolkos.bench.sides WORKER OPTIONS`` is one side of a contender in Python; the C sides
are in ``native/``. Workers are imported by name and late, so that a side loads its own library
and no other.
"""
