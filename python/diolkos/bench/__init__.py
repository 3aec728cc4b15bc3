# SPDX-License-Identifier: Apache-2.0
"""Comparing message-passing libraries on a machine that will not hold still.

The commands ``diolkos pingpong``, ``stream``, ``rate``, ``rdma`` and ``loan``. How a comparison is
made fair::

    coordinator ------------------------------------------- one process, asleep during slices
      |  control sockets (control)        |
      |                                   |
    contender A: side 0, side 1         contender B: side 0, side 1         ...
      pinned to processors 0 and 1        the same two processors

    one slice of A, one slice of B, one probe of the machine, one slice of B, one slice of A, ...

- All contenders are up for the whole run. All but one sleep, outside their libraries.
- Ratios come from adjacent slices only (``slices``).
- The loops around every Python library are compiled from one text (``sides.loops``), those around
  every MPI library from one C file (``native``), and both do what our native loop does. One-sided
  operations (``sides.one_sided``) and loans (``sides.lending``) have texts of their own.
- Contents are verified on a pass of their own; timed passes check a word.
- Every run says on what machine it ran and whether to believe it (``machine``).
- Nothing is left behind: no process, no file, no segment (``processes``).

Modules, from the bottom: ``slices`` (pure arithmetic), ``control`` (packets), ``processes``,
``contenders`` (who, and how to start them) and ``sides`` (what runs in their processes),
``running`` (one contender that is up), ``taking`` and ``coordinator`` (turns), ``rows``, ``table``
and ``plot`` (what comes out), ``options`` and ``command`` (the command line), ``demo``.
"""
