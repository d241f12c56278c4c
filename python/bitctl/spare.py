"""The spare: an interpreter that has imported what the first attempt had imported, and waits to become the trainer.

It is started with the trainer's very command line and environment, and it waits inside Python's own start-up: bitctl's
`sitecustomize` comes first on its PYTHONPATH. At `go` that returns, and Python itself runs the script, as it would have.
So __main__, sys.argv, sys.path, tracebacks and exit codes need no imitation.

Descriptor 3 is the link to the supervisor, 4 the list of bitctl.modules. Said on the link: `ready`, or `unfit {reason}`;
then `go {env}`, with the attempt's log, is answered by `gone`.
"""

import contextlib
import gc
import importlib
import json
import os
import socket
import sys

_LINK, _LIST = 3, 4
_NICE = 10  # a tenth of the weight of a trainer that wants every core, and still ready within a minute
_SACRIFICED_FIRST = "1000"  # when memory runs out while it waits


class _Unfit(Exception):
    """A trainer that starts from here would not be the one that a cold start gives."""


def wait():
    """Returns in the process that is the trainer from now on; what is no trainer never comes back."""
    try:
        link = socket.socket(fileno=_LINK)
        link.setblocking(True)
        try:
            _wait(link)
        except _Unfit as unfit:
            _send(link, {"type": "unfit", "reason": str(unfit)})
            os._exit(0)
        except Exception as error:  # noqa: BLE001
            _send(link, {"type": "unfit", "reason": "%s: %s" % (type(error).__name__, error)})
            raise
    except BaseException:  # noqa: BLE001 - to return would run the script beside the trainer
        os._exit(1)
    # As if there were no sitecustomize but the user's own.
    if "sitecustomize" not in sys.modules:
        raise ImportError("no module of that name but bitctl's", name="sitecustomize")


def _wait(link):
    for fd in (_LINK, _LIST):
        os.set_inheritable(fd, False)
    _hide()
    name = _exchange("/proc/self/comm", "bitctl-spare")
    score = _exchange("/proc/self/oom_score_adj", _SACRIFICED_FIRST)
    with _low_priority():
        _prepare(_read_list())
    _send(link, {"type": "ready"})
    env, log = _await_go(link)
    os.environ.update(env)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.close(log)
    _exchange("/proc/self/comm", name)
    _exchange("/proc/self/oom_score_adj", score)
    _send(link, {"type": "gone"})
    link.close()


def _hide():
    """Takes bitctl's folder off the path; a sitecustomize of the user's, or of the system's, runs now, as ever."""
    folder = os.path.dirname(sys.modules["sitecustomize"].__file__)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].partition(os.pathsep)[2]
    del sys.modules["sitecustomize"]
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")


def _read_list():
    with os.fdopen(_LIST, "rb") as file:
        return json.loads(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))


def _prepare(attempt):
    """Imports the attempt's modules. _Unfit where the script had changed what an import reads or finds."""
    at_start = dict(os.environ)
    for name in attempt["modules"]:
        # What is in sys.modules need not be importable by that name.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    changed = _changed(attempt["environ"], at_start, dict(os.environ))
    if changed:
        raise _Unfit("the script changes %s before its imports" % ", ".join(changed))
    for name, file in attempt["own"].items():
        module = sys.modules.get(name)
        if module is not None and getattr(module, "__file__", None) != file:
            raise _Unfit("the script has a module %s of its own" % name)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise _Unfit("its imports take memory on the GPU")
    gc.collect()


def _changed(attempt, before, after):
    """The variables that the script itself has set or removed: neither as it was given them, nor as its imports leave them."""
    names = attempt.keys() | before.keys()
    mine = {n for n in names if attempt.get(n) != before.get(n) and attempt.get(n) != after.get(n)}
    return sorted(n for n in mine if not n.startswith("BITCTL_"))


@contextlib.contextmanager
def _low_priority():
    """Only where it can be taken back. With sched_autogroup on, nice weighs nothing between sessions; the group's own does."""
    group = "/proc/self/autogroup"
    _try_to_write(group, str(_NICE))
    lowered = _may_renice()
    if lowered:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task") if lowered else ():
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(thread), 0)
        _try_to_write(group, "0")


def _may_renice():
    import resource

    if os.getpriority(os.PRIO_PROCESS, 0) != 0:
        return False
    with open("/proc/self/status") as status:
        capable = int(next(line for line in status if line.startswith("CapEff:")).split()[1], 16)
    return bool(capable >> 23 & 1) or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20


def _try_to_write(path, text):
    import time

    for _ in range(50):
        try:
            with open(path, "w") as file:
                file.write(text)
            return
        except BlockingIOError:
            time.sleep(0.1)  # the kernel takes ten a second, of all users together
        except OSError:
            return


def _exchange(path, text):
    """Writes a one-line file of /proc and returns what it held; None, and nothing done, where it cannot be."""
    if text is None:
        return None
    try:
        with open(path, "r+") as file:
            before = file.read().strip()
            file.seek(0)
            file.write(text)
        return before
    except OSError:
        return None


def _send(link, message):
    link.sendall(json.dumps(message).encode())


def _await_go(link):
    """(environment, descriptor of the log). Ends the process where the supervisor does."""
    while True:
        data, ancillary, _, _ = link.recvmsg(65536, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        message = json.loads(data)
        if message.get("type") == "go":
            return message["env"], int.from_bytes(ancillary[0][2][:4], sys.byteorder)
