"""A hostile tree that is up in a few milliseconds: children in sessions of their own, a deaf and a stopped one, a double fork, 50
forks a second. Waits to be killed."""

import os
import signal
import time


def child(*acts):
    if os.fork() == 0:
        for act in acts:
            act()
        time.sleep(600)
        os._exit(0)


def forget():
    """Leaves its own parent's child behind."""
    if os.fork() != 0:
        os._exit(0)


def fork_on():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if os.fork() == 0:
            time.sleep(0.4)
            os._exit(0)
        time.sleep(0.02)


child()
child(os.setsid)
child(os.setsid, lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
child(os.setsid, lambda: os.kill(os.getpid(), signal.SIGSTOP))
child(os.setsid, forget)
child(os.setsid, fork_on)
print("tree is up", flush=True)
time.sleep(600)
