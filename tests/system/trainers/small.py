"""A model of a few hundred parameters with everything that makes a resume hard: dropout, shuffling, a scheduler, momentum.

    small.py STEPS [--pause SECONDS] [--weights FILE] [--log FILE] [--hold STEP FILE]… [--frozen]
"""

import argparse
import os
import time

import torch

import bitctl

parser = argparse.ArgumentParser()
parser.add_argument("steps", type=int)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--weights", help="where the final weights go")
parser.add_argument("--log", help="a file that gets a line for every step that was really run; FILE.taken: for every snapshot")
parser.add_argument("--grow", type=int, default=0, help="megabytes of frozen weights beside the model")
parser.add_argument("--hold", nargs=2, action="append", default=[], help="after this step, wait until the file is there")
parser.add_argument("--frozen", action="store_true", help="a frozen layer of 64 MiB, and beside it what learns: two small matrices, as LoRA has them")
args = parser.parse_args()


def note(path, step):
    with open(path, "a") as log:
        log.write("%s %d\n" % (os.environ.get("BITCTL_ATTEMPT", "0"), step))


class Adapted(torch.nn.Module):
    def __init__(self, width, rank):
        super().__init__()
        self.base = torch.nn.Linear(width, width, bias=False).requires_grad_(False)
        self.lora_a = torch.nn.Parameter(torch.randn(rank, width) / width)
        self.lora_b = torch.nn.Parameter(torch.zeros(width, rank))

    def forward(self, x):
        return self.base(x) + torch.nn.functional.dropout(x, 0.1) @ self.lora_a.T @ self.lora_b.T


torch.manual_seed(0)
torch.use_deterministic_algorithms(True)
if args.frozen:
    model = Adapted(4096, 16)
    inputs = torch.randn(16, 4096)
    targets = inputs
else:
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    inputs = torch.randn(64, 8)
    targets = inputs.sum(1, keepdim=True)
if args.grow:
    model.register_buffer("ballast", torch.rand(args.grow << 18))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
order = bitctl.Shuffle(len(inputs), seed=1)

run = bitctl.init()
start = run.restore(model=model, optimizer=optimizer, scheduler=scheduler, data=order)
for step in range(start + 1, args.steps + 1):
    rows = [next(order) for _ in range(4)]
    loss = torch.nn.functional.mse_loss(model(inputs[rows]), targets[rows])
    loss.backward()
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    if args.log:
        note(args.log, step)
    run.progress(step=step, total_steps=args.steps, loss=loss, lr=scheduler.get_last_lr()[0])
    if run.checkpoint(step) == "taken" and args.log:
        note(args.log + ".taken", step)
    while any(step == int(at) and not os.path.exists(file) for at, file in args.hold):
        run.progress(step=step)  # where the last one came too soon after the one before
        run.checkpoint(step)  # where it was deferred
        time.sleep(0.05)
    if args.pause:
        time.sleep(args.pause)
run.finish()
if args.weights:
    torch.save(model.state_dict(), args.weights)
