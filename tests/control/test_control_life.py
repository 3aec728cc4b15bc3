# SPDX-License-Identifier: Apache-2.0
"""The life of a backend: starting, being second, being killed, taking back, leaving, no room."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from conftest import RunningBackend, running
from rawclient import PATIENCE_S, RawClient, exit_code_of, in_child, is_readable


def _run(*options: str, **process_options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diolkos", "backend", *options]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **process_options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(runtime_dir: Path, number: int, code: int) -> None:
    with running(runtime_dir) as backend:
        with backend.client() as client:
            client.open()
            assert backend.end(number) == code
            client.expect_end()
        assert not (runtime_dir / "backend.sock").exists()
        assert backend.log()[-1]["event"] == "stopped"


def test_a_second_backend_is_refused(backend: RunningBackend) -> None:
    second = _run("--runtime-dir", str(backend.runtime_dir))
    assert second.returncode == 4
    assert second.stderr.startswith("error: a backend is already running")
    assert "hint: " in second.stderr
    with backend.client() as client:
        client.open()


def test_a_killed_backend_leaves_nothing_in_the_way(backend: RunningBackend) -> None:
    backend.end(signal.SIGKILL)
    assert (backend.runtime_dir / "backend.sock").exists()
    with pytest.raises(ConnectionRefusedError):
        backend.client()
    backend.start()
    with backend.client() as client:
        client.open()


def _claim(end: dict[str, object], peer: tuple[int, str]) -> dict[str, object]:
    return {
        "channel": end["channel"],
        "peer_number": peer[0],
        "peer_name": peer[1],
        "road": end["road"],
    }


def test_a_restarted_backend_takes_its_guests_back(backend: RunningBackend) -> None:
    a, b = backend.client(), backend.client()
    generation = a.open("a", number=3)["generation"]
    b.open("b", number=5)
    a.send("connect", target="b")
    end = a.expect("connected").fields
    b.expect("introduced")
    backend.end(signal.SIGKILL)
    for client in (a, b):
        client.expect_end()
        client.close()
    backend.start()
    with backend.client() as a2, backend.client() as b2, backend.client() as c:
        resume_a = {"number": 3, "generation": generation, "channels": [_claim(end, (5, "b"))]}
        opened = a2.open("a", resume=resume_a)
        assert opened["number"] == 3
        assert opened["generation"] != generation
        resume_b = {"number": 5, "generation": generation, "channels": []}
        b2.open("b", resume=resume_b)
        b2.send("claim", channels=[_claim(end, (3, "a"))])
        # It is a channel again: known to info, found by connects, and ended with its end.
        b2.send("connect", target="a")
        b2.expect("connected", channel=end["channel"], existing=True)
        c.send("info")
        assert [ch["channel"] for ch in c.expect("info")["channels"]] == [end["channel"]]
        c.open("c")
        c.send("connect", target="b")
        assert c.expect("connected", existing=False)["channel"] != end["channel"]
        a2.close()
        b2.expect("introduced")
        b2.expect("gone", channel=end["channel"])


def test_a_newcomer_gets_no_number_of_a_guest_who_is_still_away(backend: RunningBackend) -> None:
    """Whoever opens first after a restart must not be in the way of those who come back late."""
    early = [backend.client() for _ in range(3)]
    for client in early:
        client.open()
    for _ in range(2):
        backend.end(signal.SIGKILL)
        backend.start()
        with backend.client() as newcomer:
            assert newcomer.open()["number"] >= 3
    with backend.client() as late:
        resume = {"number": 0, "generation": 1, "channels": []}
        assert late.open("ep-0", resume=resume)["number"] == 0
    for client in early:
        client.close()


def test_numbers_start_at_0_after_an_end_without_guests(backend: RunningBackend) -> None:
    with backend.client() as client, backend.client() as other:
        client.open(number=40)
        other.open("other")
        other.send("connect", target=40)
        other.expect("connected")
        client.close()
        other.expect("gone")
        wanted = other.send("info")
        assert len(other.expect("info", id=wanted)["endpoints"]) == 1
    with backend.client() as watcher:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            watcher.send("info")
            page = watcher.receive()
            if not page["endpoints"]:
                break
            page.close()
            assert time.monotonic() < deadline
    backend.end(signal.SIGTERM)
    backend.start()
    with backend.client() as client:
        assert client.open()["number"] == 0


def test_a_claim_that_the_other_end_does_not_share_ends_at_the_next_meeting(
    backend: RunningBackend,
) -> None:
    with backend.client() as a, backend.client() as b:
        claim = {"channel": 99, "peer_number": 1, "peer_name": "b", "road": "direct"}
        a.open("a", resume={"number": 0, "generation": 1, "channels": [claim]})
        b.open("b")
        b.send("connect", target="a")
        b.expect("connected", existing=False)
        a.expect("gone", channel=99)
        a.expect("introduced")


def test_a_switched_channel_is_not_taken_back(backend: RunningBackend) -> None:
    with backend.client() as a:
        claim = {"channel": 99, "peer_number": 1, "peer_name": "b", "road": "switched"}
        a.open("a", resume={"number": 0, "generation": 1, "channels": [claim]})
        a.expect("gone", channel=99)


def test_a_claim_on_the_channel_of_others_gives_nothing(backend: RunningBackend) -> None:
    with backend.client() as a, backend.client() as b, backend.client() as thief:
        a.open("a")
        b.open("b")
        a.send("connect", target="b")
        channel = a.expect("connected")["channel"]
        claim = {"channel": channel, "peer_number": 0, "peer_name": "a", "road": "direct"}
        thief.open("thief", resume={"number": 2, "generation": 1, "channels": [claim]})
        thief.send("disconnect", channel=channel)
        thief.round_trip()
        a.round_trip()
        b.expect("introduced")
        b.round_trip()


def test_it_leaves_when_the_last_endpoint_has_been_gone_for_a_while(runtime_dir: Path) -> None:
    with running(runtime_dir, "--idle-exit", "0.2") as backend:
        assert backend.process is not None
        with backend.client() as client:
            client.open()
            # It would have left by now, were it not for the endpoint: this outlives its patience.
            client.send("connect", target="nobody", timeout_ms=500)
            client.expect("error", code="timeout")
        assert backend.process.wait(PATIENCE_S) == 0
        assert not (runtime_dir / "backend.sock").exists()


def test_started_by_an_endpoint_it_is_a_daemon_that_reports(runtime_dir: Path) -> None:
    """As the island starts it: the report on a pipe, the starter reaped, its own session."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "diolkos", "backend", "--runtime-dir", str(runtime_dir)]
    starter = subprocess.Popen([*command, "--ready-fd", "1", "--idle-exit", "0.2"], stdout=writing)
    os.close(writing)
    assert starter.wait(PATIENCE_S) == 0
    assert is_readable(reading, PATIENCE_S)
    with open(reading, "rb") as report:
        assert report.read() == b"+\n"
    with RawClient(runtime_dir) as client:
        client.send("info")
        pid = client.expect("info")["backend"]["pid"]
        assert pid != starter.pid
        assert os.getsid(pid) != os.getsid(0)
        process = os.pidfd_open(pid)
    # And without endpoints it leaves.
    assert is_readable(process, PATIENCE_S)
    os.close(process)


