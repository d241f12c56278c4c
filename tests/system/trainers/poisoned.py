"""A data set with one item that makes the loss NaN, and the weights after it.

    poisoned.py STEPS [--no-data] [--raise] [--log FILE] [--wait FILE] [--seed N]

--no-data: which data a step gets depends on the step alone. --wait: after its second step it waits for that file.
"""

import argparse
import math
import os
import time

import torch

import bitctl

POISON = 11
parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--no-data", action="store_true")
parser.add_argument("--raise", dest="raises", action="store_true", help="what careful scripts do")
parser.add_argument("--log", help="a line for every step; FILE.taken: for every snapshot")
parser.add_argument("--wait")
parser.add_argument("--seed", type=int, default=1, help="0: the poison is in the 7th step, 1: in the 3rd")
args = parser.parse_args()

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
inputs = torch.randn(16, 4)
inputs[POISON] = math.nan
order = bitctl.Shuffle(len(inputs), seed=args.seed)
run = bitctl.init()
start = run.restore(model=model, optimizer=optimizer, **({} if args.no_data else {"data": order}))
for step in range(start + 1, args.steps + 1):
    rows = [2 * step % 16, (2 * step + 1) % 16] if args.no_data else [next(order) for _ in range(2)]
    loss = model(inputs[rows]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if args.log:
        with open(args.log, "a") as log:
            log.write("%s %d %s\n" % (os.environ["BITCTL_ATTEMPT"], step, ",".join(map(str, rows))))
    run.progress(step=step, total_steps=args.steps, loss=loss)
    if args.raises and not torch.isfinite(loss):
        raise FloatingPointError("the loss is %s" % loss)
    if run.checkpoint(step) == "taken" and args.log:
        with open(args.log + ".taken", "a") as log:
            log.write("%s %d\n" % (os.environ["BITCTL_ATTEMPT"], step))
    time.sleep(0.05)
    while args.wait and step == 2 and not os.path.exists(args.wait):
        time.sleep(0.01)
assert all(torch.isfinite(p).all() for p in model.parameters())
run.finish()
