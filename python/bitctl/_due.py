"""When a checkpoint is due. Pure; the clock is the caller's."""


def auto_interval(stall, persist):
    """Seconds between two snapshots: at most 1 % of the time is spent copying, at most a tenth writing."""
    return min(600.0, max(30.0, 100.0 * stall, 10.0 * persist))


class Due:
    """`policy`: {"steps": N}, {"seconds": S} or {"auto": true}."""

    def __init__(self, policy):
        self._steps = policy.get("steps")
        self._seconds = policy.get("seconds")
        self._last_step = None
        self._last_time = None
        self._stall = 0.0
        self._waits = False  # was due, and no slot was free

    def is_due(self, step, now, persist):
        if self._last_time is None:
            self._last_step, self._last_time = step - 1, now
        if self._waits:
            return True
        if self._steps:
            # Counted in steps of the run, not of the attempt: a resumed run saves at the same steps.
            self._waits = step // self._steps > self._last_step // self._steps
        else:
            interval = self._seconds or auto_interval(self._stall, persist)
            self._waits = now - self._last_time >= interval
        return self._waits

    def taken(self, step, now, stall):
        self._last_step, self._last_time, self._stall = step, now, stall
        self._waits = False