def _report(runtime_dir: Path) -> bytes:
    command = [sys.executable, "-m", "diolkos", "backend", "--runtime-dir", str(runtime_dir)]
    ended = subprocess.run(
        [*command, "--ready-fd", "1"], capture_output=True, timeout=PATIENCE_S, check=True
    )
    return ended.stdout


def test_the_report_tells_a_second_backend_from_a_failed_one(backend: RunningBackend) -> None:
    assert _report(backend.runtime_dir).startswith(b"=a backend is already running")
    assert _report(backend.runtime_dir / "no" / "parent").startswith(b"!the runtime directory")


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770, 0o750, 0o720, 0o701])
def test_a_directory_that_others_can_use_is_refused(runtime_dir: Path, mode: int) -> None:
    runtime_dir.chmod(mode)
    refused = _run("--runtime-dir", str(runtime_dir))
    assert refused.returncode == 1
    assert "error: the runtime directory" in refused.stderr
    assert "chmod 700" in refused.stderr
    assert os.listdir(runtime_dir) == []


def test_a_symbolic_link_is_refused(runtime_dir: Path) -> None:
    real, link = runtime_dir / "real", runtime_dir / "link"
    real.mkdir(mode=0o700)
    link.symlink_to(real)
    for name in (link, f"{link}/"):
        refused = _run("--runtime-dir", str(name))
        assert refused.returncode == 1
        assert "is a symbolic link" in refused.stderr
    assert os.listdir(real) == []


def test_a_file_is_refused(runtime_dir: Path) -> None:
    file = runtime_dir / "file"
    file.touch()
    refused = _run("--runtime-dir", str(file))
    assert refused.returncode == 1
    assert "not a directory" in refused.stderr


