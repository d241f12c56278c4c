"""Bit-Llama: a Llama of 1.6 million ternary weights learns from conversations.

    bitctl train examples/bit-llama/config.yaml
    bitctl chat                                  # the floats that were learned, made ternary as they are loaded
    bitctl chat examples/bit-llama/runs/latest/packed        # the same model in 2 bits a weight

The four bitctl lines are init, restore, progress + checkpoint, finish; without bitctl the script runs all the same.
"""

import argparse
import pathlib
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

import bitctl
from bit_llama import make_ternary, save_packed

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "smollm2-chat"))
from chitchat import conversations  # noqa: E402

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--linear", choices=["ternary", "float"], default="ternary", help="float: the twin, for comparison")
parser.add_argument("--steps", type=int, default=800)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--length", type=int, default=128, help="tokens")
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--warmup", type=int, default=50, help="steps")
parser.add_argument("--chats", type=int, default=2000, help="conversations, of which one in forty is kept aside")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML, model_max_length=512
    )


def rows_of(texts):
    """[rows, length]: one conversation behind the other, cut into pieces."""
    ids = torch.tensor([id for ids in tokenizer(texts, verbose=False)["input_ids"] for id in ids])
    return ids[: len(ids) // args.length * args.length].view(-1, args.length)


@torch.no_grad()
def say_held_out_loss(when):
    model.eval()
    losses = [model(input_ids=rows, labels=rows).loss for rows in held_out[:128].split(args.batch)]
    model.train()
    print(f"{when}: loss {torch.stack(losses).mean():.3f} on {min(len(held_out), 128)} pieces kept aside", flush=True)


torch.manual_seed(args.seed)
run = bitctl.init()
texts = [
    "".join(f"<|im_start|>{('user', 'assistant')[at % 2]}\n{turn}<|im_end|>\n" for at, turn in enumerate(turns))
    for turns in conversations(10**6)[: args.chats]
]
tokenizer = train_tokenizer(texts)
held_out, rows = rows_of(texts[::40]), rows_of([text for at, text in enumerate(texts) if at % 40 != 0])

model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )
)  # fmt: skip
if args.linear == "ternary":
    make_ternary(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95))
scheduler = get_cosine_schedule_with_warmup(optimizer, args.warmup, args.steps)
order = bitctl.Shuffle(len(rows), seed=args.seed)
model.train()

start = run.restore(model=model, optimizer=optimizer, scheduler=scheduler, data=order, tokenizer=tokenizer)
for step in range(start + 1, args.steps + 1):
    batch = rows[[next(order) for _ in range(args.batch)]]
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    run.progress(step=step, total_steps=args.steps, loss=loss, lr=scheduler.get_last_lr()[0])
    run.checkpoint(step)
    if step % 100 == 0:
        print(f"step {step}: loss {loss:.3f}", flush=True)
say_held_out_loss("after")
if run.active and args.linear == "ternary":
    save_packed(model, tokenizer, pathlib.Path(run.run_dir) / "packed")
run.finish()
