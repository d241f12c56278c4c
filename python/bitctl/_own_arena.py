"""The arena that this process's snapshots go into: asked of the supervisor, mapped, and replaced where it is too small."""

import os
import sys
import time

_PACE = 30.0  # seconds before memory that was refused is asked for again


class OwnArena:
    """`arena`: what can be written into now, or None. `open_arena(message, fds)` maps what was granted."""

    def __init__(self, link, open_arena):
        self.arena = None
        self._link = link
        self._open = open_arena
        self._next = None  # until its pages are mapped
        self._request = 0  # number of the last one, and what it asked for
        self._wanted = None
        self._refused_at = None

    def holds(self, files):
        return self.arena is not None and self.arena.holds(files.needs())

    @property
    def is_refused(self):
        """There was no memory for what was asked for last."""
        return self._refused_at is not None

    def ask_for(self, files):
        """Once, unless it is refused; then again from time to time."""
        wanted = files.regions()
        refused = self._refused_at
        if self._wanted == wanted and (refused is None or time.monotonic() - refused < _PACE):
            return
        self._wanted, self._refused_at = wanted, None
        self._request += 1
        self._link.send_patiently({"type": "arena", "request": self._request, "files": wanted})

    def look_at(self, messages):
        """Takes the answers that are for it; the descriptors of all others are closed."""
        for message, fds in messages:
            kind = message.get("type")
            if kind == "arena_ready" and message["request"] == self._request:
                self._next = self._open(message, fds)
                self._next.populate()
                continue
            for fd in fds:
                os.close(fd)
            if kind == "arena_failed" and message["request"] == self._request:
                self._refused_at = time.monotonic()
                print("bitctl: no memory for snapshots: %s" % message.get("reason"), file=sys.stderr)
        if self._next is not None and self._next.is_populated():
            self.arena, self._next = self._next, None
