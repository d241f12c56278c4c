"""Hugging Face's Trainer, and what builds on it, under bitctl: progress, snapshots, resume, the finished model.

bitctl puts this in place itself when a script imports transformers (`run.hook: auto`). With `run.hook: off`, one line does:
Trainer(…, callbacks=[bitctl.transformers.BitctlCallback()]).

A snapshot is taken at the beginning of the next step, or of the next epoch: there, logging, evaluation and saving are over.
"""

import functools
import json
import os
import shutil
import sys
import tempfile
import time

from transformers.trainer_callback import ExportableState, TrainerCallback

from . import run as _run
from ._batch_replay import BatchReplay

_LOSS_PACE = 1.0  # seconds: on a GPU, to read the loss waits for it
_training = None  # a process has one: the first


def install(trainer_module):
    """Called once `transformers.trainer` has been imported."""
    trainer_module.DEFAULT_CALLBACKS.append(BitctlCallback)
    _hook_trainer(trainer_module.Trainer)


def _hook_trainer(trainer_class):
    if hasattr(trainer_class.train, "_bitctl"):
        return
    trainer_class.train = _hooked_train(trainer_class.train)
    for name, phase in (("evaluate", "eval"), ("predict", "eval"), ("_save_checkpoint", "checkpoint")):
        if hasattr(trainer_class, name):
            setattr(trainer_class, name, _in_phase(getattr(trainer_class, name), phase))


def _hooked_train(train):
    @functools.wraps(train)
    def hooked(self, resume_from_checkpoint=None, trial=None, *args, **kwargs):
        global _training
        callbacks = [c for c in self.callback_handler.callbacks if isinstance(c, BitctlCallback)]
        run = _run.init()
        if _training is not None or trial is not None or not callbacks or not run.active:
            return train(self, resume_from_checkpoint, trial, *args, **kwargs)
        _training = _Training(self, run, callbacks[0])
        with _training:
            try:
                return train(self, _training.folder or resume_from_checkpoint, trial, *args, **kwargs)
            except _AlreadyTrained:
                return self._finalize_training(trial, 0, time.time())

    hooked._bitctl = True
    return hooked


class _AlreadyTrained(BaseException):
    """The checkpoint is of the last step: the Trainer would run one more."""


def _in_phase(method, phase):
    @functools.wraps(method)
    def hooked(self, *args, **kwargs):
        if _training is None or self is not _training.trainer:
            return method(self, *args, **kwargs)
        with _training.run.phase(phase):
            return method(self, *args, **kwargs)

    return hooked


def _from_trainer(event):
    """Nothing raises into the Trainer but the end of a process that is to stop."""

    @functools.wraps(event)
    def guarded(self, args, state, control, **objects):
        training = _training
        if training is not None and training.callback is self and training.run.active:
            try:
                event(training, state, objects)
            except Exception as error:  # noqa: BLE001
                training.run.fail("the hook of %s" % event.__name__, error)

    return guarded


class BitctlCallback(TrainerCallback):
    """Inert outside bitctl, and where the Trainer has another one."""

    def __init__(self):
        _hook_trainer(sys.modules["transformers.trainer"].Trainer)

    @_from_trainer
    def on_train_begin(training, state, objects):  # noqa: N805
        training.begin(state, objects)

    @_from_trainer
    def on_epoch_begin(training, state, objects):  # noqa: N805
        training.begin_epoch(state)

    @_from_trainer
    def on_step_begin(training, state, objects):  # noqa: N805
        training.offer(state)

    @_from_trainer
    def on_step_end(training, state, objects):  # noqa: N805
        training.tell(state, objects)

    @_from_trainer
    def on_log(training, state, objects):  # noqa: N805
        training.logged(state, objects.get("logs") or {})

    @_from_trainer
    def on_train_end(training, state, objects):  # noqa: N805
        training.run.finish()


