"""Out of memory, or only killed: the row `exited` holds the evidence."""

import os
import pathlib
import signal

import pytest
import runs

V1 = pathlib.Path("/sys/fs/cgroup/memory")
LIMIT = 256 << 20
EATER = "b = bytearray(400 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1\n"


@pytest.fixture
def confined(bitctl, tmp_path):
    """bitctl in a memory cgroup of 256 MiB."""
    if os.geteuid() != 0 or not (V1 / "memory.oom_control").exists():
        pytest.skip("no writable v1 memory controller here")
    group = V1 / ("bitctl-test-%d" % os.getpid())
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    program = tmp_path / "bitctl"
    program.write_text('#!/bin/sh\necho $$ >%s/cgroup.procs\nexec %s "$@"\n' % (group, bitctl))
    program.chmod(0o755)
    yield str(program)
    runs.wait_for(lambda: not (group / "cgroup.procs").read_text(), "the end of all that was confined", 30)
    group.rmdir()


def test_a_kill_for_want_of_memory_is_told_apart(confined, tmp_path):
    (tmp_path / "eats.py").write_text(EATER)
    run = runs.Run(confined, tmp_path, "train", "--no-restart", "--", runs.python(), "eats.py")
    assert run.wait() == 137
    row = run.events("exited")[0]
    assert row["signal"] == "SIGKILL" and row["oom_kills"] == 1 and row["memory_limit"] == LIMIT
    # Shared pages of the interpreter are resident and charged to whoever read them first.
    assert 0.8 * LIMIT < row["memory_peak"] < 1.2 * LIMIT


def test_a_kill_by_hand_is_none(confined, tmp_path):
    run = runs.Run(confined, tmp_path, "train", "--no-restart", "--", "sleep", "600")
    pid = run.wait_event("spawned")["pid"]
    os.kill(pid, signal.SIGKILL)
    assert run.wait() == 137
    row = run.events("exited")[0]
    assert "oom_kills" not in row and row["memory_limit"] == LIMIT and 0 < row["memory_peak"] < 0.5 * LIMIT
