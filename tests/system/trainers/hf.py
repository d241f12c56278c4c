"""Hugging Face's Trainer as people use it; nothing in it knows of bitctl, unless --callback says so.

    hf.py OUT [--kind plain|mlm|grouped|augmented|workers] [--kill-at STEP ...] [--callback] [--set KEY=VALUE ...]

Writes the steps that it runs to OUT/steps, the final weights to OUT/weights.pt. --kill-at: kills itself there, once each; 0 is
behind the training. Every kind is deterministic from its seed; all but plain draw random numbers that
the Trainer's own resume does not have back.
"""

import argparse
import json
import os
import pathlib
import random
import signal

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

VOCABULARY, LENGTH = 64, 16


class Texts(torch.utils.data.Dataset):
    def __init__(self, kind, count=88):
        self.kind = kind
        shape = torch.Generator().manual_seed(1)
        self.lengths = torch.randint(4, LENGTH, (count,), generator=shape).tolist()
        self.tokens = torch.randint(2, VOCABULARY, (count, LENGTH), generator=shape)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        tokens = self.tokens[index]
        if self.kind in ("grouped",):
            tokens = tokens[: self.lengths[index]]
        if self.kind in ("augmented", "workers"):
            tokens = torch.where(torch.rand(tokens.shape) < 0.1, 1, tokens)
            tokens = tokens.roll(random.randrange(3))
        return {"input_ids": tokens, "labels": tokens}


def collate(kind):
    def pad(rows):
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.stack([torch.nn.functional.pad(row["input_ids"], (0, width - len(row["input_ids"]))) for row in rows])
        labels = ids.clone()
        if kind == "mlm":
            masked = torch.rand(ids.shape) < 0.15
            ids = ids.masked_fill(masked, 1)
        return {"input_ids": ids, "labels": labels, "attention_mask": (ids != 0).long()}

    return pad


class StepLog(TrainerCallback):
    def __init__(self, out, kill_at):
        self.path, self.kill_at = out / "steps", kill_at

    def reached(self, step):
        is_first_time = str(step) not in (self.path.read_text().split() if self.path.exists() else [])
        with open(self.path, "a") as file:
            file.write("%d\n" % step)
        if step in self.kill_at and is_first_time:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step_end(self, args, state, control, **kwargs):
        self.reached(state.global_step)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--kind", default="plain")
    parser.add_argument("--kill-at", type=int, nargs="*", default=[])
    parser.add_argument("--callback", action="store_true")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    settings = {
        "output_dir": str(options.out / "hf"), "per_device_train_batch_size": 4, "num_train_epochs": 2.5, "learning_rate": 1e-3,
        "logging_steps": 5, "save_strategy": "no", "report_to": [], "seed": 7, "disable_tqdm": True, "use_cpu": True,
        "remove_unused_columns": False,
    }  # fmt: skip
    settings.update((key, json.loads(value)) for key, value in (text.split("=", 1) for text in options.set))
    if options.kind == "grouped":
        settings["train_sampling_strategy"] = "group_by_length"
    if options.kind == "workers":
        settings["dataloader_num_workers"] = 2
    texts = Texts(options.kind)
    log = StepLog(options.out, options.kill_at)
    callbacks = []
    if options.callback:
        from bitctl.transformers import BitctlCallback

        callbacks = [BitctlCallback()]
    trainer = Trainer(
        model=model, args=TrainingArguments(**settings), train_dataset=texts, eval_dataset=Texts("plain", 8),
        data_collator=collate(options.kind), callbacks=[log, *callbacks],
    )  # fmt: skip
    trainer.train()
    log.reached(0)
    scratch = options.out / ("%d.pt" % os.getpid())
    torch.save(model.state_dict(), scratch)
    scratch.rename(options.out / "weights.pt")


main()
