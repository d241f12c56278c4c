"""What an attempt goes on from: the images that the supervisor handed over, put back into the script's objects."""

import contextlib
import os
import sys

from . import restore, snapshot

OWN_FAILURE = 125


class Resume:
    """`message`: the supervisor's `resume`. `open_arena(message, fds)` maps an arena that this process goes on to use."""

    def __init__(self, message, rank, open_arena, open_shared):
        self._message = message
        self._rank = rank
        self._open_arena, self._open_shared = open_arena, open_shared
        self._shared = None  # rank 0's
        self.arena = None  # this rank's own, where it has saved one

    def open(self, fds):
        """Of rank 0, and this rank's own. The descriptors come in this order."""
        if self._rank == 0:
            self.arena = self._shared = self._open_arena(self._message, fds[:2])
            return
        self._shared = self._open_shared(self._message, fds[:2])
        own = self._message.get("own")
        self.arena = self._open_arena(own, fds[2:4]) if own else None

    @property
    def step(self):
        return self._message["step"]

    def put_back(self, link, objects, world_size, is_sharded):
        """Into `objects`; returns the checkpoint's facts. Does not return where it does not fit the script."""
        while True:
            try:
                facts = self._put_back_images(objects, world_size, is_sharded)
            except restore.NotVerified:
                self._take_next(link)
                continue
            except restore.Mismatch as error:
                self.refuse(link, "does not fit this script: %s" % error)
            if self._message.get("data") is not None and "data" in objects:
                objects["data"].load_state_dict(self._message["data"])
                print("bitctl: the data that led to a loss that is not finite is passed over", file=sys.stderr)
            self._shared = None
            return facts

    def state_of(self, name, link):
        """What the object of that name was saved as, of a checkpoint that put_back() will find whole; None where it has none."""
        while True:
            own = self._rank > 0 and "own" in self._message
            try:
                saved = restore.Saved(self.arena, self._message["own"]["slot"]) if own else restore.Saved(self._shared, self._message["slot"])
                saved.wait()
                return saved.state_of(name)
            except restore.NotVerified:
                self._take_next(link)

    def _take_next(self, link):
        """The supervisor is choosing the next one, or ends this run where there is none."""
        self._message, fds = link.wait_for({"resume"})
        self.open(fds)

    def _put_back_images(self, objects, world_size, is_sharded):
        saved_by = self._message.get("world_size", 1)
        self._check_world_size(saved_by, world_size, is_sharded)
        shared = own = restore.Saved(self._shared, self._message["slot"])
        if self._rank > 0:
            own = restore.Saved(self.arena, self._message["own"]["slot"]) if "own" in self._message else None
        if is_sharded:
            shared = own
        elif own is None:
            print("bitctl: the checkpoint is of %d ranks; rank %d begins with random generators of its own" % (saved_by, self._rank), file=sys.stderr)
        restore.put_back(shared, own, objects)
        if saved_by > 1:
            shared.wait()  # no rank goes on from what another may still find damaged
        return shared.facts

    def _check_world_size(self, saved_by, world_size, is_sharded):
        was_sharded = self._message["files"][0]["name"] == snapshot.file_names(0, True, True)[0]
        if was_sharded != is_sharded:
            words = ("with", "without") if was_sharded else ("without", "with")
            raise restore.Mismatch("it was saved %s sharded=True, and restore() was called %s" % words)
        if was_sharded and saved_by != world_size:
            raise restore.Mismatch("its state is sharded over %d ranks, and this run has %d" % (saved_by, world_size))

    def refuse(self, link, reason):
        """Says why, and ends this process: to train on from step 0, or from half a checkpoint, would ruin the run."""
        reason = "the checkpoint of step %d %s" % (self.step, reason)
        print("bitctl: %s" % reason, file=sys.stderr)
        with contextlib.suppress(Exception):
            link.send_patiently({"type": "restore_failed", "step": self.step, "reason": reason[:2000]})
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(OWN_FAILURE)
