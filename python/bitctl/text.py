"""The text worker: a model's own tokenizer and chat template behind JSON lines.

`bitctl chat` runs `python -m bitctl.text FD` as a child process. One request a line comes in on the socket FD, one
reply a line goes out, matched by `id`; stdout and stderr stay free for what libraries have to say. The worker ends
when the other end of the socket is gone.

    {"id": 1, "op": "load", "folder": "…", "model": "…", "template": ""} -> {"id": 1, "template": …, "stop_ids": […], "generation": {…}}
    {"id": 2, "op": "encode", "messages": [{…}, …]}     -> {"id": 2, "ids": […]}
    {"id": 2, "op": "render", "messages": [{…}, …]}     -> {"id": 2, "text": "…", "tokens": 42}
    {"id": 2, "op": "template"}                         -> {"id": 2, "text": "…"}
    {"id": 3, "op": "decode", "stream": 7, "ids": […], "last": false} -> {"id": 3, "text": "…"}

A request that cannot be answered gets {"id": …, "error": "one line"}; a worker that cannot work at all says
{"fatal": "one line"} and ends.
"""

import bisect
import json
import os
import re
import stat
import sys

from bitctl._worker import run

try:
    import jinja2
    import tokenizers

    from bitctl.chat_template import ChatTemplate, TextError, one_line
except ImportError as missing:
    MISSING = missing.name or str(missing)
