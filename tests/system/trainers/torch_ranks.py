"""Two ranks with everything that makes a resume hard: torch_ranks.py STEPS OUT MODE…    each leaves its ends in OUT/MODE-K.pt

Modes: replicated: DistributedDataParallel, each rank with its own rows and its own dropout; sharded: each rank holds a part
of the model and the optimizer of that alone; fsdp: torch's fully_shard() does that, of a model and its running mean. While there is a file OUT/hold-STEP, it goes on from that step no further.
"""

import pathlib
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import bitctl

steps, out = int(sys.argv[1]), pathlib.Path(sys.argv[2])
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.use_deterministic_algorithms(True)
inputs = torch.arange(256.0).reshape(64, 4) / 256


def local(state):
    return {k: local(v) if isinstance(v, dict) else v.to_local() if hasattr(v, "to_local") else v for k, v in state.items()}


def train(mode):
    sharded = mode != "replicated"
    torch.manual_seed(7 + (rank if mode == "sharded" else 0))
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(4, 5 if mode == "fsdp" else 1))
    trained, more = model, {}
    if mode == "replicated":
        trained = torch.nn.parallel.DistributedDataParallel(model)
    elif mode == "fsdp":
        mesh = init_device_mesh("cpu", (2,))
        fully_shard(model, mesh=mesh)
        more = {"mean": fully_shard(torch.nn.Linear(4, 5), mesh=mesh)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    order = bitctl.Shuffle(64, seed=rank)
    torch.manual_seed(100 + rank)  # each rank draws for itself
    run = bitctl.init()
    start = run.restore(model=trained, optimizer=optimizer, data=order, sharded=None if mode == "fsdp" else sharded, **more)
    with open(out / ("starts-%d" % rank), "a") as log:
        log.write("%d\n" % start)
    for step in range(start + 1, steps + 1):
        rows = inputs[[next(order) for _ in range(4)]]
        found = trained(rows)
        wanted = rows.sum(1, keepdim=True)
        if mode == "sharded":
            error = (found - wanted).detach()
            dist.all_reduce(error)
            found.backward(error)
        else:
            (found - wanted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for mean, parameter in zip(more["mean"].parameters() if more else (), model.parameters()):
            mean.data.lerp_(parameter.data, 0.1)
        run.progress(step=step, total_steps=steps)
        run.checkpoint(step)
        while (out / ("hold-%d" % step)).exists():
            run.progress(step=step, total_steps=steps)
            time.sleep(0.02)
    run.finish()
    end = {"model": local(model.state_dict()), "optimizer": local(optimizer.state_dict()), "rng": torch.get_rng_state(), "next": next(order)}
    end.update((name, local(module.state_dict())) for name, module in more.items())
    torch.save(end, out / ("%s-%d.pt" % (mode, rank)))


for mode in sys.argv[3:]:
    train(mode)
