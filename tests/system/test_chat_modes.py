"""The modes that bitctl chat asks of a terminal, and that each is undone however the chat ends."""

import os
import signal
import sys
import termios
import time

import pytest
from test_chat_terminal import leave, model, ready, start, wait_until_gone  # noqa: F401

ASKED = b"\x1b[?2004h\x1b[>1u"
UNDO = b"\x1b[<u\x1b[>4m\x1b[?2004l"


ENDS = {
    "ctrl-d": (lambda chat: chat.type("\x04"), 0),
    "quit": (lambda chat: chat.send("/quit"), 0),
    "SIGTERM": (lambda chat: chat.kill(signal.SIGTERM), 128 + signal.SIGTERM),
    "SIGHUP": (lambda chat: chat.kill(signal.SIGHUP), 128 + signal.SIGHUP),
    "SIGQUIT": (lambda chat: chat.kill(signal.SIGQUIT), 128 + signal.SIGQUIT),
    **{
        name: (lambda chat, number=getattr(signal, name): chat.kill(number), -getattr(signal, name))
        for name in ("SIGABRT", "SIGSEGV", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU", "SIGXFSZ", "SIGPROF", "SIGRTMIN")
    },
}


@pytest.mark.parametrize("busy, end", [*((True, end) for end in ENDS), (False, "ctrl-d"), (False, "SIGTERM")])
def test_the_terminal_is_restored_however_it_ends(ready, end, busy):
    chat = ready(FAKE_ENDLESS="1", FAKE_TOKEN_MS="2")
    if busy:
        chat.send("x")
        chat.expect("You said: x - You said")
    assert not chat.terminal_is_as_before(), "the control: it is another one while the chat runs"
    act, code = ENDS[end]
    act(chat)
    assert chat.wait() == code
    assert chat.terminal_is_as_before()
    assert chat.output.endswith(UNDO)


def test_a_closed_terminal_ends_it(ready):
    chat = ready(FAKE_ENDLESS="1", FAKE_TOKEN_MS="2")
    [worker] = chat.children()
    os.close(chat.master)
    chat.master = os.open("/dev/null", os.O_RDWR)
    _, status = os.waitpid(chat.pid, 0)
    chat.status = status
    assert os.WIFEXITED(status)
    wait_until_gone(worker)


# As a shell: the job is a group of its own in the foreground. Once it has stopped, the terminal is the shell's, which
# sets it as it likes; then a line says what becomes of the job.
SHELL = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        sys.exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped by", os.WSTOPSIG(status), flush=True)
    if sys.stdin.readline() == "fg\\n":
        os.tcsetpgrp(0, job)
    else:
        own = termios.tcgetattr(0)
        own[3] |= termios.TOSTOP  # who writes in the background is stopped
        own[6][termios.VMIN] = b"\\x07"  # as no other program sets it
        termios.tcsetattr(0, termios.TCSANOW, own)
        os.killpg(job, signal.SIGTERM)
    os.killpg(job, signal.SIGCONT)
"""


@pytest.fixture
def job(ready):
    return ready(wrapper=[sys.executable, "-c", SHELL])


def test_suspend_and_resume(job):
    job.type("half a text\x1a")
    job.expect(f"stopped by {signal.SIGTSTP.value}")
    assert job.terminal_is_as_before()
    assert job.output[:job.seen].count(UNDO) == 1
    asked = job.output.count(ASKED)
    job.type("fg\n")
    job.expect("half a text")
    assert job.output.count(ASKED) == asked + 1
    job.type("\n")
    job.expect("You said: half a text")
    assert not job.terminal_is_as_before()
    leave(job)


def test_what_stopped_without_notice_asks_again(job):
    job.type("half a text")
    job.expect("half a text")
    [pid] = job.children()
    os.kill(pid, signal.SIGSTOP)
    job.expect(f"stopped by {signal.SIGSTOP.value}")
    termios.tcsetattr(job.slave, termios.TCSANOW, job.before)  # as shells do
    job.type("fg\n")
    job.expect(ASKED.decode())
    job.type(" and more\n")
    job.expect("You said: half a text and more")
    leave(job)


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_stopped_chat_that_is_killed_ends_and_leaves_the_terminal_to_the_shell(job, number):
    [pid] = job.children()
    if number == signal.SIGTSTP:
        job.type("\x1a")
    else:
        os.kill(pid, number)
        termios.tcflush(job.slave, termios.TCIFLUSH)
    job.expect(f"stopped by {number.value}")
    termios.tcsetattr(job.slave, termios.TCSANOW, job.before)
    job.type("kill\n")
    assert job.wait() == 128 + signal.SIGTERM
    assert termios.tcgetattr(job.slave)[6][termios.VMIN] == b"\x07"
    assert job.output.rstrip(b"\r\n").endswith(UNDO) or number == signal.SIGTSTP
    assert "stopped by" not in job.rest(), "no second time"


def test_an_editor_that_is_suspended_stops_the_chat_with_it(start, tmp_path):
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho in the editor\nkill -TSTP 0\necho edited >\"$1\"\n")
    editor.chmod(0o755)
    job = start(wrapper=[sys.executable, "-c", SHELL], VISUAL=str(editor))
    job.expect("✓ tiny ready")
    job.type("\x07")
    job.expect("in the editor")
    job.expect(f"stopped by {signal.SIGTSTP.value}")
    job.type("fg\n")
    job.expect("> edited")
    job.send("")
    job.expect("You said: edited")
    leave(job)


def test_an_editor_that_does_not_exist_leaves_the_prompt_as_it_was(start):
    chat = start(VISUAL="/nonexistent/editor")
    chat.expect("✓ tiny ready")
    chat.type("text\x07")
    chat.expect("/nonexistent/editor failed; the prompt is as it was")
    chat.send("")
    chat.expect("You said: text")
    leave(chat)


def wait_channel(pid):
    """Where in the kernel it sleeps."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT])
def test_a_terminal_that_takes_nothing_does_not_keep_it_alive(ready, number):
    chat = ready()
    chat.type("/help\n" * 500)
    while "epoll" in wait_channel(chat.pid) or "poll" not in wait_channel(chat.pid):  # until no more is taken
        time.sleep(0.05)
    chat.kill(number)
    _, status = os.waitpid(chat.pid, 0)
    chat.status = status
    assert os.waitstatus_to_exitcode(status) == (143 if number == signal.SIGTERM else -number)
    assert chat.terminal_is_as_before()


@pytest.mark.parametrize("stop", [lambda chat: chat.type("\x1a"), lambda chat: chat.kill(signal.SIGTSTP)],
                         ids=["key", "signal"])
def test_where_no_shell_could_wake_it_nothing_stops(ready, stop):
    chat = ready()
    chat.type("half a text")
    chat.expect("half a text")
    stop(chat)
    chat.expect("half a text")  # drawn again
    chat.type("\n")
    chat.expect("You said: half a text")
    leave(chat)


def test_raw_mode_is_what_it_should_be(ready):
    chat = ready()
    iflag, oflag, cflag, lflag, *_ = termios.tcgetattr(chat.slave)
    assert not iflag & (termios.ICRNL | termios.IXON)
    assert not lflag & (termios.ISIG | termios.ICANON | termios.ECHO)
    assert ASKED in chat.output
    leave(chat)
