"""PULSE v1: the six fields that say how a training is doing, in training_status.json.

    from bitctl.pulse import Pulse

    with Pulse("training_status.json", total_epochs=3) as pulse:
        for step in range(1, steps + 1):
            ...
            pulse.update(epoch=3 * step / steps, loss=loss, step=step)

Without bitctl this module writes the file itself, as the one holder of the lock `<path>.lock`. Under bitctl the
supervisor is the one writer of the run's file, and the same calls hand it the facts. Standard library only.
"""

import contextlib
import errno
import json
import math
import os
import re
import stat
import sys
import threading
import time
import traceback

from bitctl import _writer_lock

STATES = ("idle", "running", "done", "error")
FIELDS = ("status", "epoch", "total_epochs", "loss", "message", "timestamp")
MAX_FILE_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 4096  # longer ones are cut, so that a reader never refuses the file for its size
MIN_INTERVAL_S = 1.0  # a Pulse writes at most this often
BUSY_INTERVAL_S = 10.0

_run = None


def _set_run(run):
    """The bitctl.Run that speaks to the supervisor. `run.pulse(status) -> bool` gets the six fields as a dict, the
    loss as the trainer gave it: it may be NaN or infinite. It must not raise."""
    global _run
    _run = run


def _under_bitctl(path):
    """The run that takes the place of the file, where `path` is the file of the run we are in."""
    ours = os.environ.get("BITCTL_PULSE")
    if not ours or os.path.realpath(ours) != os.path.realpath(path):
        return None
    if _run is None:
        from . import run  # a script that knows this module alone is connected by its first write

        run.init()
    return _run


# Reading: missing, damaged and good are three answers.


