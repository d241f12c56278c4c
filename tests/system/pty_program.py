"""A program on a pseudo-terminal, and what a user does there."""

import os
import pty
import re
import select
import signal
import struct
import fcntl
import termios
import time

PATIENCE = 120


class PtyProgram:
    """`answers` maps what the program asks its terminal (bytes) to the terminal's answer."""

    def __init__(self, argv, env=None, answers=None, rows=24, columns=80):
        self.answers = dict(answers or {})
        self.output = b""  # all that was ever written
        self.seen = 0  # how much of it expect() has gone past
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(self.slave, fd)
            os.closerange(3, 256)
            os.execve(argv[0], argv, {"TERM": "xterm-256color", **os.environ, **(env or {})})
        self.status = None

    def read_some(self, timeout):
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        self.output += os.read(self.master, 65536)
        for question, answer in list(self.answers.items()):
            if question in self.output:
                del self.answers[question]
                self.type(answer)
        return True

    def expect(self, pattern, timeout=PATIENCE):
        """Reads until the pattern (text, or compiled bytes) comes behind what was expected before."""
        regex = re.compile(re.escape(pattern.encode())) if isinstance(pattern, str) else pattern
        deadline = time.monotonic() + timeout
        while True:
            match = regex.search(self.output, self.seen)
            if match:
                self.seen = match.end()
                return match
            left = deadline - time.monotonic()
            if left <= 0 or not self.read_some(left):
                shown = self.output[self.seen:].decode(errors="replace")
                raise AssertionError(f"never came: {regex.pattern!r}; what came: {shown!r}")

    def rest(self, silence=0.3):
        """Everything not yet expected, once it is silent."""
        while self.read_some(silence):
            pass
        rest = self.output[self.seen:].decode(errors="replace")
        self.seen = len(self.output)
        return rest

    def type(self, text):
        os.write(self.master, text if isinstance(text, bytes) else text.encode())

    def send(self, text):
        """A prompt, sent by Ctrl+J."""
        self.type(text + "\n")

    def kill(self, number):
        os.kill(self.pid, number)

    def wait(self, timeout=PATIENCE):
        """The exit code, or -N after signal N; reads what is written meanwhile."""
        deadline = time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
            elif time.monotonic() > deadline:
                raise AssertionError("it does not end: " + self.rest())
            else:
                self.read_some(0.02)
        while self.read_some(0):
            pass
        return os.waitstatus_to_exitcode(self.status)

    def terminal_is_as_before(self):
        return termios.tcgetattr(self.slave) == self.before

    def children(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)
