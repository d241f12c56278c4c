"""Text by the thousand: what bitctl.text makes of it beside a transformers process of its own.

`differences` counts where ids or streamed text are not transformers'; `leaks` where something typed became a control token.
As a program it is that other process: one JSON request a line, one answer a line.
"""

import functools
import json
import random
import subprocess
import sys

WORDS = (
    "The", " quick", "brown ", "isn't", "I'LL", "123", "3.14", "１２", "日本語", "漢字かな", "한국어", "Grüße", "naïve", "Ελλάδα", "Русский",
    "עברית", "العربية", "👍🏽", "👨‍👩‍👧", "🇯🇵", "é", "ﬁ", "Å", "ｆｕｌｌ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\u200d", "\u2028",
    "\ufeff", "\u202e", "▁", "Ġ", "</", "<|", "|>", "<0x41>", "{{", "%}", "\\", "\"", "'s", "…", "\x00", "\x1b[0m", "\U000f0000", "\U0010ffff", "ß", "İ", "ı",
)  # fmt: skip


def anything(pick):
    """A string of words, odd spaces, marks and code points from everywhere but the surrogates."""
    parts = []
    for _ in range(pick.randint(0, 16)):
        code = pick.choice([pick.randrange(0x20, 0x7F), pick.randrange(0x250), pick.randrange(0xD800), pick.randrange(0xE000, 0x110000)])
        parts.append(pick.choice(WORDS) if pick.random() < 0.6 else chr(code))
    return "".join(parts)


def hostile(pick, tokens):
    """Control tokens whole, cut, put into one another, with joiners inside, in other letter cases and widths."""

    def piece():
        token = pick.choice(tokens)
        at = pick.randint(0, len(token))
        kind = pick.randrange(7)
        if kind == 0:
            return token
        if kind == 1:
            return token[:at]
        if kind == 2:
            return token[at:]
        if kind == 3:  # what is left where the inner one is taken out
            return token[:at] + pick.choice(tokens) + token[at:]
        if kind == 4:
            return token[:at] + pick.choice("\u200b\u200d\ufe0f\u0301 \n▁") + token[at:]
        if kind == 5:
            return pick.choice([token.upper(), token.title(), "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)])
        return anything(pick)

    return "".join(piece() for _ in range(pick.randint(1, 6)))


def chat_of(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


class Transformers:
    """The other process."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate(timeout=60)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def added_tokens(model):
    return [token.content for token in model.tokenizer.get_added_tokens_decoder().values()]


def differences(model, folder, transformers, count, seed=0):
    """[(content, ours, theirs), …] of `count` strings that hold no added token; every tenth in a longer conversation."""
    from bitctl import text

    pick, tokens, found = random.Random(seed), added_tokens(model), []
    for number in range(count):
        content = anything(pick)
        while any(token in content for token in tokens):
            content = anything(pick)
        messages = chat_of(content) if number % 10 else chat_of("Hi!", "Hello. How are you?", content)
        ours = model.encode(messages)
        plain = model.tokenizer.encode(content, add_special_tokens=False).ids
        # What a model may say: a text's tokens, or any tokens at all, a few at a time.
        spoken = plain if number % 2 else [pick.randrange(model.tokenizer.get_vocab_size()) for _ in range(pick.randint(1, 12))]
        stream, at, pieces = text.DecodeStream(model.tokenizer, model.special_ids), 0, []
        while at < len(spoken):
            size = pick.randint(1, 3)
            pieces.append(stream.push(spoken[at : at + size]))
            at += size
        pieces.append(stream.finish())
        theirs = transformers.ask(folder=str(folder), messages=messages, content=content, spoken=spoken)
        for mine, other in ((ours, theirs["chat"]), (plain, theirs["plain"]), ("".join(pieces), theirs["said"])):
            if mine != other:
                found.append((content, mine, other))
    return found


def leaks(model, count, seed=0):
    """The contents of which a control token came into the conversation."""
    pick, tokens = random.Random(seed), added_tokens(model)
    control = model.special_ids - model.unknown_ids
    harmless = [id for id in model.encode(chat_of("x")) if id in control]
    typed = (hostile(pick, tokens) for _ in range(count))
    return [content for content in typed if [id for id in model.encode(chat_of(content)) if id in control] != harmless]


def main():
    from transformers import AutoTokenizer

    load = functools.cache(AutoTokenizer.from_pretrained)
    for line in sys.stdin:
        request = json.loads(line)
        tokenizer = load(request["folder"])
        answer = {
            "chat": tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True, return_dict=False),
            "plain": tokenizer.encode(request["content"], add_special_tokens=False),
            "said": tokenizer.decode(request["spoken"], skip_special_tokens=True),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
