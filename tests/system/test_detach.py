"""`bitctl train -d`: the supervisor in a session of its own, and the truth about whether it began."""

import fcntl
import os
import pathlib
import signal
import subprocess

import runs
from pty_program import PtyProgram
from runs import wait_for


def session_of(pid):
    stat = pathlib.Path("/proc/%d/stat" % pid).read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[3])


def test_it_goes_on_without_the_terminal(start, tmp_path, bitctl):
    word = tmp_path / "word"
    config = runs.config(tmp_path, "told.py", [word])
    terminal = PtyProgram([bitctl, "train", "-d", str(config)], env=runs.environment(tmp_path))
    try:
        terminal.expect("attach: bitctl attach test-")
        assert terminal.wait() == 0
        assert session_of(os.getpid()) != terminal.pid, "control: the terminal has a session of its own"
    finally:
        terminal.close()
    run = start("ls")  # ends the run with the test
    run.wait_step(5)
    pid = run.supervisor()
    assert session_of(pid) == pid
    assert [os.readlink("/proc/%d/fd/%d" % (pid, fd)) for fd in range(3)] == ["/dev/null"] * 3
    for lock in (run.path / "training_status.json.lock", tmp_path / "runs" / ".test.lock"):
        assert lock.read_text().split("\n")[0] == str(pid)
    word.write_text("0")
    wait_for(lambda: not runs.alive(pid), "the supervisor's end")
    assert run.events("exited")[-1]["code"] == 0


def test_what_was_said_is_there_when_the_command_returns(start, tmp_path, bitctl):
    config = runs.config(tmp_path, "told.py", [tmp_path / "never"])
    run = start("train", "-d", config)
    assert run.wait() == 0
    assert run.events("supervising")[-1]["pid"] != run.process.pid
    assert "run %s\n" % run.path in run.output.read_text()
    stopped = subprocess.run([bitctl, "stop", run.path], capture_output=True, text=True, env=runs.environment(tmp_path), timeout=runs.DEADLINE)
    assert stopped.returncode == 0, stopped.stderr
    again = start("resume", "-d", run.path)
    assert again.wait() == 0
    assert again.supervisor() not in (run.process.pid, again.process.pid, run.events("supervising")[0]["pid"])


def test_what_the_shell_left_open_is_not_kept(tmp_path, start, bitctl):
    """A pipe that somebody reads to its end must come to it."""
    config = runs.config(tmp_path, "told.py", [tmp_path / "never"])
    reader, writer = os.pipe()
    subprocess.run([bitctl, "train", "-d", config], pass_fds=[writer], env=runs.environment(tmp_path), check=True, capture_output=True, timeout=runs.DEADLINE)
    run = start("ls")  # ends the run with the test
    os.set_blocking(reader, False)
    os.write(writer, b"the control")
    os.close(writer)
    assert os.read(reader, 100) == b"the control" and os.read(reader, 100) == b""
    os.close(reader)
    assert runs.alive(run.supervisor())


def test_one_that_cannot_begin_says_why_and_leaves_nothing(start, tmp_path):
    run = start("train", "-d", "--", "no-such-program")
    assert run.wait() == 127
    assert "program not found: no-such-program" in run.output.read_text()
    assert "attach" not in run.output.read_text()
    assert not runs.alive(run.supervisor())


def test_ctrl_c_ends_the_wait_for_a_writer_that_still_saves(start, tmp_path):
    run = start("train", runs.config(tmp_path, "told.py", [tmp_path / "never"]))
    run.wait_step(1)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    with open(run.path / "training_status.json.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        again = start("resume", "-d", run.path)
        wait_for(lambda: "waiting until the dead supervisor's writer has saved" in again.output.read_text(), "the wait")
        background = runs.children_named(again.process.pid, "bitctl")
        assert len(background) == 1
        again.process.send_signal(signal.SIGINT)
        again.process.wait(runs.DEADLINE)
        wait_for(lambda: not runs.alive(background[0]), "the end of what waited in the background")
    assert len(run.events("supervising")) == 1
