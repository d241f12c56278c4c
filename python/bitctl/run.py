"""The one object a training script talks to.

    run = bitctl.init()                       # a no-op object outside bitctl
    start = run.restore(model=model, optimizer=optimizer, scheduler=scheduler)
    for step in range(start + 1, steps + 1):
        ...
        run.progress(step=step, total_steps=steps, loss=loss)
        run.checkpoint(step)
    run.finish()

Nothing here raises into the script: a failure is one line on stderr, and the package goes silent for good. The one
exception is a stop that the user asked for: checkpoint() then leaves by SystemExit(75) after the last snapshot. And
where there is a checkpoint to go on from, a failure before it is back ends the process: to train on from step 0, or
from half a checkpoint, would ruin the run.
"""

import atexit
import contextlib
import functools
import json
import math
import os
import platform
import sys
import time
import traceback

from . import _arena, _link, _stacks, modules, side_files, snapshot
from ._due import Due
from ._error_report import error_message
from ._own_arena import OwnArena
from ._resume import Resume

PROTOCOL = 1
STOPPED = 75
_PROGRESS_PACE = 0.05  # seconds between two progress messages; the last one is never lost
_PHASES = ("init", "train", "eval", "checkpoint", "busy")  # numbered as in src/watch/stall_watch.h
_MOST_DATA_STATE = 32768  # bytes of JSON


def _guarded(otherwise):
    """Every entry point: inactive in forks and outside bitctl, silent for good after a failure of our own."""

    def wrap(method):
        @functools.wraps(method)
        def call(self, *args, **kwargs):
            if not self._active or os.getpid() != self._pid:
                return otherwise
            try:
                return method(self, *args, **kwargs)
            except _link.Closed:
                self._active = False  # the supervisor is dead; its writer ends this process at once
                return otherwise
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the script
                self.fail(method.__name__.strip("_"), error)
                return otherwise

        return call

    return wrap


def _number(value):
    """float() of a number or a 0-d tensor, which may still carry a gradient."""
    return float(value.detach() if hasattr(value, "detach") else value)


def _non_finite_name(value):
    return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")


