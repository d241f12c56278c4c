"""The long form of greedy exactness: SmolLM2's own answers, each token held against transformers in float32.

transformers reads our whole answer at once (it is teacher-forced over it), and at each position its likeliest token must be
ours. Where the two likeliest stand closer than float32 sums can tell, either is right: a near tie, counted and named.
"""

import random
import sys

import torch
from runs import ROOT
from test_llama_decode import Decoder
from test_smollm2 import QUESTIONS

NEW, NEAR = 256, 1e-5  # of the largest logit; ours are within 3e-6 of transformers'


def prompts(count):
    """The questions of the tests, then how conversations begin."""
    sys.path.insert(0, str(ROOT / "examples" / "smollm2-chat"))
    from chitchat import conversations

    openings = [turns[0] for turns in conversations(256)]
    return [*QUESTIONS, *random.Random(0).sample(openings, max(0, count - len(QUESTIONS)))][:count]


def judged(logits, answer):
    """[(position, ours, theirs, gap over the largest logit), …] where the likeliest token is another one."""
    found = []
    for at, (row, token) in enumerate(zip(logits, answer, strict=True)):
        likeliest = row.argmax().item()
        if likeliest != token:
            found.append((at, token, likeliest, ((row[likeliest] - row[token]) / row.abs().max()).item()))
    return found


def held_against_transformers(folder, count):
    """Yields (tokens compared, near ties, wrong ones) for each prompt, the latter as lines of text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with Decoder(ROOT / "build", folder, "--native") as decoder:
        for number, prompt in enumerate(prompts(count)):
            ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False)
            answer = decoder.ask(ids, new=NEW)["ids"]
            with torch.inference_mode():
                logits = model(torch.tensor([ids + answer[:-1]])).logits[0, len(ids) - 1 :]
            near, wrong = [], []
            for at, ours, theirs, gap in judged(logits, answer):
                names = [repr(tokenizer.decode([id])) for id in (ours, theirs)]
                (near if gap < NEAR else wrong).append(f"prompt {number}, token {at}: {names[0]} for {names[1]}, {gap:.1e} of the largest logit apart")
            yield len(answer), near, wrong
