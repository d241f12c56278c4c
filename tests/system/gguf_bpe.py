"""A byte-level BPE straight from a GGUF file's lists, by the book: slow, simple, and no code in common with the
libraries that it is the oracle for."""

import regex

# llama.cpp's `smollm`: first each digit alone, then GPT-2's words within what lies between.
DIGIT = regex.compile(r"\p{N}")
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
CONTROL = 3


def byte_characters():
    """GPT-2's printable character for each byte: its own where that is one, else the next from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]


class Bpe:
    def __init__(self, tokens, types, merges):
        self.tokens = tokens
        self.ids = {token: id for id, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        control = sorted((token for token, kind in zip(tokens, types) if kind == CONTROL), key=len, reverse=True)
        self.control = regex.compile("(" + "|".join(map(regex.escape, control)) + ")")
        self.characters = byte_characters()

    def encode(self, text):
        return [self.ids[token] for token in self.split(text)]

    def split(self, text):
        """The tokens' own texts."""
        found = []
        for at, part in enumerate(self.control.split(text)):
            found += [part] if at % 2 else [token for word in self.words(part) for token in self.merged(word)]
        return found

    def words(self, text):
        at = 0
        for digit in DIGIT.finditer(text):
            yield from WORD.findall(text[at : digit.start()])
            yield digit.group()
            at = digit.end()
        yield from WORD.findall(text[at:])

    def merged(self, word):
        pieces = [self.characters[byte] for byte in word.encode()]
        while len(pieces) > 1:
            rank, at = min((self.ranks.get(pair, len(self.ranks)), at) for at, pair in enumerate(zip(pieces, pieces[1:])))
            if rank == len(self.ranks):
                break
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return pieces
