# SPDX-License-Identifier: Apache-2.0
"""After `fork()` the child's inherited endpoints refuse use, and do the parent's no harm."""

from __future__ import annotations

from programs import Program

IN_CHILD = """
def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            say("child:", repr(error))
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_inherited_endpoints_refuse_use(program: type[Program]) -> None:
    running = program(
        IN_CHILD
        + """
with pair() as (a, b):
    receive, multi = a.endpoint.irecv(8, match=0), a.endpoint.multi_recv(bytearray(8), match=1)
    b.endpoint.send(b"claimed", b.peer, match=2)
    claimed = a.endpoint.mprobe(match=2)
    def child():
        for call in (
            lambda: a.endpoint.send(b"", a.peer),
            lambda: a.endpoint.isend(bytes(100_000), a.peer),
            lambda: a.endpoint.recv(),
            lambda: a.endpoint.recv_into(bytearray(8)),
            lambda: a.endpoint.connect("x"),
            lambda: a.endpoint.disconnect(a.peer),
            lambda: a.endpoint.progress(),
            lambda: a.endpoint.fileno(),
            lambda: a.endpoint.counters,
            lambda: receive.wait(),
            lambda: receive.test(),
            lambda: receive.cancel(),
            lambda: multi.next(),
            lambda: claimed.recv(),
            lambda: diolkos.wait_any([receive]),
        ):
            try:
                call()
            except diolkos.ForkedError as error:
                assert "parent" in str(error)
            else:
                raise AssertionError("not refused")
        assert "parent" in repr(a.endpoint)
        a.endpoint.close()
    in_child(child)
    b.endpoint.send(b"hello", b.peer)
    assert receive.wait(10).nbytes == 5
"""
    )
    running.succeed()


def test_a_child_that_ends_normally_leaves_the_parent_alone(program: type[Program]) -> None:
    """The child drops everything: explicitly, by collection, and at its interpreter's end."""
    running = program(
        """
        import gc
        with pair() as (a, b):
            send = a.endpoint.isend(bytearray(b"x" * 300_000), a.peer)
            held = [a.endpoint.irecv_into(bytearray(8), match=i) for i in range(10)]
            for ending in ("close", "drop", "exit"):
                if os.fork() == 0:
                    if ending == "close":
                        a.endpoint.close(); b.endpoint.close()
                    elif ending == "drop":
                        del a, b, send, held
                        gc.collect()
                    sys.exit(0)
                assert os.wait()[1] == 0
            receive = b.endpoint.irecv(300_000)
            while receive.test() is None:
                send.test()
            assert bytes(receive.message) == b"x" * 300_000
            for i in range(10):
                b.endpoint.send(b"hello", b.peer, match=i)
                assert held[i].wait(10).nbytes == 5
            say("fine")
        """
    )
    assert running.line() == "fine"
    running.succeed()


def test_fork_while_another_thread_waits(program: type[Program]) -> None:
    """The waiting thread may hold the endpoint's lock when the child is made."""
    running = program(
        """
        with pair() as (a, b):
            got = []
            thread = threading.Thread(target=lambda: got.append(bytes(a.endpoint.recv())))
            thread.start()
            for _ in range(20):
                if os.fork() == 0:
                    try:
                        a.endpoint.progress()
                    except diolkos.ForkedError:
                        a.endpoint.close()
                        del a, b
                        os._exit(0)
                    os._exit(1)
                assert os.wait()[1] == 0
            b.endpoint.send(b"hello", b.peer)
            thread.join()
            say(got)
        """
    )
    assert running.line() == "[b'hello']"
    running.succeed()


def test_a_child_of_a_child_and_endpoints_of_its_own(program: type[Program]) -> None:
    running = program(
        IN_CHILD
        + """
with pair() as (a, b):
    def child():
        with pair() as (c, d):
            c.endpoint.send(b"own", c.peer)
            assert bytes(d.endpoint.recv()) == b"own"
            def grandchild():
                for side in (a, c):
                    try:
                        side.endpoint.recv()
                    except diolkos.ForkedError:
                        continue
                    raise AssertionError("not refused")
                with pair() as (e, f):
                    e.endpoint.send(b"own", e.peer)
                    f.endpoint.recv()
            in_child(grandchild)
            c.endpoint.send(b"still", c.peer)
            assert bytes(d.endpoint.recv()) == b"still"
    in_child(child)
    a.endpoint.send(b"hello", a.peer)
    say(bytes(b.endpoint.recv()))
"""
    )
    assert running.line() == "b'hello'"
    running.succeed()


def test_memory_of_the_child_survives_the_end_of_inherited_endpoints(
    program: type[Program],
) -> None:
    """The channels' addresses are free in the child. What it maps there must stay when the
    inherited endpoints are dropped."""
    running = program(
        """
        import gc, mmap
        from diolkos._core import local_pair
        pair = local_pair()
        if os.fork() == 0:
            maps = [mmap.mmap(-1, 0x420000) for _ in range(16)]
            for each in maps:
                each[0] = each[0x41ffff] = 7
            del pair
            gc.collect()
            assert all(each[0] + each[0x41ffff] == 14 for each in maps)
            os._exit(0)
        say(os.wait()[1])
        """
    )
    assert running.line() == "0"
    running.succeed()
