"""A one-million-parameter Llama from scratch, on Python's own standard library, in half a minute on two cores.

    bitctl train examples/tiny/config.yaml
    bitctl chat                                # it continues code, badly

The four bitctl lines are init, restore, progress + checkpoint, finish; without bitctl the script runs all the same.
"""

import argparse
import pathlib
import sysconfig

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import bitctl

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=250)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--length", type=int, default=128)
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()


def standard_library():
    """About two megabytes of it, the same files in the same order everywhere."""
    folder = pathlib.Path(sysconfig.get_paths()["stdlib"])
    return [path.read_text(errors="ignore") for path in sorted(folder.glob("[a-h]*.py"))]


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2048, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


torch.manual_seed(args.seed)
run = bitctl.init()
texts = standard_library()
tokenizer = train_tokenizer(texts)
tokens = torch.tensor([i for t in texts for i in tokenizer(t)["input_ids"] + [tokenizer.eos_token_id]])

model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, attention_dropout=0.1,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )
)  # fmt: skip
optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
model.train()

start = run.restore(model=model, optimizer=optimizer, scheduler=scheduler, tokenizer=tokenizer)
for step in range(start + 1, args.steps + 1):
    offsets = torch.randint(len(tokens) - args.length, (args.batch,))
    batch = torch.stack([tokens[o : o + args.length] for o in offsets])
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    run.progress(step=step, total_steps=args.steps, loss=loss, lr=scheduler.get_last_lr()[0])
    run.checkpoint(step)
    if step % 50 == 0:
        print(f"step {step}: loss {loss:.3f}", flush=True)
run.finish()