class Run:
    """What init() returns. One per process."""

    def __init__(self, environment=None):
        env = os.environ if environment is None else environment
        self._pid = os.getpid()
        self._active = bool(env.get("BITCTL_SOCKET")) and bool(env.get("BITCTL_TOKEN"))
        self._env = env
        self._resume = None  # what is still to be put back
        self._objects = None
        self._collector = None  # None: this process saves nothing
        self._saved = {}  # of the objects, those that it saves
        self._is_sharded = False
        self._has_offered = False
        self._last_taken = 0  # the step of its newest snapshot, or that it was resumed from
        self._arena_is_final = False  # asked for again after the first optimizer step
        self._step = 0
        self._epoch = None
        self._metrics = {}
        self._pending = None
        self._phase = ({"phase": "train"}, None)
        self._unsent_phase = None
        self._last_sent = 0.0
        self._side = ""
        self._finished_step = None
        self._modules_wanted = False
        self._connect()

    # ---- connection -------------------------------------------------------------------------------------------------

    @_guarded(None)
    def _connect(self):
        env = self._env
        self._attempt = int(env.get("BITCTL_ATTEMPT") or 0)
        self._rank = int(env.get("RANK") or env.get("SLURM_PROCID") or 0)
        self._world_size = int(env.get("WORLD_SIZE") or env.get("SLURM_NTASKS") or 1)
        self.run_dir = env["BITCTL_RUN_DIR"]
        self._link = _link.Link(env["BITCTL_SOCKET"])
        torch = snapshot.torch_module()
        self._link.send_patiently(
            {
                "type": "hello", "protocol": PROTOCOL, "role": "trainer", "attempt": self._attempt,
                "token": env["BITCTL_TOKEN"], "rank": self._rank, "world_size": self._world_size, "pid": self._pid,
                "restart": int(env.get("TORCHELASTIC_RESTART_COUNT") or 0),
                "python": platform.python_version(), "torch": torch.__version__ if torch else "",
                "threads": torch.get_num_threads() if torch else 0,
            }
        )  # fmt: skip
        # The supervisor's loop never waits for a disk, so its answer is worth waiting for, however long it is stopped:
        # to train without it could mean to train from the start again.
        welcome, fds = self._link.wait_for({"welcome", "refused"})
        if welcome["type"] == "refused":
            raise OSError("refused by bitctl: %s" % welcome.get("reason"))
        if welcome.get("protocol") != PROTOCOL:
            raise OSError("bitctl speaks protocol %s, this package %s" % (welcome.get("protocol"), PROTOCOL))
        self._library = _arena.load_library(welcome["snapshot_library"])
        self._control = _arena.Control(self._library, fds[0], fds[1])  # what all ranks are asked for
        # Where its own step and slots stand.
        self._page = self._control if self._rank == 0 else _arena.Control(self._library, fds[welcome["own_page"]], fds[1])
        stacks = welcome.get("stacks")
        if stacks:
            _stacks.answer(stacks["signal"], *fds[stacks["fd"] : stacks["fd"] + 2])
            self._link.send_patiently({"type": "stacks_ready"})
        if welcome.get("resume"):
            self._resume = Resume(welcome["resume"], self._rank, self._open_arena, self._open_shared)
        self._own_arena = OwnArena(self._link, self._open_arena)
        self._watch_non_finite = bool(welcome.get("watch_non_finite"))
        self._is_rolled_back = False
        self._due = Due(welcome.get("checkpoint_policy") or {})
        self._modules_wanted = bool(welcome.get("modules_wanted"))
        self._environ, self._resident = dict(os.environ), modules.resident_bytes()
        if self._resume:
            self._resume.open(fds[2:])
        self._report_exceptions()
        atexit.register(self._bye)

    def _open_arena(self, message, fds):
        return _arena.Arena(self._library, self._page, message["gen"], message["files"], fds)

    def _open_shared(self, message, fds):
        """Rank 0's, which this process only reads."""
        return _arena.Arena(self._library, self._control, message["gen"], message["files"], fds)

    def _report_exceptions(self):
        before = sys.excepthook

        def hook(kind, error, trace):
            self._tell_error(kind, error, trace)
            before(kind, error, trace)

        sys.excepthook = hook

    @_guarded(None)
    def _tell_error(self, kind, error, trace):
        self._send_pending()
        self._link.send_patiently(error_message(kind, error, trace))

    @_guarded(None)
    def _bye(self):
        self._send_pending()
        self._link.send({"type": "bye"})

    # ---- progress ---------------------------------------------------------------------------------------------------

    @property
    def active(self):
        """True under bitctl, while nothing has failed."""
        return self._active

    def fail(self, what, error):
        """The package, or a hook that uses it, goes silent for good; where a checkpoint is still to be put back, the process ends."""
        if self._resume is not None:
            self._resume.refuse(self._link, "cannot be put back: %s: %s" % (type(error).__name__, error))
        self._active = False
        reason = "".join(traceback.format_exception_only(type(error), error)).strip()
        reason = "%s failed (%s)" % (what, reason)
        with contextlib.suppress(Exception):
            self._link.send({"type": "silent", "reason": reason[:500]})
        print("bitctl: %s; from here on this run is supervised by its exit alone" % reason, file=sys.stderr)

    @_guarded(None)
    def progress(self, step, total_steps=None, epoch=None, total_epochs=None, loss=None, lr=None):
        """Reports `step` completed optimizer steps. Numbers, or anything float() takes (a 0-d tensor, say)."""
        step = int(step)
        self._reach(step)
        message = {"type": "progress", "step": step}
        for name, value in (("total_steps", total_steps), ("epoch", epoch), ("total_epochs", total_epochs), ("lr", lr)):
            if value is not None:
                message[name] = int(value) if name == "total_steps" else _number(value)
        self._epoch = message.get("epoch", self._epoch)
        if loss is not None:
            loss = _number(loss)
            if math.isfinite(loss):
                message["loss"] = loss
                self._metrics["loss"] = loss
            else:
                message["non_finite_loss"] = _non_finite_name(loss)
        self._pending = message
        if self._watch_non_finite and self._rank == 0 and "non_finite_loss" in message:
            self._tell_non_finite(step)
        now = time.monotonic()
        if now - self._last_sent >= _PROGRESS_PACE or "non_finite_loss" in message:
            self._send_pending()
        self._own_arena.look_at(self._link.poll())
        self._prepare_arena()
        if self._modules_wanted:
            self._hand_over_modules()
        if self._objects is None and self._stop_is_due(step):
            self._leave(step, None)

    def _reach(self, step):
        self._step = step
        self._page.set_step(step)
        if self._rank == 0 and self._world_size > 1:
            self._control.agree(step)

    def _tell_non_finite(self, step):
        """Once: where the data went on, so that a rolled back attempt passes over what led here."""
        self._watch_non_finite, self._is_rolled_back = False, True
        self._send_pending()
        message = {"type": "non_finite", "step": step}
        data = (self._objects or {}).get("data")
        with contextlib.suppress(TypeError, ValueError):
            state = None if data is None else data.state_dict()
            if len(json.dumps(state)) <= _MOST_DATA_STATE:
                message["data"] = state
        self._link.send_patiently(message)

    @contextlib.contextmanager
    def phase(self, name, text="", at_most=None):
        """While it lasts, `name` ("eval", "checkpoint", "busy") is what goes on, and its own history says how long that takes.

        `at_most`: seconds; after them it counts as hung.
        """
        if name not in _PHASES:
            print("bitctl: %r is no phase (%s); taken for busy" % (name, ", ".join(_PHASES)), file=sys.stderr)
            name, text = "busy", text or name
        before = self._phase
        self._enter({"phase": name, "text": str(text)[:200]}, at_most)
        try:
            yield
        finally:
            self._enter(*before)

    def busy(self, text, at_most=None):
        """`with run.busy("exporting"):` long honest work that reports nothing; without `at_most` it may take any time."""
        return self.phase("busy", text, at_most)

    @_guarded(None)
    def _enter(self, phase, at_most=None):
        self._phase = (phase, at_most)
        limited = at_most is not None and math.isfinite(at_most) and at_most > 0
        # There it counts, also where no message gets through at the moment.
        self._control.enter(_PHASES.index(phase["phase"]), max(1, int(min(at_most, 1e9) * 1000)) if limited else 0)
        self._unsent_phase = dict(phase, type="phase")
        self._send_pending()

    def _hand_over_modules(self):
        """Once in a run, after its first step: some milliseconds, for the spare that makes the next attempt start at once."""
        self._modules_wanted = False
        try:
            objection, fd = modules.objection(), modules.handed_over(self._environ)
        except Exception as error:  # noqa: BLE001 - a training without a spare is as good
            objection, fd = "the list of modules failed: %s: %s" % (type(error).__name__, error), os.open(os.devnull, os.O_RDONLY)
        message = {"type": "modules", "objection": objection[:300], "resident_bytes": self._resident}
        try:
            self._link.send_patiently(message, [fd])
        finally:
            os.close(fd)

    def _send_pending(self):
        # In order, and never waiting: a supervisor that does not read at the moment gets the newest of each.
        if self._unsent_phase is not None and self._link.send(self._unsent_phase):
            self._unsent_phase = None
        if self._pending is not None and self._link.send(self._pending):
            self._pending = None
            self._last_sent = time.monotonic()

    @_guarded(False)
    def pulse(self, status):
        """A status that the script wrote through bitctl.pulse; False where it did not reach the supervisor."""
        message = dict(status, type="pulse")
        loss = _number(message["loss"])
        if math.isfinite(loss):
            self._metrics["loss"] = loss
        else:
            message["loss"] = self._metrics.get("loss", 0.0)
            message["non_finite_loss"] = _non_finite_name(loss)
        # Only the last word is worth a wait.
        if status["status"] == "running":
            return self._link.send(message)
        self._link.send_patiently(message)
        return True

    # ---- snapshots --------------------------------------------------------------------------------------------------

    @_guarded(0)
    def restore(
        self, model=None, optimizer=None, scheduler=None, scaler=None, data=None, tokenizer=None, side=None, sharded=None, **more
    ):  # fmt: skip
        """Registers what a checkpoint holds and puts the newest one back. Returns the steps it had completed, 0 when fresh.

        Anything with state_dict() and load_state_dict() may be given, under any keyword. `tokenizer` and `side`
        ({name: path}) are written beside the model once.

        Of several ranks every one calls it. Rank 0 saves all that it registers. The others are replicas of it: those that call
        checkpoint(), at the same steps, save their random generators and `data`, and get the rest from rank 0.
        `sharded=True`: every rank's objects hold a part of their own, and are saved and put back whole; without a word
        where parameters are DTensors (FSDP's fully_shard).
        """
        objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, "data": data}
        objects.update(more)
        self._objects = {name: value for name, value in objects.items() if value is not None}
        parts = snapshot.holds_parts(self._objects.values())
        self._is_sharded = bool(parts if sharded is None else sharded) and self._world_size > 1
        saves_all = self._rank == 0 or self._is_sharded
        self._saved = {name: value for name, value in self._objects.items() if saves_all or name == "data"}
        names = snapshot.file_names(self._rank, saves_all, self._is_sharded)
        self._collector = snapshot.Collector(names, parts and (self._is_sharded or self._world_size == 1))
        step = self._put_back() if self._resume is not None else 0
        if self._rank == 0:
            self._write_side_files(model, tokenizer, side)
        self._step = self._last_taken = step
        self._page.set_step(step)
        if self._is_sharded:
            self._control.join(self._world_size - 1)
        self._link.send_patiently({"type": "restored", "step": step, "sharded": self._is_sharded})
        self._prepare_arena(now=True)
        return step

    @_guarded(None)
    def saved(self, name):
        """Before restore(): what the object of that name will get from it; None where nothing is to be put back."""
        return None if self._resume is None else self._resume.state_of(name, self._link)

    def _put_back(self):
        facts = self._resume.put_back(self._link, self._objects, self._world_size, self._is_sharded)
        self._epoch, self._metrics = facts.get("epoch"), dict(facts.get("metrics") or {})
        self._own_arena.arena = self._resume.arena
        if self._resume.arena is not None:
            self._resume.arena.populate()  # not before: the copy out of it needs the processors
        step, self._resume = self._resume.step, None
        return step

    def _write_side_files(self, model, tokenizer, side):
        try:
            self._side = side_files.write(os.path.join(self.run_dir, "checkpoints"), model, tokenizer, side)
        except Exception as error:  # noqa: BLE001 - the weights are worth saving without them
            print(
                "bitctl: checkpoints will lack config and tokenizer (%s: %s); `bitctl chat` will not open them"
                % (type(error).__name__, error), file=sys.stderr,
            )  # fmt: skip

    @_guarded("not_due")
    def checkpoint(self, step, force=False, metrics=None):
        """Offers the state after `step` steps: "taken", "deferred" (no slot is free; due at the next call) or "not_due".

        When it returns "taken", the snapshot is complete in memory that this process does not own, and survives its
        death. `metrics` (name -> number) go into the manifest.
        """
        step = int(step)
        self._reach(step)
        for name, value in (metrics or {}).items():
            value = _number(value)
            if math.isfinite(value):
                self._metrics[str(name)] = value
            else:
                self._metrics.pop(str(name), None)
        self._own_arena.look_at(self._link.poll())
        stop = self._stop_is_due(step)
        if self._collector is None and self._rank != 0:  # its rank 0 saves for all
            if stop:
                self._leave(step, None)
            return "not_due"
        save_at = self._control.save_at()
        if self._world_size > 1:
            due = self._is_due_for_all(step, save_at)
            if not self._has_offered and not stop:
                # By the next step every rank that saves has said so.
                self._has_offered = True
                self._control.join(self._rank)
                self._prepare_arena()
                if force or due:
                    self._control.save_by(step + 1)
                return "deferred" if force or due else "not_due"
        else:
            requested = save_at != 0 and step >= save_at
            due = requested or self._due.is_due(step, time.monotonic(), self._control.persist_seconds())
        if not (force or stop or due):
            self._prepare_arena()
            return "not_due"
        if self._objects is None:
            raise RuntimeError("checkpoint() before restore(): nothing is registered")
        taken = self._take(step, final=False, patient=stop)
        if self._world_size > 1:
            if not taken and not self._own_arena.is_refused:
                self._control.save_by(step + 1)
        elif taken and requested:
            self._control.clear_save_at(save_at)
        if stop:
            self._leave(step, taken)
        return "taken" if taken else "deferred"

    def _is_due_for_all(self, step, save_at):
        """Ranks save at the same step: one that each of them counts out by itself, or that one has told the others before they
        were there."""
        crosses = self._due.crosses(step)
        if crosses or self._last_taken < save_at <= step:
            return True
        if self._rank == 0 and self._due.is_time(time.monotonic(), self._control.persist_seconds()):
            self._control.save_by(step + 1)
        return False

    def _take(self, step, final, patient):
        """Copies one snapshot; False where no slot of a fitting arena is free. `patient` waits for one, unless there is
        no memory for it."""
        if self._is_rolled_back:
            return False  # it would push a good one out of its slot
        while True:
            started = time.monotonic()
            files = self._collector.collect(self._saved, self._facts(step))
            if self._own_arena.holds(files):
                arena = self._own_arena.arena
                # Nothing goes on from the finished model: it is rank 0's alone.
                slot = arena.begin(step, self._attempt, 1 if final else self._control.world_size())
                if slot is not None:
                    try:
                        used = files.write(arena, slot)
                    except BaseException:
                        arena.abandon(slot)
                        raise
                    if not arena.commit(slot, used, final):
                        return False  # taken from under us: the supervisor holds this process for dead
                    self._due.taken(step, time.monotonic(), time.monotonic() - started)
                    self._tell_interval()
                    self._last_taken = step
                    return True
            else:
                self._own_arena.ask_for(files)
            if not patient or self._own_arena.is_refused:
                return False
            time.sleep(0.002)
            self._own_arena.look_at(self._link.poll())

    def _tell_interval(self):
        interval = self._due.news(self._control.persist_seconds())
        if interval is not None and self._link.send({"type": "checkpoint_interval", "seconds": interval}):
            self._due.told(interval)

    def _facts(self, step):
        facts = {"step": step, "metrics": self._metrics}
        if self._epoch is not None:
            facts["epoch"] = self._epoch
        if self._side:
            facts["side_files"] = self._side
        return facts

    def _prepare_arena(self, now=False):
        """Asks for the arena at restore(), and again once the optimizer has its state (after the first step)."""
        if self._collector is None or (self._arena_is_final and not now):
            return
        self._arena_is_final = not now
        files = self._collector.collect(self._saved, self._facts(self._step))
        if not self._own_arena.holds(files):
            self._own_arena.ask_for(files)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _stop_is_due(self, step):
        stop_at = self._control.stop_at()
        return stop_at != 0 and step >= stop_at

    def _leave(self, step, taken):
        self._send_pending()
        self._link.send_patiently({"type": "stopping", "step": step, "taken": bool(taken)})
        if taken is not None and self._world_size > 1:
            self._control.leave()
        sys.exit(STOPPED)

    @_guarded(False)
    def finish(self):
        """The finished model: one last snapshot, durable, with its side files, linked into <run>/model. True when it is.

        Idempotent; killed before it returns, the next attempt restores that step, runs nothing, and finishes.
        """
        self._send_pending()
        if self._finished_step == self._step or (self._rank != 0 and not self._is_sharded):
            return True
        if self._is_sharded or self._objects is None or "model" not in self._objects:
            # No model that others could load; of a sharded one, the last checkpoint.
            if self._is_sharded and self._last_taken != self._step:
                self._take(self._step, final=False, patient=True)
            self._link.send_patiently({"type": "finish", "step": self._step, "model": False})
            return True
        self._link.send_patiently({"type": "finish", "step": self._step, "model": True})
        if not self._take(self._step, final=True, patient=True):
            print("bitctl: the finished model is not on disk: no snapshot could be taken", file=sys.stderr)
            return False
        answer, _ = self._link.wait_for({"finished", "finish_failed"})
        if answer["type"] == "finish_failed":
            print("bitctl: the finished model is not on disk: %s" % answer.get("reason"), file=sys.stderr)
            return False
        self._finished_step = self._step
        return True


_run = None


def init():
    """The process's Run: under bitctl it reports and saves, elsewhere every method does nothing."""
    global _run
    if _run is None or _run._pid != os.getpid():
        _run = Run()
        from . import pulse

        pulse._set_run(_run if _run.active else None)
    return _run
