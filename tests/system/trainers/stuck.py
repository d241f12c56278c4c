"""A trainer that gets stuck. stuck.py KIND [--step SECONDS] [--after STEPS] [--always] [--log FILE]

In its first attempt (--always: in each), after that many steps, it
  sleeps      blocks in a read that nobody answers
  spins       computes for ever in C, the GIL in its hands
  deadlocks   waits for a lock that it holds itself
  stops       stops itself by SIGSTOP, once; `stops_again`: whenever it is continued
  pauses      is silent for --pause seconds and goes on; `busy`: and says so; `checkpoint`: and says that it saves
  silences    makes the package fail, and trains on
  saves       writes to the disk for that long, and says nothing
--every: not once, but each time that many steps are done; --first: how long the first step takes.
"""

import argparse
import collections
import itertools
import os
import signal
import threading
import time

import bitctl

parser = argparse.ArgumentParser()
parser.add_argument("kind")
parser.add_argument("--step", type=float, default=0.05)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--after", type=int, default=20)
parser.add_argument("--pause", type=float, default=6.0)
parser.add_argument("--always", action="store_true")
parser.add_argument("--log")
parser.add_argument("--every", action="store_true")
parser.add_argument("--first", type=float, default=0.0)
args = parser.parse_args()
run = bitctl.init()


def get_stuck(step):
    if args.kind == "sleeps":
        os.read(os.pipe()[0], 1)
    elif args.kind == "spins":
        collections.deque(itertools.repeat(None), maxlen=0)
    elif args.kind == "deadlocks":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif args.kind == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif args.kind == "stops_again":
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)
    elif args.kind == "pauses":
        time.sleep(args.pause)
    elif args.kind == "silences":
        run.checkpoint(step, force=True)  # before restore(): refused, and from there on the package is silent
    elif args.kind == "checkpoint":
        with run.phase("checkpoint"):
            time.sleep(args.pause)
    elif args.kind == "saves":
        end = time.monotonic() + args.pause
        with open(args.log, "wb") as file:
            while time.monotonic() < end:
                file.write(b"x" * (1 << 20))
                os.fsync(file.fileno())
                file.seek(0)
                time.sleep(0.2)
    elif args.kind == "busy":
        with run.busy("counting to six"):
            time.sleep(args.pause)


for step in range(1, args.steps + 1):
    time.sleep(args.step if step > 1 else max(args.first, args.step))
    run.progress(step=step, total_steps=args.steps, loss=1.0 / step)
    if args.log and args.kind != "saves":
        with open(args.log, "a") as log:
            log.write("%.3f %d\n" % (time.monotonic(), step))
    if (step == args.after or args.every and step % args.after == 0) and (args.always or os.environ.get("BITCTL_ATTEMPT", "1") == "1"):
        get_stuck(step)
