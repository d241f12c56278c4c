"""A frozen layer of 64 MiB, and beside it what learns: two small matrices, as LoRA has them, with dropout and momentum.

    frozen.py STEPS [--pause SECONDS] [--weights FILE] [--hold STEP FILE]
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
parser.add_argument("--hold", nargs=2, help="after this step, wait until the file is there")
args = parser.parse_args()


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
model = Adapted(4096, 16)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
inputs = torch.randn(16, 4096)
order = bitctl.Shuffle(len(inputs), seed=1)

run = bitctl.init()
start = run.restore(model=model, optimizer=optimizer, data=order)
for step in range(start + 1, args.steps + 1):
    batch = inputs[[next(order) for _ in range(4)]]
    loss = (model(batch) - batch).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    run.progress(step=step, total_steps=args.steps, loss=loss)
    run.checkpoint(step)
    while args.hold and step == int(args.hold[0]) and not os.path.exists(args.hold[1]):
        run.checkpoint(step)  # a snapshot that was deferred
        time.sleep(0.05)
    if args.pause:
        time.sleep(args.pause)
run.finish()
if args.weights:
    torch.save(model.state_dict(), args.weights)