else:
    MISSING = None

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FIRST_PRIVATE_USE, LAST_PRIVATE_USE = 0xF0000, 0xFFFFD
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def read_text(path):
    """What that file holds; None where there is none. Never waits: what is no regular file is refused."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), encoding="utf-8") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TextError(f"{path}: not a regular file")
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TextError(f"{path}: {error}") from None


def read_json(folder, name):
    """The JSON object in that file; {} where there is no such file."""
    path = os.path.join(folder, name)
    text = read_text(path)
    try:
        content = {} if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TextError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise TextError(f"{path}: not a JSON object")
    return content


def text_of(token):
    """tokenizer_config.json names a token by its text or by an object that holds it."""
    return token.get("content") if isinstance(token, dict) else token


def as_list(value):
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def find_template(folder, config):
    """(source, the file it stands in), or (None, None)."""
    template = read_text(os.path.join(folder, "chat_template.jinja"))
    if template is not None:
        return template, "chat_template.jinja"
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if template is not None:
        return template, "tokenizer_config.json"
    template = read_json(folder, "chat_template.json").get("chat_template")
    return (template, "chat_template.json") if template is not None else (None, None)


class Swaps:
    """Private-use characters that stand for texts of control tokens."""

    def __init__(self, all_text):
        used = set(all_text)
        self.free = (c for c in map(chr, range(FIRST_PRIVATE_USE, LAST_PRIVATE_USE + 1)) if c not in used)
        self.text_of = {}
        self.character_of = {}

    def character_for(self, text):
        if text not in self.character_of:
            self.character_of[text] = character = next(self.free)
            self.text_of[character] = text
        return self.character_of[text]

    def undo(self, swapped):
        """The text with every swap undone, and where those texts stand in it: [(begin, end), …]."""
        if not self.text_of:
            return swapped, []
        pieces, places, length = [], [], 0
        for piece in re.split(f"([{''.join(self.text_of)}])", swapped):
            text = self.text_of.get(piece, piece)
            if piece in self.text_of:
                places.append((length, length + len(text)))
            pieces.append(text)
            length += len(text)
        return "".join(pieces), places


class TextModel:
    """Everything about a model's text: its tokenizer, its template, its stop tokens."""

    def __init__(self, folder, model=None, template=None):
        """`folder` holds the tokenizer; `model`, where that is another one, the model's own configuration. `template`
        is "chatml" or "none" in the place of the model's own."""
        model = model or folder
        path = os.path.join(folder, "tokenizer.json")
        if not os.path.isfile(path):
            raise TextError(f"{path} is missing: save the tokenizer beside the model (tokenizer.save_pretrained)")
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # the library raises plain Exception
            raise TextError(f"{path}: {one_line(error)}") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        # As transformers does it: an older special_tokens_map.json first, then tokenizer_config.json.
        config = {**read_json(folder, "special_tokens_map.json"), **read_json(folder, "tokenizer_config.json")}
        named = {name: text_of(config[name]) for name in NAMED_TOKENS if text_of(config.get(name)) is not None}
        self._add_configured_tokens(config, named)
        self.special_ids = {
            id for id, token in self.tokenizer.get_added_tokens_decoder().items() if token.special
        } | {id for id in map(self.tokenizer.token_to_id, named.values()) if id is not None}
        # What the model makes of a character that no vocabulary holds: any unknown text gives these ids too.
        self.unknown_ids = {token.id for token in self.tokenizer.model.tokenize("\U0010fffe")}
        self.newline_ids = self._ids("\n")
        source, where = self._chosen_template(template) if template else find_template(folder, config)
        self.template = ChatTemplate(source, where, named) if source is not None else None
        self.generation = read_json(model, "generation_config.json")
        self.stop_ids = self._stop_ids(read_json(model, "config.json"), named)

    def _id_of(self, token):
        return self.tokenizer.token_to_id(token) if token is not None else None

    def _add_configured_tokens(self, config, named):
        """Tokens that tokenizer_config.json knows and tokenizer.json does not."""
        entries = config.get("added_tokens_decoder") or {}
        for _, entry in sorted(entries.items(), key=lambda item: int(item[0])):
            flags = {key: entry[key] for key in ("lstrip", "rstrip", "single_word", "normalized") if key in entry}
            if self.tokenizer.token_to_id(entry["content"]) is None:
                token = tokenizers.AddedToken(entry["content"], special=entry.get("special", False), **flags)
                self.tokenizer.add_tokens([token])
        extra = as_list(config.get("additional_special_tokens")) + as_list(config.get("extra_special_tokens"))
        special = [*named.values(), *(text_of(token) for token in extra)]
        self.tokenizer.add_special_tokens(
            [tokenizers.AddedToken(text, special=True, normalized=False) for text in special if isinstance(text, str)]
        )

    def _chosen_template(self, name):
        if name == "none":
            return None, None
        for token in ("<|im_start|>", "<|im_end|>"):
            if self._id_of(token) is None:  # the model would never end its answer
                raise TextError(f"--template chatml: the tokenizer has no {token}; --template none does without")
            self.special_ids.add(self._id_of(token))
        return CHATML, "chatml"

    def _ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _stop_ids(self, config, named):
        stops = set(as_list(self.generation.get("eos_token_id"))) | set(as_list(config.get("eos_token_id")))
        stops |= {self._id_of(named.get("eos_token")), self._end_of_turn()}
        return sorted(id for id in stops if isinstance(id, int) and 0 <= id < 2**31)

    def _end_of_turn(self):
        """The special token that the template writes behind an assistant's words."""
        if self.template is None:
            return None
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "bitctl-answer"}]
        try:
            rendered = self.template.render(chat, add_generation_prompt=False)
        except TextError:
            return None
        _, found, behind = rendered.rpartition("bitctl-answer")
        encoding = self.tokenizer.encode(behind, add_special_tokens=False)
        for id, (begin, _) in zip(encoding.ids, encoding.offsets):
            if id in self.special_ids:
                return id if found and not behind[:begin].strip() else None
        return None

    # What a user types never becomes a control token. Where a message holds the text of one, that text is swapped
    # for a private-use character before the template sees it. In the rendered chat the text stands again, the whole
    # is encoded as Hugging Face encodes it, and only the control tokens found at those places are encoded apart.

    def encode(self, messages):
        swaps, rendered = self._rendered(messages)
        return self._encode_rendered(rendered, swaps, add_special_tokens=self.template is None)

    def render(self, messages):
        """What the model reads, as text."""
        swaps, rendered = self._rendered(messages)
        return swaps.undo(rendered)[0]

    def _rendered(self, messages):
        template = self.template.source if self.template is not None else ""
        swaps = Swaps(template + "".join(message["content"] for message in messages))
        swapped = [{**message, "content": self._swap(message["content"], swaps)} for message in messages]
        if self.template is not None:
            return swaps, self.template.render(swapped, add_generation_prompt=True)
        # A model without a template goes on with the last prompt's text.
        if any(message["role"] == "system" for message in messages):
            raise TextError("without a chat template there is no system prompt; --template chatml gives one")
        return swaps, swapped[-1]["content"]

    def _is_control(self, id, text):
        return id in self.special_ids and (id not in self.unknown_ids or self.tokenizer.id_to_token(id) in text)

    def _swap(self, content, swaps):
        encoding = self.tokenizer.encode(content, add_special_tokens=False)
        parts, at = [], 0
        for id, (begin, end) in zip(encoding.ids, encoding.offsets):
            if self._is_control(id, content[begin:end]):
                parts += [content[at:begin], swaps.character_for(content[begin:end])]
                at = end
        return "".join(parts) + content[at:]

    def _encode_rendered(self, rendered, swaps, add_special_tokens=False):
        text, typed = swaps.undo(rendered)
        encoding = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        if not typed:
            return encoding.ids
        begins = [begin for begin, _ in typed]
        ids = []
        for id, (begin, end) in zip(encoding.ids, encoding.offsets):
            before = bisect.bisect_left(begins, end)
            if id in self.special_ids and before > 0 and begin < typed[before - 1][1]:
                ids += self._ids_as_text(text[begin:end])
            else:
                ids.append(id)
        return ids

    def _ids_as_text(self, text):
        self.tokenizer.encode_special_tokens = True
        try:
            # Behind a newline, because at the start of a text some tokenizers put a space in front.
            ids = self._ids("\n" + text)
            size = len(self.newline_ids)
            ids = ids[size:] if ids[:size] == self.newline_ids else self._ids(text)
        finally:
            self.tokenizer.encode_special_tokens = False
        if not any(id in self.special_ids and id not in self.unknown_ids for id in ids):
            return ids
        # Some vocabularies hold the control token as an ordinary piece too; cut in two it cannot be found.
        if len(text) == 1:
            raise TextError(f"this tokenizer cannot write {text!r} as plain text")
        half = len(text) // 2
        return self._ids_as_text(text[:half]) + self._ids_as_text(text[half:])


