"""Ranks without torch, in step by a barrier: plain_ranks.py RANKS STEPS OUT [MODE…]    each leaves its end in OUT/rank-K

RANKS: a number, or a file that holds it.
Modes: rank-0-saves: the others do not call checkpoint(); sharded; sharded-K: rank K alone says so; apart: rank 1 saves one step after the others; pause: 10 ms a
step, in which rank 0 has offered it already and the others have not, until OUT/hurry is there; anew: the launcher starts them once more itself.
"""

import json
import multiprocessing
import os
import pathlib
import random
import sys
import time

import bitctl

ranks = int(open(sys.argv[1]).read() if os.path.exists(sys.argv[1]) else sys.argv[1])
steps, out, modes = int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4:]


class Numbers:
    """A state that is nothing but numbers."""

    def __init__(self):
        self.values = [0.0] * 4

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


def train(rank, barrier):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks))
    sharded = "sharded" in modes or "sharded-%d" % rank in modes
    random.seed(rank if sharded else 0)
    weights, cursor = Numbers(), Numbers()
    weights.values = [random.random() for _ in range(4)]
    random.seed(100 + rank)  # each rank draws for itself
    run = bitctl.init()
    start = run.restore(weights=weights, data=cursor, sharded=sharded)
    with open(out / ("starts-%d" % rank), "a") as log:
        log.write("%d\n" % start)
    for step in range(start + 1, steps + 1):
        barrier.wait()
        cursor.values = [v + random.random() for v in cursor.values]
        # Replicas add the same to their weights, shards what they have drawn.
        weights.values = [v + (cursor.values[0] if sharded else step) for v in weights.values]
        run.progress(step=step, total_steps=steps)
        if "pause" in modes and rank > 0 and not (out / "hurry").exists():
            time.sleep(0.01)
        if rank == 0 or "rank-0-saves" not in modes:
            run.checkpoint(step, force="apart" in modes and step % 5 == (rank == 1))
    run.finish()
    end = {"weights": weights.values, "cursor": cursor.values, "next": random.random()}
    (out / ("rank-%d" % rank)).write_text(json.dumps(end))


def launch(restart):
    """As torchrun does: all go where one fails. The exit code; 0 where all have ended well."""
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(restart)
    barrier = multiprocessing.Barrier(ranks)
    processes = [multiprocessing.Process(target=train, args=(rank, barrier)) for rank in reversed(range(ranks))]
    for process in processes:
        process.start()
        time.sleep(0.1 * restart)  # the one that starts last is rank 0
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(0.001)
            if process.exitcode:
                for other in processes:
                    other.kill()
                    other.join()
                return max(1, process.exitcode)
    return 0


code = launch(0)
if code not in (0, 75) and "anew" in modes:
    code = launch(1)
sys.exit(code)