class _Training:
    """One call of Trainer.train(), and what a snapshot holds beside model, optimizer, scheduler and scaler: its `data`."""

    def __init__(self, trainer, run, callback):
        self.trainer, self.run, self.callback = trainer, run, callback
        self.folder = None  # what the Trainer resumes from: its own state alone
        self._state = None  # the Trainer's
        self._batches = BatchReplay(trainer.args.gradient_accumulation_steps + 1)
        self._offered = 0
        self._loss, self._loss_read_at, self._loss_before = None, 0.0, (0, 0.0)
        saved = run.saved("data")
        if saved is not None:
            self._resume_from(saved)

    def _resume_from(self, saved):
        """The Trainer finds its position as it does; the rest is put back in begin(), when all of it exists."""
        self.folder = tempfile.mkdtemp(prefix="bitctl-resume-")
        with open(os.path.join(self.folder, "trainer_state.json"), "w", encoding="utf-8") as file:
            file.write(saved["trainer_state"])
        for name in ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler"):
            setattr(self.trainer, name, lambda *args, **kwargs: None)
        self.trainer._load_rng_state = lambda checkpoint: self._batches.caught_up()

    def __enter__(self):
        self._batches.watch()

    def __exit__(self, *error):
        self._batches.unwatch()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            for name in ("_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler", "_load_rng_state"):
                self.trainer.__dict__.pop(name, None)

    # What a snapshot holds.

    def state_dict(self):
        state = self._state
        if state is None:
            return {}
        parts = (*self.trainer.callback_handler.callbacks, self.trainer.control)
        facts = dict(vars(state), stateful_callbacks=_states_of(parts))
        return {"trainer_state": json.dumps(facts), **self._batches.state_dict()}

    def load_state_dict(self, saved):
        self._batches.load_state_dict(saved)

    # What the Trainer tells.

    def begin(self, state, objects):
        self._state = state
        scaler = getattr(self.trainer.accelerator, "scaler", None)
        step = self.run.restore(
            model=self.trainer.model, optimizer=objects["optimizer"], scheduler=objects["lr_scheduler"], scaler=scaler,
            data=self, tokenizer=_tokenizer(self.trainer),
        )  # fmt: skip
        if step and step != state.global_step:
            raise RuntimeError("the Trainer goes on from step %d, the checkpoint is of step %d" % (state.global_step, step))
        if step >= state.max_steps > 0:
            raise _AlreadyTrained
        self._offered = state.global_step
        self._loss_before = (state.global_step, 0.0)
        self._batches.restored(state.global_step)

    def begin_epoch(self, state):
        self.offer(state, at_epoch_begin=True)
        self._batches.begin_epoch(state.global_step)

    def offer(self, state, at_epoch_begin=False):
        """Before the first step there is nothing to save."""
        step, self._state = state.global_step, state
        if step > self._offered:
            self._offered = step
            self._batches.stand_at(step, at_epoch_begin, self.trainer.args.gradient_accumulation_steps)
            self.run.checkpoint(step)

    def tell(self, state, objects):
        epochs = state.num_train_epochs
        rates = objects["lr_scheduler"].get_last_lr() if objects.get("lr_scheduler") is not None else None
        self.run.progress(
            step=state.global_step, total_steps=state.max_steps if state.max_steps > 0 else None, epoch=state.epoch,
            total_epochs=epochs if epochs < sys.maxsize else None, loss=self._newest_loss(state.global_step),
            lr=rates[0] if rates else None,
        )  # fmt: skip

    def logged(self, state, logs):
        if "loss" in logs and state.global_step > 0:
            self._loss_before = (state.global_step, 0.0)
            self.run.progress(step=state.global_step, loss=logs["loss"])

    def _newest_loss(self, step):
        """The mean since it was read last, at most once a second; the Trainer logs one every 500 steps, or never."""
        now = time.monotonic()
        total = getattr(self.trainer, "_tr_loss", None)
        if total is None or now - self._loss_read_at < _LOSS_PACE:
            return None
        since, before = self._loss_before
        value = float(total)
        self._loss_read_at, self._loss_before = now, (step, value)
        return (value - before) / (step - since) if step > since else None


def _states_of(parts):
    """As the Trainer's own checkpoints have them: a list where there are several of one class."""
    states = {}
    for part in parts:
        if isinstance(part, ExportableState):
            states.setdefault(type(part).__name__, []).append(part.state())
    return {name: several if len(several) > 1 else several[0] for name, several in states.items()}


def _tokenizer(trainer):
    tool = getattr(trainer, "processing_class", None)
    return tool if hasattr(tool, "save_pretrained") else None
