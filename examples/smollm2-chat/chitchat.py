"""The conversations of PyPI's chitchat-dataset as a language model's examples."""

import importlib.util
import itertools
import json
import pathlib
import re

import torch

IGNORED = -100  # a label that the loss leaves out


def conversations(length):
    """[[turn, turn, …], …], two people by turns; what one of them typed in a row is one turn. Without those that nobody
    answered, those of which most lines hold no word, and those whose reply may begin beyond `length` tokens."""
    path = pathlib.Path(importlib.util.find_spec("chitchat_dataset").origin).with_name("dataset.json")
    found = []
    for chat in json.loads(path.read_text()).values():
        turns = [[line["text"].strip() for line in turn] for turn in chat["messages"]]
        lines = list(itertools.chain(*turns))
        words = sum(bool(re.search(r"\w\w\w", line)) for line in lines)
        turns = list(itertools.takewhile(bool, ("\n".join(filter(None, turn)) for turn in turns)))
        # A token is a byte or more, and the template's own are fewer than 40.
        if len(turns) > 1 and 2 * words >= len(lines) and len(turns[0].encode()) <= length - 40:
            found.append(turns[: length // 5])  # no turn has less than five tokens, of which four frame it
    return found


def example(turns, tokenizer, length):
    """(ids, labels): the conversation as the model's own chat template writes it; the labels are the ids of the replies
    and of the token that ends each, and IGNORED elsewhere."""
    messages = [{"role": role, "content": turn} for role, turn in zip(itertools.cycle(("user", "assistant")), turns)]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    header = tokenizer("<|im_start|>assistant\n")["input_ids"]
    labels = [IGNORED] * len(ids)
    for begin in range(len(header), len(ids)):
        if ids[begin - len(header) : begin] == header:
            end = ids.index(tokenizer.eos_token_id, begin) + 1
            labels[begin:end] = ids[begin:end]
    return ids[:length], labels[:length]


def batch_of(examples, pad_token_id):
    """What the model takes: the shorter ones are filled up on the right."""
    width = max(len(ids) for ids, _ in examples)
    filled = lambda values, filler: values + [filler] * (width - len(values))
    return {
        "input_ids": torch.tensor([filled(ids, pad_token_id) for ids, _ in examples]),
        "attention_mask": torch.tensor([filled([1] * len(ids), 0) for ids, _ in examples]),
        "labels": torch.tensor([filled(labels, IGNORED) for _, labels in examples]),
    }