class DecodeStream:
    """Token ids in, text out as soon as nothing that follows can change it: the pieces joined are exactly the decoded
    whole. The whole is decoded anew each time (0.5 ms at 4,000 tokens), which needs no assumption about decoders."""

    def __init__(self, tokenizer, special_ids):
        self.tokenizer = tokenizer
        self.unwritten = special_ids
        # One broken byte makes this decoder write a whole run of byte tokens another way, so a run is held back.
        self.holds_bytes = "ByteFallback" in str(tokenizer.decoder)
        self.ids = []
        self.sent = 0

    def push(self, ids):
        self.ids += ids
        if self.holds_bytes and self._ends_in_a_byte():
            return ""
        return self._send(self.tokenizer.decode(self.ids).rstrip("\ufffd"))

    def finish(self):
        return self._send(self.tokenizer.decode(self.ids))

    def _ends_in_a_byte(self):
        written = (id for id in reversed(self.ids) if id not in self.unwritten)
        last = next(written, None)
        return last is not None and BYTE_TOKEN.fullmatch(self.tokenizer.id_to_token(last) or "<0x00>") is not None

    def _send(self, text):
        new, self.sent = text[self.sent :], max(self.sent, len(text))
        return new


class Worker:
    def __init__(self):
        self.model = None
        self.streams = {}

    def answer(self, request):
        return getattr(self, "op_" + request["op"])(request)

    def op_load(self, request):
        self.model = model = TextModel(request["folder"], request.get("model"), request.get("template"))
        self.streams = {}
        wanted = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "max_new_tokens")
        generation = {key: model.generation[key] for key in wanted if model.generation.get(key) is not None}
        for key, value in generation.items():  # Python's json takes NaN and 1e400, nobody else does
            if isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:
                raise TextError(f"generation_config.json: {key} is not a finite number")
        return {
            "template": model.template.where if model.template else None,
            "stop_ids": model.stop_ids,
            "generation": generation,
        }

    def op_render(self, request):
        text = self.model.render(request["messages"])
        return {"text": text, "tokens": len(self.model.encode(request["messages"]))}

    def op_template(self, request):
        return {"text": self.model.template.source if self.model.template else ""}

    def op_encode(self, request):
        return {"ids": self.model.encode(request["messages"])}

    def op_decode(self, request):
        stream = self.streams.setdefault(request["stream"], DecodeStream(self.model.tokenizer, self.model.special_ids))
        text = stream.push(request["ids"])
        if request["last"]:
            text += self.streams.pop(request["stream"]).finish()
        return {"text": text}


def fatal_reason():
    if MISSING:
        package = {"jinja2": "Jinja2"}.get(MISSING, MISSING)
        return f"the Python package {package} is missing: {sys.executable} -m pip install {package}"
    if tuple(map(int, jinja2.__version__.split(".")[:3])) < (3, 1, 6):
        return (
            f"Jinja2 {jinja2.__version__} lets templates out of its sandbox: "
            f"{sys.executable} -m pip install 'Jinja2>=3.1.6'"
        )
    return None


def serve(lines, reply):
    """`lines` gives requests, `reply` takes one answer as a dict."""
    reason = fatal_reason()
    if reason:
        reply({"fatal": reason})
        return 1
    worker = Worker()
    for line in lines:
        request = json.loads(line)
        try:
            answer = worker.answer(request)
        except TextError as error:
            answer = {"error": str(error)}
        except Exception as error:  # one bad request is no reason to lose the worker
            answer = {"error": f"{type(error).__name__}: {one_line(error)}"}
        reply({"id": request["id"], **answer})
    return 0


def main(argv):
    return run(argv, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