def read(path):
    """The six fields as a dict, None where there is no file. ValueError says what is wrong with a damaged one."""
    try:
        return _checked(_strict_json(_read_small_file(path)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def safe_read_json(path):
    """Whatever JSON the file holds; None where it is missing or is none, for whatever reason."""
    try:
        return _strict_json(_read_small_file(path))
    except (OSError, ValueError, RecursionError):
        return None


def _read_small_file(path):
    """Never blocks, follows no link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    return data


def _strict_json(data):
    """JSON as RFC 8259 says; json alone takes NaN, 1e999 and keys that are there twice."""

    def constant(token):
        raise ValueError(f"{token} is no number of JSON")

    def finite(token):
        value = float(token)
        return value if math.isfinite(value) else constant(token)

    def unique(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    return json.loads(data.decode("utf-8"), parse_constant=constant, parse_float=finite, object_pairs_hook=unique)


def _checked(status):
    """The six fields of a file's JSON; other keys are dropped."""
    if not isinstance(status, dict):
        raise ValueError("not a JSON object")
    for name in FIELDS:
        if name not in status:
            raise ValueError(f"{name} is missing")
    if status["status"] not in STATES:
        raise ValueError(f"status {status['status']!r} is none of {', '.join(STATES)}")
    for name in ("epoch", "total_epochs", "loss"):
        if type(status[name]) not in (int, float):
            raise ValueError(f"{name} is not a number: {status[name]!r}")
        if abs(status[name]) > sys.float_info.max:  # json's integers have no limit
            raise ValueError(f"{name} is out of range")
        if name != "loss" and status[name] < 0:
            raise ValueError(f"{name} is negative: {status[name]!r}")
    if not isinstance(status["message"], str):
        raise ValueError(f"message is not a text: {status['message']!r}")
    status["message"].encode("utf-8")  # refuses half of a surrogate pair
    if type(status["timestamp"]) is not int or not 0 <= status["timestamp"] < 2**63:
        raise ValueError(f"timestamp is not a whole number of seconds: {status['timestamp']!r}")
    return {name: status[name] for name in FIELDS}


# Writing.


def atomic_write_json(path, data):
    """Publishes `data` as one line of JSON: a reader sees the old content or the new, never a mixture.

    Temporary file in the same folder, fsync, rename, fsync of the folder. ValueError where `data` is no JSON (NaN is
    none). OSError where it cannot be written: the old content stands, and nothing is left behind.
    """
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot write {path}: {error}") from error
    try:
        _replace_file(os.fspath(path), text.encode("utf-8", "replace"))
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


def write_running_status(path, epoch, total_epochs, loss, message):
    _publish(path, _status("running", epoch, total_epochs, loss, message))


def write_done_status(path, epoch, total_epochs, loss, message):
    _publish(path, _status("done", epoch, total_epochs, loss, message))


def write_error_status(path, message):
    """Keeps the epoch and the loss that the file knows."""
    last = _last_known(path)
    _publish(path, _status("error", last["epoch"], last["total_epochs"], last["loss"], message))


def write_idle_status(path, message="Waiting to start..."):
    _publish(path, _status("idle", 0.0, 0.0, 0.0, message))


def _publish(path, status):
    """Hands a status to the one who writes the file: the supervisor, or this process under the lock."""
    path = os.fspath(path)
    run = _under_bitctl(path)
    if run is not None:
        run.pulse(status)
        return
    with _writer_lock.held(path):
        atomic_write_json(path, _with_finite_loss(status, lambda: _last_known(path)["loss"]))


def _last_known(path):
    try:
        known = read(path)
    except ValueError:
        known = None
    return known or {"epoch": 0.0, "total_epochs": 0.0, "loss": 0.0}


def _status(status, epoch, total_epochs, loss, message):
    """The six fields, checked; the loss may still be NaN or infinite."""
    if status not in STATES:
        raise ValueError(f"status {status!r} is none of {', '.join(STATES)}")
    if not isinstance(message, str):
        raise ValueError(f"message is not a text: {message!r}")
    epoch, total_epochs = _number("epoch", epoch), _number("total_epochs", total_epochs)
    for name, value in (("epoch", epoch), ("total_epochs", total_epochs)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number from 0 up, not {value}")
    values = (status, epoch, total_epochs, _number("loss", loss), _shortened(message), int(time.time()))
    return dict(zip(FIELDS, values))


def _number(name, value):
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):
        raise ValueError(f"{name} is not a number: {value!r}")
    try:
        return float(value)
    except Exception as error:  # whatever a tensor of several elements raises
        raise ValueError(f"{name} is not a number: {value!r}") from error


def _shortened(text):
    data = text.encode("utf-8", "replace")
    return text if len(data) <= MAX_MESSAGE_BYTES else data[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "…"


def _with_finite_loss(status, last_loss, step=None):
    """A loss that is no finite number never enters the file: the last one stays, and the message says so."""
    if math.isfinite(status["loss"]):
        return status
    if step is None:
        named = re.search(r"\bstep (\d+)", status["message"])
        step = named and named[1]
    message = "loss is NaN" if step is None else f"loss is NaN at step {step}"
    return {**status, "loss": last_loss(), "message": message}


def _replace_file(path, content):
    folder = os.path.dirname(path) or "."
    name = f"{_writer_lock.temporary_prefix(path)}{os.getpid()}.{os.urandom(4).hex()}.tmp"
    temporary = os.path.join(folder, name)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder):
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # network file systems may not know fsync of a folder
            raise
    finally:
        os.close(descriptor)


class Pulse:
    """A whole run: running from the start, done at a clean end; after an exception error, and the exception goes on.

    Entering raises OSError where somebody else writes the file. From then on a failure to write is one line on
    stderr and never the training's end. At most one write a second; what an update said last is never lost.
    """

    def __init__(self, path, total_epochs):
        self._path = os.path.abspath(path)  # a training may change its folder
        self._status = _status("running", 0.0, total_epochs, 0.0, "Starting…")
        self._pid = os.getpid()
        self._written_at = -math.inf
        self._complained = False

    def __enter__(self):
        if _under_bitctl(self._path) is None:
            _writer_lock.keep(self._path)
        try:
            self._publish(self._status)
        except BaseException:
            _writer_lock.let_go(self._path)
            raise
        return self

    def __exit__(self, kind, error, trace):
        if os.getpid() != self._pid:  # a forked child that fell out of the block
            return
        epoch, total_epochs, loss = (self._status[name] for name in ("epoch", "total_epochs", "loss"))
        if kind is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            end = _status("done", total_epochs or epoch, total_epochs, loss, "Training completed successfully")
        else:
            why = traceback.format_exception_only(kind, error)[-1].strip()
            end = _status("error", epoch, total_epochs, loss, why)
        try:
            self._try_publish(end)
        finally:
            _writer_lock.let_go(self._path)

    def update(self, epoch, loss, message="", step=None):
        """`epoch` counts finished epochs, fractions included."""
        if step is not None and not message:
            message = f"step {step}"
        status = _status("running", epoch, self._status["total_epochs"], loss, message)
        finite = _with_finite_loss(status, lambda: self._status["loss"], step)
        self._status = finite
        if time.monotonic() - self._written_at >= MIN_INTERVAL_S:
            self._try_publish(status if _under_bitctl(self._path) else finite)

    @contextlib.contextmanager
    def busy(self, message):
        """Keeps the status fresh while something long goes on that cannot report: a save, an evaluation."""
        over = threading.Event()

        def stamp():
            while True:
                self._try_publish({**self._status, "message": message})
                if over.wait(BUSY_INTERVAL_S):
                    return

        thread = threading.Thread(target=stamp, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _publish(self, status):
        _publish(self._path, {**status, "timestamp": int(time.time())})
        self._written_at = time.monotonic()

    def _try_publish(self, status):
        if os.getpid() != self._pid:
            return
        try:
            self._publish(status)
        except OSError as error:
            if not self._complained:
                print(f"bitctl.pulse: {error.strerror}", file=sys.stderr)
            self._complained = True


if __name__ == "__main__":
    from bitctl import _pulse_self_test

    sys.exit(_pulse_self_test.main())
