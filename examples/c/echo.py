# SPDX-License-Identifier: Apache-2.0
"""The answering side of `pingpong.c` on the Python face: the same messages, another door.

python echo.py [endpoint]
"""

import sys

import diolkos

BALL, STOP = 1, 2

with diolkos.Endpoint(number=int(sys.argv[1]) if len(sys.argv) > 1 else 3) as ep:
    print(f"waiting at endpoint {ep.number}", flush=True)
    while True:
        message = ep.recv()
        if message.status.match == STOP:
            break
        ep.send(message, message.source, match=BALL)