def test_somebody_elses_directory_is_refused(runtime_dir: Path) -> None:
    """The owner is checked by both sides. Needs a second user, so root; others have no way to
    make a directory that is not theirs."""
    if os.geteuid() != 0:
        return
    runtime_dir.chmod(0o711)
    theirs = runtime_dir / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 65534, 65534)
    refused = _run("--runtime-dir", str(theirs))
    assert refused.returncode == 1
    assert "belongs to user 65534" in refused.stderr


def test_a_long_path_is_no_obstacle(runtime_dir: Path) -> None:
    """Longer than a socket address holds."""
    deep = runtime_dir / ("d" * 120)
    with running(deep) as backend:
        asked = subprocess.run(
            [sys.executable, "-m", "diolkos", "info", "--json", "--runtime-dir", str(deep)],
            capture_output=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert json.loads(asked.stdout)["pid"] == backend.pid


def test_what_is_in_the_way_of_the_socket_is_an_error(runtime_dir: Path) -> None:
    (runtime_dir / "backend.sock").mkdir()
    refused = _run("--runtime-dir", str(runtime_dir))
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: the backend cannot work in")


@pytest.mark.parametrize("filler", ["inodes", "blocks"])
def test_a_full_file_system(filler: str) -> None:
    """In a mount namespace of its own, a tmpfs without room. Without inodes the backend says so
    and leaves; without blocks it only loses lines of its log, and clients are served."""
    script = textwrap.dedent(
        """
        set -e
        mount -t tmpfs -o mode=700,size=16k,nr_inodes=$2 none /mnt
        [ $1 = inodes ] && touch /mnt/a /mnt/b || true
        [ $1 = blocks ] && head -c 16384 /dev/zero > /mnt/full || true
        shift 2
        exec "$@"
        """
    )
    inodes = {"inodes": "3", "blocks": "10"}[filler]
    namespace = ["unshare", "--mount", "--map-root-user", "--user"]
    if os.geteuid() == 0:
        namespace = ["unshare", "--mount"]
    command = [sys.executable, __file__, filler]
    ended = subprocess.run(
        [*namespace, "sh", "-c", script, "sh", filler, inodes, *command],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _in_full_file_system(filler: str) -> None:
    runtime_dir = Path("/mnt")
    if filler == "inodes":
        refused = _run("--runtime-dir", str(runtime_dir))
        assert refused.returncode == 1, refused
        assert "No space left on device" in refused.stderr
        assert "hint: free space" in refused.stderr
        assert not (runtime_dir / "backend.sock").exists()
        return
    with running(runtime_dir) as backend:
        with backend.client() as a, backend.client() as b:
            a.open("a")
            b.open("b")
            a.send("connect", target="b")
            a.expect("connected")
            b.expect("introduced")
            (runtime_dir / "full").unlink()
            # Room again: the lines that were lost are counted.
            a.send("disconnect", channel=1)
            a.round_trip()
        assert backend.end() == 0
        assert "lines lost" in {line["event"] for line in backend.log()}


def test_a_client_that_dies_at_any_moment_leaves_nothing(backend: RunningBackend) -> None:
    """Killed at each step of opening and connecting, many times over."""
    steps = [
        {"type": "open", "id": 1, "version": 1, "name": "victim"},
        {"type": "connect", "id": 2, "target": "stays"},
        {"type": "connect", "id": 3, "target": "nobody"},
        {"type": "info", "id": 4},
    ]
    with backend.client() as stays:
        stays.open("stays")
        stays.round_trip()
        used = backend.fd_count()
        for count in range(1, len(steps) + 1):
            for _ in range(10):

                def die(count: int = count) -> None:
                    client = backend.client()
                    for step in steps[:count]:
                        client.send_raw(json.dumps(step).encode())
                    os.kill(os.getpid(), signal.SIGKILL)

                assert exit_code_of(in_child(die)) == -9
        # How far each got is chance; that it ends is not.
        deadline = time.monotonic() + PATIENCE_S
        while backend.fd_count() > used:
            assert time.monotonic() < deadline
            wanted = stays.send("connect", target="x", timeout_ms=0)
            while (packet := stays.receive())["type"] != "error":
                assert packet["type"] in ("introduced", "gone")
            assert packet["id"] == wanted
        with backend.client() as last:
            last.open("victim")


if __name__ == "__main__":
    _in_full_file_system(sys.argv[1])
