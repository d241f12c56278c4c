"""SmolLM2-135M-Instruct learns to chat as students do: a real fine-tuning, in about four minutes on two cores.

    bitctl train examples/smollm2-chat/config.yaml
    bitctl chat                                      # talk to it

An example is the first 128 tokens of a conversation; the loss is on the second speaker's lines alone. The last 8 of
30 blocks learn and the rest of the model stays as it is: that is quick, and what it knows is not forgotten.

The four bitctl lines are init, restore, progress + checkpoint, finish; without bitctl the script runs all the same.
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

import bitctl
from chitchat import batch_of, conversations, example
from prepare import prepare

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--batch", type=int, default=4, help="conversations a step")
parser.add_argument("--length", type=int, default=128, help="tokens of a conversation")
parser.add_argument("--blocks", type=int, default=8, help="how many of the last blocks learn")
parser.add_argument("--lr", type=float, default=3e-4)
parser.add_argument("--warmup", type=int, default=10, help="steps")
parser.add_argument("--held-out", type=int, default=32, help="conversations kept aside, for the loss before and after")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


def loss_of(chats):
    return model(**batch_of([example(chat, tokenizer, args.length) for chat in chats], tokenizer.pad_token_id)).loss


@torch.no_grad()
def say_held_out_loss(when):
    losses = [loss_of(held_out[at : at + args.batch]) for at in range(0, len(held_out), args.batch)]
    print(f"{when}: loss {torch.stack(losses).mean():.3f} on {len(held_out)} conversations kept aside", flush=True)


torch.manual_seed(args.seed)
run = bitctl.init()
folder = prepare()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
chats = conversations(args.length)
held_out, chats = chats[: args.held_out], chats[args.held_out :]

model.requires_grad_(False)
model.model.layers[-args.blocks :].requires_grad_(True)
learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(learning, lr=args.lr)
scheduler = get_cosine_schedule_with_warmup(optimizer, args.warmup, args.steps)
order = bitctl.Shuffle(len(chats), seed=args.seed)
model.train()

start = run.restore(model=model, optimizer=optimizer, scheduler=scheduler, data=order, tokenizer=tokenizer)
if start == 0:
    say_held_out_loss("before")
for step in range(start + 1, args.steps + 1):
    loss = loss_of([chats[next(order)] for _ in range(args.batch)])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learning, 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    run.progress(step=step, total_steps=args.steps, loss=loss, lr=scheduler.get_last_lr()[0])
    run.checkpoint(step)
    if step % 10 == 0:
        print(f"step {step}: loss {loss:.3f}", flush=True)
say_held_out_loss("after")
run.finish()
