# SPDX-License-Identifier: Apache-2.0
"""A client of `service.c` on the Python face.

python ask.py endpoint text
"""

import sys

import diolkos

MATCH, REPLY = 42, 1 << 63

with diolkos.Endpoint() as ep:
    service = ep.connect(int(sys.argv[1]), timeout=10)
    ep.send(sys.argv[2].encode(), service, match=MATCH)
    print(bytes(ep.recv(match=MATCH | REPLY, timeout=10)).decode())
