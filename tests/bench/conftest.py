# SPDX-License-Identifier: Apache-2.0
"""Signals as a terminal leaves them: a runner in the background may ignore them, and so would
every program that these tests start and end by a signal."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
