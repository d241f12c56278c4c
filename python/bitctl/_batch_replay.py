"""Batches that are drawn again as they were drawn: from the same order of the data, with the same random numbers.

A loader has drawn some batches ahead of the step that a snapshot stands at. To resume exactly, the random generators are put
to where they stood at the epoch's beginning, then, batch by batch, to where each of those was drawn, and then to the snapshot's.
Random numbers drawn inside the loader's workers cannot be had back: with those it is exact at the ends of epochs.
"""

import collections
import os

from . import _random_state

_watching = None


def _hook_fetch():
    from torch.utils.data._utils import fetch

    original = fetch._MapDatasetFetcher.fetch
    if hasattr(original, "_bitctl"):
        return

    def hooked(self, indices):
        if _watching is not None and _watching.pid == os.getpid():
            _watching._before_fetch(self)
        return original(self, indices)

    hooked._bitctl = True
    fetch._MapDatasetFetcher.fetch = hooked


class BatchReplay:
    """`ahead`: batches that may have been drawn and not been trained on, at most."""

    def __init__(self, ahead):
        self.pid = os.getpid()
        self._ahead = ahead
        self._fetcher = None  # the training loader's of this epoch: the first that draws in it
        self._drawn = collections.deque(maxlen=ahead)  # the generators before each of the newest batches
        self._count = 0  # of batches drawn since `_since`
        self._since = 0  # the step at which this epoch began, or was resumed
        self._at_epoch_begin = None  # the generators
        self._snapshot = {"mid_epoch": False, "in_flight": 0}
        self._to_replay = collections.deque()
        self._resumed = None  # the generators of the snapshot that is being caught up with

    def watch(self):
        global _watching
        _hook_fetch()
        _watching = self

    def unwatch(self):
        global _watching
        _watching = None

    def _before_fetch(self, fetcher):
        if self._fetcher is None:
            self._fetcher = fetcher
        if fetcher is not self._fetcher:
            return
        if self._to_replay:
            _random_state.put_back(self._to_replay.popleft())
        self._drawn.append(_random_state.capture())
        self._count += 1

    def begin_epoch(self, step):
        """Before the loader is asked for its first batch."""
        if self._resumed is not None and self._snapshot["mid_epoch"]:
            _random_state.put_back(self._at_epoch_begin)
        else:
            if self._resumed is not None:
                self.caught_up()
            self._at_epoch_begin = _random_state.capture()
        self._fetcher, self._count, self._since = None, 0, step
        self._drawn.clear()

    def caught_up(self):
        """The batches in flight have been drawn again."""
        if self._resumed is not None:
            _random_state.put_back(self._resumed)
        self._resumed = None
        self._to_replay.clear()

    def stand_at(self, step, at_epoch_begin, batches_per_step):
        """What state_dict() is to say: `step` steps are done, and the next begins, or an epoch."""
        trained = (step - self._since) * batches_per_step
        in_flight = 0 if at_epoch_begin else max(0, min(self._count - trained, len(self._drawn)))
        self._snapshot = {"mid_epoch": not at_epoch_begin, "in_flight": in_flight}

    def state_dict(self):
        """Of one size, however many batches are in flight."""
        now = _random_state.capture()
        in_flight = self._snapshot["in_flight"]
        drawn = list(self._drawn)[len(self._drawn) - in_flight :] + [now] * (self._ahead - in_flight)
        states = [self._at_epoch_begin or now, *drawn]
        import torch

        data = b"".join(map(_random_state.to_bytes, states))
        rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(len(states), -1)
        return dict(self._snapshot, random=rows)

    def load_state_dict(self, saved):
        self._snapshot = {name: saved[name] for name in ("mid_epoch", "in_flight")}
        begin, *drawn = [_random_state.from_bytes(row.numpy().tobytes()) for row in saved["random"]]
        self._at_epoch_begin = begin
        self._to_replay = collections.deque(drawn[: saved["in_flight"]])
        self._resumed = begin  # until restored() says where they stand

    def restored(self, step):
        """The random generators are put back."""
        self._since = step
        if self._resumed is not None:
            self._resumed = _random_state.capture()
