# SPDX-License-Identifier: Apache-2.0
"""The backend: the control plane of one host.

It decides, once, who may talk to whom; it never touches a message. An endpoint keeps one
connection to it, a `SOCK_SEQPACKET` Unix socket that carries one JSON object a packet::

      endpoint A                     backend                      endpoint B
          |------ open ----------------->|<---------------- open ------|
          |------ connect("B") --------->|                             |
          |                        policy, limits                      |
          |                   two memfds, two sockets                  |
          |<----- connected + 4 fds -----|----- introduced + 4 fds --->|
          |                                                            |
          |<================= messages, in shared memory =============>|

Who does what, one subject a file:

=============  =====================================================================
server         start, listen, accept, count connections, stop
connection     one client's socket: packets in, bounded packets out, floods slowed
session        what each request of a client means
introduce      who is meant, making the channel
waiting        connects whose target does not exist yet
switched       a channel whose middle is a relay of this process
registry       which endpoints and channels there are
numbering      which numbers are not yet anybody's
policy         the TOML file: who may be where, who may talk, on which road
limits         every number that bounds something, and what each user has used
messages       the schema of every packet
memory         memfds, seals, doorbells, process handles
paths          the runtime directory and what makes it trustworthy
log            the structured, bounded log
report         what `info` answers
client         the asking side of `info`, in pure Python
=============  =====================================================================

Trust: nothing that arrives on a socket is believed before `messages` has checked it, no descriptor
is ever accepted, and every table that a client can make grow has a limit in `limits`. A client that
misbehaves loses its own connection and nothing else happens. `docs/reference/control.md` is the
protocol; `docs/reference/policy.md` the policy file.
"""
