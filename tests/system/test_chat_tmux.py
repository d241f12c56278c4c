"""bitctl chat in a real terminal emulator: what stands on its screen while an answer grows above a text being typed."""

import os
import shlex
import shutil
import subprocess
import sys
import time

import pytest
from byte_model import FAKE_CHAT, write_byte_model
from pty_program import PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    def __init__(self, socket, command, columns, rows, **environment):
        self.socket = socket
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        self.run("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), f"{settings} {command}")

    def run(self, *arguments):
        env = {**os.environ, "LC_ALL": "C.UTF-8"}
        return subprocess.run(["tmux", "-S", str(self.socket), *arguments], capture_output=True, text=True, check=True,
                              env=env, timeout=PATIENCE).stdout

    def type(self, *keys):
        self.run("send-keys", *keys)

    def lines(self):
        return [line.rstrip() for line in self.run("capture-pane", "-p").rstrip("\n").split("\n")]

    def cursor(self):
        column, row = self.run("display-message", "-p", "#{cursor_x} #{cursor_y}").split()
        return int(column), int(row)

    def wait_for(self, condition):
        """The lines on the screen once they fulfil it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            lines = self.lines()
            if condition(lines):
                return lines
            time.sleep(0.02)
        raise AssertionError("the screen never came to that:\n" + "\n".join(lines))


@pytest.fixture
def terminal(tmp_path):
    model = write_byte_model(tmp_path / "tiny")
    made = Tmux(tmp_path / "tmux", f"sh -c '{FAKE_CHAT} chat {model}; echo left with $?; cat'", 40, 12,
                BITCTL_PYTHON=sys.executable, FAKE_ENDLESS="1", FAKE_TOKEN_MS="5", XDG_STATE_HOME=str(tmp_path / "state"))
    yield made
    made.run("kill-server")


def test_an_answer_grows_above_what_is_being_typed(terminal):
    terminal.wait_for(lambda lines: "✓ tiny ready" in lines)
    terminal.type("漢字 and 👍", "C-j")
    terminal.wait_for(lambda lines: any(line.startswith("You said: 漢字 and 👍") for line in lines))
    terminal.type("日本語", "Enter", "second line", "Up")

    def typed_below_three_rows_of_answer(lines):
        return "> 日本語" in lines and lines.index("> 日本語") >= lines.index("> 漢字 and 👍") + 4

    for _ in range(5):  # while it grows, the prompt is whole each time one looks
        lines = terminal.wait_for(typed_below_three_rows_of_answer)
        at = lines.index("> 日本語")
        assert lines[at:at + 3] == ["> 日本語", "  second line", "  (Alt+Enter or Ctrl+J to send)"]
        assert lines.count("> 日本語") == 1
    terminal.type("C-c")
    lines = terminal.wait_for(lambda lines: "[interrupted]" in lines)
    begin = lines.index("> 漢字 and 👍") + 1 if "> 漢字 and 👍" in lines else 0
    answer = "".join(lines[begin:lines.index("[interrupted]")])
    assert answer.replace(" ", "").startswith("Yousaid:漢字and👍-Yousaid:")
    assert terminal.cursor() == (8, lines.index("> 日本語")), "behind the third wide character of the upper line"
    terminal.type("C-c", "C-d")
    assert "left with 0" in terminal.wait_for(lambda lines: any(line.startswith("left with") for line in lines))
    terminal.type("as ever", "Enter")
    terminal.wait_for(lambda lines: lines.count("as ever") == 2)  # echoed by the terminal, and by cat: it is cooked again


def test_a_resize_leaves_one_prompt(terminal):
    terminal.wait_for(lambda lines: "✓ tiny ready" in lines)
    terminal.type("a text that is longer than half of the width")
    terminal.wait_for(lambda lines: "  e width" in lines)
    for width in ("24", "60", "31"):
        terminal.run("resize-window", "-x", width, "-y", "12")
        text = "a text that is longer than half of the width"
        cells = int(width) - 3
        rows = [text[at:at + cells].rstrip() for at in range(0, len(text), cells)]
        expected = ["> " + rows[0], *("  " + row for row in rows[1:])]
        lines = terminal.wait_for(lambda lines: lines[-len(expected):] == expected)
        assert sum(line.startswith("> ") for line in lines) == 1


def test_the_keys_that_tmux_sends(terminal):
    terminal.wait_for(lambda lines: "✓ tiny ready" in lines)
    terminal.type("one", "S-Enter", "two", "Enter", "three")
    lines = terminal.wait_for(lambda lines: "  three" in lines)
    at = lines.index("> one")
    assert lines[at:at + 3] == ["> one", "  two", "  three"], "Shift+Enter and Enter break the line"
    for key in ("C-Enter", "M-Enter", "C-j"):
        terminal.type(key)
        terminal.wait_for(lambda lines: any(line.startswith("You said: ") for line in lines))
        terminal.type("C-c")
        terminal.wait_for(lambda lines: "[interrupted]" in lines)
        terminal.type("C-l")
        terminal.wait_for(lambda lines: lines == ["> Type a message... (Ctrl+Enter to send"])  # what the keys proved
        terminal.type("again")
