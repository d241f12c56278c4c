#!/usr/bin/env python3
"""Shows on this terminal how `bitctl chat` comes up: the prompt first, the states, prompts that wait, a failed load and
its retry. It types what a user would type, into a tiny model made on the spot (make_model.py).

    demo.py [PROGRAM]       (build/bitctl)

Exit code 0 where everything that must be seen was seen.
"""

import os
import pathlib
import pty
import select
import sys
import tempfile
import time

import make_model

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "build" / "bitctl"
PATIENCE_S = 120
SEND = "\n"  # Ctrl+J
LEAVE = "\x04"  # Ctrl+D


class Chat:
    """The program on a pseudo-terminal; what it shows is shown here too."""

    def __init__(self, program, *arguments):
        print(f"\n$ bitctl chat {' '.join(map(str, arguments))}", flush=True)
        self.shown = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.setdefault("TERM", "xterm-256color")
            os.execv(program, [program, "chat", *map(str, arguments)])

    def type(self, text):
        os.write(self.terminal, text.encode())

    def must_show(self, *texts):
        """Waits for these, in this order, behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        for text in map(str.encode, texts):
            while text not in self.shown:
                if not select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0]:
                    sys.exit(f"\nthe demo never saw {text.decode()!r}")
                new = os.read(self.terminal, 65536)
                sys.stdout.buffer.write(new)
                sys.stdout.flush()
                self.shown += new
            self.shown = self.shown.partition(text)[2]

    def leave(self):
        self.type(LEAVE)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"\nit ended with {os.waitstatus_to_exitcode(status)}")


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else str(PROGRAM)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder  # its conversations are not the user's
        model = pathlib.Path(folder) / "tiny"
        make_model.make_model(model)

        chat = Chat(program, model, "--verbose", "--max-new-tokens", 12)
        chat.must_show("> ")
        chat.type("typed before anything is loaded" + SEND + "and one more" + SEND)
        chat.must_show("[REPL ready in ", "⏳ ", "✓ tiny ready", "prompt tokens reused", "prompt tokens reused")
        chat.type("/status" + SEND)
        chat.must_show("decoder: ", "conversation: 4 messages")
        chat.leave()

        later = pathlib.Path(folder) / "later"
        chat = Chat(program, later, "--max-new-tokens", 12)
        chat.must_show("✗ Failed: ", "/retry loads it again")
        make_model.make_model(later)
        chat.type("/retry" + SEND)
        chat.must_show("✓ later ready")
        chat.leave()

        chat = Chat(program, pathlib.Path(folder) / "elsewhere", "--offline")
        chat.must_show("⚠ Offline mode - model not available")
        chat.leave()
    print("\nThe demo saw every state it wanted to see.")


if __name__ == "__main__":
    main()
