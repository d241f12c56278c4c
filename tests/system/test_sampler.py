"""The sampler gives each token the probability that transformers' own processors give it, in their order."""

import itertools
import json
import random
import subprocess

import pytest
import runs
import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

TOOL = runs.ROOT / "build" / "tests" / "sampler_tool"
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0}


def processors(options):
    """As transformers' GenerationMixin puts them together."""
    every = [(RepetitionPenaltyLogitsProcessor, "repetition_penalty"), (TemperatureLogitsWarper, "temperature"),
             (TopKLogitsWarper, "top_k"), (TopPLogitsWarper, "top_p"), (MinPLogitsWarper, "min_p"),
             (TypicalLogitsWarper, "typical_p")]
    return LogitsProcessorList([kind(options[name]) for kind, name in every if options[name] != OFF[name]])


def theirs(request, order=lambda processors: processors):
    # In float64: what is cut must not depend on the last bit of a sum.
    scores = torch.tensor([request["logits"]], dtype=torch.float32).double()
    context = torch.tensor([request["context"]])
    for processor in order(processors(request)):
        scores = processor(context, scores)
    probabilities = scores.softmax(-1)[0]
    return {id: p for id, p in enumerate(probabilities.tolist()) if p > 0}


def ours(requests):
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run([TOOL], input=lines, capture_output=True, text=True, check=True, timeout=300)
    replies = map(json.loads, done.stdout.splitlines())
    return [dict(zip(reply["ids"], reply["probabilities"])) for reply in replies]


def requests():
    values = {"temperature": [0.3, 1.0, 1.7], "top_k": [0, 20], "top_p": [0.6, 1.0], "min_p": [0.0, 0.05],
              "typical_p": [0.7, 1.0], "repetition_penalty": [1.0, 1.3]}
    generator = random.Random(6)
    for chosen in itertools.product(*values.values()):
        logits = [generator.gauss(0, 3) for _ in range(300)]
        yield {**dict(zip(values, chosen)), "logits": logits, "context": generator.choices(range(300), k=40)}


def test_every_combination_is_that_of_transformers():
    asked = list(requests())
    for request, mine in zip(asked, ours(asked), strict=True):
        assert mine == pytest.approx(theirs(request), rel=1e-5), {name: request[name] for name in OFF}
    assert len({tuple(mine) for mine in ours(asked)}) > 50, "the control: the options choose different tokens"


def test_the_order_counts():
    """The control: with the processors the other way round the tokens are others."""
    asked = list(requests())
    backwards = [theirs(request, order=lambda them: reversed(them)) for request in asked]
    assert sum(mine.keys() != other.keys() for mine, other in zip(ours(asked), backwards)) > len(asked) / 4
