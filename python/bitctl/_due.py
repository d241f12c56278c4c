"""When a checkpoint is due. Pure; the clock is the caller's."""

import math

LONGEST = 600.0  # seconds: what a failure may cost, however rare they are
OVERHEAD = 0.01  # of the training's time
SLOWED = 0.02  # by how much a training is slowed down while the writer saves beside it
UNKNOWN = 86400.0  # seconds between failures where none has been seen


def cost_of(stall, persist):
    """Seconds of training that one checkpoint takes."""
    return stall + SLOWED * persist


def auto_interval(stall, persist, time_to_failure=UNKNOWN):
    """Seconds between two checkpoints that lose the least: Young's sqrt(2·T_fail·T_save), within the overhead allowed."""
    cost = cost_of(stall, persist)
    return max(min(LONGEST, math.sqrt(2 * time_to_failure * cost)), cost / OVERHEAD, persist, 1.0)


def time_to_failure(seconds, failures):
    """Mean seconds between the failures of a run that has had so many in so long."""
    return seconds / failures if failures else max(seconds, UNKNOWN)


class Due:
    """When a process that saves alone does so; or, of several, when rank 0 wants all of them to.

    `policy`: {"steps": N}, {"seconds": S} or {"auto": true, "ran_seconds": S, "failures": N}."""

    def __init__(self, policy):
        self._steps = policy.get("steps")
        self._seconds = policy.get("seconds")
        self._time_to_failure = time_to_failure(policy.get("ran_seconds", 0.0), policy.get("failures", 0))
        self._last_step = None
        self._last_time = None
        self._stall = 0.0
        self._waits = False  # was due, and no slot was free
        self._told = 0.0
        self._last_offered = None

    def interval(self, persist):
        """Seconds, or None where steps are counted."""
        return None if self._steps else self._seconds or auto_interval(self._stall, persist, self._time_to_failure)

    def news(self, persist):
        """The interval that was worked out here, where it is a tenth off what was told last; else None."""
        if self._steps or self._seconds or not persist:
            return None
        interval = self.interval(persist)
        return None if abs(interval - self._told) <= self._told / 10 else interval

    def told(self, interval):
        self._told = interval

    def is_due(self, step, now, persist):
        if self._last_time is None:
            self._last_step, self._last_time = step - 1, now
        if self._waits:
            return True
        if self._steps:
            # Counted in steps of the run, not of the attempt: a resumed run saves at the same steps.
            self._waits = step // self._steps > self._last_step // self._steps
        else:
            self._waits = now - self._last_time >= self.interval(persist)
        return self._waits

    def is_time(self, now, persist):
        """True where time has made one due."""
        return not self._steps and self.is_due(0, now, persist)

    def crosses(self, step):
        """True where counting steps makes one due; every rank that is offered the same steps finds the same."""
        before = step - 1 if self._last_offered is None else self._last_offered
        self._last_offered = step
        return bool(self._steps) and step // self._steps > before // self._steps

    def taken(self, step, now, stall):
        self._last_step, self._last_time, self._stall = step, now, stall
        self._waits = False
