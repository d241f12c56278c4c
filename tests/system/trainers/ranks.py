"""Two or more ranks in step: ranks.py STEPS LOGS    each writes its steps to LOGS/rank-K"""

import os
import pathlib
import sys
import time

import torch
import torch.distributed as dist

import bitctl

steps, logs = int(sys.argv[1]), pathlib.Path(sys.argv[2])
dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
run = bitctl.init()
start = run.restore(model=model, optimizer=optimizer)
for step in range(start + 1, steps + 1):
    model(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    with open(logs / ("rank-%d" % dist.get_rank()), "a") as log:
        log.write("%s %d\n" % (os.environ["BITCTL_ATTEMPT"], step))
    run.progress(step=step, total_steps=steps)
    run.checkpoint(step)
    time.sleep(0.05)
run.finish()
