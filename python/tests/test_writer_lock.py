"""One writer at a time, across processes."""

import fcntl
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from schema_check import assert_obeys

from bitctl import _writer_lock, pulse

PACKAGE = pathlib.Path(pulse.__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training_status.json"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_writer_lock, "PATIENCE_S", 0.05)


def is_locked(path):
    with open(f"{path}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True


def start_writer(path, body):
    """Another process that runs `body` inside a Pulse block; it has entered the block."""
    script = textwrap.dedent("""
        import sys, time
        from bitctl.pulse import Pulse
        with Pulse(sys.argv[1], 3) as run:
            print("entered", flush=True)
    """) + textwrap.indent(body, "    ")
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
    assert process.stdout.readline() == "entered\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(path, impatient):
    first = start_writer(path, "time.sleep(600)")
    try:
        expected = rf"training_status.json.lock is held by pid {first.pid} \(started 20\d\d-.*\): .*python"
        for write in (lambda: pulse.write_idle_status(path), lambda: pulse.Pulse(path, 3).__enter__()):
            with pytest.raises(OSError, match=expected):
                write()
    finally:
        first.kill()
        first.wait()
    assert pulse.read(path)["status"] == "running"
    pulse.write_error_status(path, "the first writer is gone")
    assert_obeys("pulse.v1", path)


def test_one_process_is_told_that_it_is_itself(path, impatient):
    with pulse.Pulse(path, 3):
        with pytest.raises(OSError, match=f"this very process, pid {os.getpid()}"):
            pulse.Pulse(path, 3).__enter__()
        assert is_locked(path)
        pulse.write_running_status(path, 1, 3, 0.5, "within one's own block")
    assert not is_locked(path)


def test_the_lock_is_let_go_whatever_happens(path, monkeypatch):
    pulse.write_idle_status(path)
    assert not is_locked(path)
    monkeypatch.setattr(pulse.os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pulse.write_idle_status(path)
    with pytest.raises(ZeroDivisionError):
        pulse.Pulse(path, 3).__enter__()
    assert not is_locked(path)


def test_single_writes_of_several_processes_take_turns(path, monkeypatch):
    monkeypatch.setattr(_writer_lock, "PATIENCE_S", 120)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for step in range(25):
                    pulse.write_running_status(path, step, 25, 0.5, f"from {os.getpid()}")
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert_obeys("pulse.v1", path)


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_run(path):
    first = start_writer(path, textwrap.dedent("""
        import os
        if os.fork() == 0:
            print(os.getpid(), flush=True)  # the worker itself: it is past the fork
        time.sleep(600)
    """))
    worker = int(first.stdout.readline())
    assert is_locked(path)
    first.kill()
    first.wait()
    try:
        assert not is_locked(path)
        os.kill(worker, 0)  # it still lives
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_worker_forked_in_the_middle_of_a_write_does_not_keep_the_lock(path):
    reader, writer = os.pipe()
    with _writer_lock.held(path):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)  # outlives the block
            os._exit(0)
    try:
        assert not is_locked(path)
    finally:
        os.close(reader)
        os.close(writer)
        os.waitpid(child, 0)


def test_a_descriptor_is_not_inherited(path):
    with pulse.Pulse(path, 3):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    assert not is_locked(path)
    child.kill()
    child.wait()


def test_a_writer_killed_at_any_time_leaves_a_whole_file_and_no_lock(path):
    """Killed at random in full flight; the next writer gets in at once and clears away."""
    dice = random.Random(5)
    left_behind = 0
    pulse.write_idle_status(path)
    for _ in range(150):
        child = os.fork()
        if child == 0:
            step = 0
            while True:
                step += 1
                pulse.write_running_status(path, step, step, 1 / step, "x" * (step % 500))
        time.sleep(dice.uniform(0.0005, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert_obeys("pulse.v1", path)
        assert pulse.read(path) is not None
        assert not is_locked(path)
        left_behind += len(list(path.parent.glob(".*.tmp")))
        pulse.write_idle_status(path)
        assert list(path.parent.glob(".*.tmp")) == []
    assert left_behind > 0, "the kills never hit a write: this test has shown nothing"


def test_a_lock_that_cannot_be_opened_is_named(path):
    os.mkdir(f"{path}.lock")
    with pytest.raises(OSError, match="training_status.json.lock"):
        pulse.write_idle_status(path)
    os.rmdir(f"{path}.lock")
    os.symlink("/etc/hostname", f"{path}.lock")
    with pytest.raises(OSError, match="training_status.json.lock"):
        pulse.write_idle_status(path)
