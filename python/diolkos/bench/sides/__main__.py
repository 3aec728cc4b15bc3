# SPDX-License-Identifier: Apache-2.0
"""The program of a side in Python: pin, set up, say hello, and serve until told to quit.

The order matters. The process is pinned before its library starts threads, so that they inherit
the processor; the garbage collector is off from the start, because nothing in a loop allocates
cycles; and the side waits for commands in ``recv()``, outside its library.

A side that loses its coordinator leaves at once, without the library's farewell: a barrier with a
peer that is gone would never end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback

from diolkos.bench import control
from diolkos.bench.processes import die_with_parent
from diolkos.bench.sides.payload import VerificationError
from diolkos.bench.sides.worker import Unsupported, Worker

#: Worker -> module and class.
WORKERS = {
    "diolkos-python": ("diolkos.bench.sides.endpoint", "EndpointWorker"),
    "diolkos-asyncio": ("diolkos.bench.sides.endpoint_asyncio", "AsyncioWorker"),
    "diolkos-native": ("diolkos.bench.sides.endpoint_native", "NativeWorker"),
    "diolkos-python-rdma": ("diolkos.bench.sides.endpoint_rdma", "EndpointRdmaWorker"),
    "diolkos-native-rdma": ("diolkos.bench.sides.endpoint_rdma", "NativeRdmaWorker"),
    "diolkos-python-loan": ("diolkos.bench.sides.endpoint_loan", "EndpointLoanWorker"),
    "diolkos-idle": ("diolkos.bench.sides.endpoint_idle", "IdleWorker"),
    "pipe": ("diolkos.bench.sides.pipe", "PipeWorker"),
    "stream": ("diolkos.bench.sides.stream_socket", "StreamSocketWorker"),
    "zmq": ("diolkos.bench.sides.zeromq", "ZeromqWorker"),
    "mpi4py": ("diolkos.bench.sides.mpi", "MpiWorker"),
    "mpi4py-rdma": ("diolkos.bench.sides.mpi_rdma", "MpiRdmaWorker"),
    "iceoryx2": ("diolkos.bench.sides.iceoryx", "IceoryxWorker"),
    "iceoryx2-loan": ("diolkos.bench.sides.iceoryx_loan", "IceoryxLoanWorker"),
    "shared_memory": ("diolkos.bench.sides.shared_block", "SharedBlockWorker"),
}

#: Launchers of MPI number the ranks themselves; everybody else gets the number from us.
_SIDE_VARIABLES = (control.ENVIRONMENT_SIDE, "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def main(arguments: list[str]) -> int:
    """Runs the side; ``arguments`` are the worker's name and its options as JSON."""
    name, options = arguments[0], json.loads(arguments[1])
    side = next(int(os.environ[v]) for v in _SIDE_VARIABLES if v in os.environ)
    die_with_parent()
    _prepare_process(side)
    module, class_name = WORKERS[name]
    worker: Worker = getattr(importlib.import_module(module), class_name)(side, **options)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.environ[control.ENVIRONMENT_SOCKET])
    line = control.Line(connection)
    line.send_hello(side, worker.describe())
    gc.collect()
    gc.freeze()
    while True:
        command = line.receive_command()
        if command is None:
            os._exit(1)
        if command.operation is control.Operation.QUIT:
            worker.close()
            return 0
        _serve(worker, line, command)


def _prepare_process(side: int) -> None:
    gc.disable()
    processors = [int(cpu) for cpu in os.environ[control.ENVIRONMENT_CPUS].split(",")]
    os.sched_setaffinity(0, {processors[side % len(processors)]})
    # Idle peers need a few descriptors each; the soft limit is a default, the hard one a rule.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _serve(worker: Worker, line: control.Line, command: control.Command) -> None:
    """Runs one slice under an alarm and reports how it ended."""
    signal.alarm(control.SLICE_LIMIT_S)
    try:
        payload = worker.serve(command)
    except VerificationError as error:
        line.send_failed(control.Fault.VERIFICATION, str(error))
    except Unsupported as error:
        line.send_failed(control.Fault.UNSUPPORTED, str(error))
    except Exception as error:  # whatever a library raises is the coordinator's to report
        traceback.print_exc()
        line.send_failed(control.Fault.LIBRARY, f"{type(error).__name__}: {error}")
    else:
        line.send_done(payload)
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
