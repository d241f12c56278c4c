"""One writer at a time: whoever holds the exclusive flock on `<file>.lock` writes the file.

The lock file is never renamed or deleted; it holds three lines for people (pid, start time, command), and the kernel
frees the lock when its holder is gone, however it went.
"""

import contextlib
import errno
import fcntl
import os
import sys
import threading
import time

PATIENCE_S = 5.0  # writers of single statuses wait for each other; one that stays is an error

_kept = {}  # real path of a file -> descriptor of its lock, for as long as a `keep` block lasts
_mutex = threading.RLock()


@contextlib.contextmanager
def held(path):
    """Holds the lock for one write; threads of this process take turns. OSError names a holder that does not let go."""
    with _mutex:
        if os.path.realpath(path) in _kept:
            yield
            return
        descriptor = _acquire(path)
        try:
            yield
        finally:
            _release(descriptor)


def keep(path):
    """Holds the lock until let_go(path)."""
    with _mutex:
        key = os.path.realpath(path)
        if key in _kept:
            raise OSError(errno.EWOULDBLOCK, f"{path}.lock is held by this very process, pid {os.getpid()}")
        _kept[key] = _acquire(path)


def let_go(path):
    with _mutex:
        descriptor = _kept.pop(os.path.realpath(path), None)
        if descriptor is not None:
            _release(descriptor)


def temporary_prefix(path):
    return f".{os.path.basename(path)}."


def _acquire(path):
    lock = f"{path}.lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OSError(error.errno, f"cannot open lock {lock}: {error.strerror}") from error
    try:
        _wait_for(descriptor, lock)
        _write_holder(descriptor)
        _sweep(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _release(descriptor):
    # To close it would not do where another thread has forked meanwhile: the child has a copy.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _wait_for(descriptor, lock):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise OSError(errno.EWOULDBLOCK, f"{lock} is held by {_holder(descriptor)}") from None
            time.sleep(0.01)
        except OSError as error:
            raise OSError(error.errno, f"cannot lock {lock}: {error.strerror}") from error


def _holder(descriptor):
    lines = os.pread(descriptor, 1024, 0).decode("utf-8", "replace").split("\n")
    return f"pid {lines[0]} (started {lines[1]}): {lines[2]}" if len(lines) > 2 else "another process"


def _write_holder(descriptor):
    command = " ".join(getattr(sys, "orig_argv", sys.argv))
    text = f"{os.getpid()}\n{_start_time()}\n{command}".replace("\0", " ")[:500] + "\n"
    with contextlib.suppress(OSError):  # it only informs
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode("utf-8", "replace"), 0)


def _start_time():
    """When this process started, as local time; empty where /proc does not tell."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/stat") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    except (OSError, StopIteration):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(boot + ticks // os.sysconf("SC_CLK_TCK")))


def _sweep(path):
    """Removes the temporary files that a killed writer left behind; nobody else writes while we hold the lock."""
    folder = os.path.dirname(path) or "."
    for name in os.listdir(folder):
        if name.startswith(temporary_prefix(path)) and name.endswith(".tmp"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _forget_in_child():
    # A forked DataLoader worker shares the open file: unless it is closed here, the lock outlives a killed holder.
    global _mutex
    _mutex = threading.RLock()
    for descriptor in _kept.values():
        os.close(descriptor)
    _kept.clear()


os.register_at_fork(after_in_child=_forget_in_child)
