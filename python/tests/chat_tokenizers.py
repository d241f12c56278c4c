"""Small tokenizers of the shapes that real models have, trained on the spot, and chat templates of real families."""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = pathlib.Path(__file__).read_text() + (
    "The quick brown fox jumps over the lazy dog. It's 2026, isn't it? 12345 67890 \n\n\t indented\n"
    "日本語のテキストと漢字、かな交じり文。今日はいい天気ですね。中文也可以。한국어도 됩니다.\n"
    "Grüße aus Köln, naïve café, Ελληνικά, Русский, עברית, العربية. 👍 👨‍👩‍👧 🇯🇵 é\n"
) * 3
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<s>", "</s>", "[INST]", "[/INST]",
           "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"]
LLAMA3_SPLIT = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for message in messages %}\n"
        "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{% endif %}\n"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
        "{% elif message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}"
        "{% else %}{{ raise_exception('only user and assistant roles are supported') }}{% endif %}{% endfor %}"
    ),
    "gemma": (
        "{%- set ns = namespace(first=true) -%}{{ bos_token }}"
        "{%- for message in messages -%}{%- if loop.index > 50 -%}{%- break -%}{%- endif -%}"
        "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}"
        "{%- generation -%}{{ message.content | trim }}{%- endgeneration -%}{{ '<end_of_turn>\n' }}"
        "{%- set ns.first = false -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
    ),
    "json": "{% for message in messages %}{{ message | tojson }}\n{% endfor %}{{ {'b': '<ü>', 'a': [1, none, true]} | tojson(indent=2) }}",
}


def byte_level(split=None, normalizer=None, **bpe):
    tokenizer = Tokenizer(models.BPE(**bpe))
    if normalizer:
        tokenizer.normalizer = normalizer
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte]) if split else byte
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, trainers.BpeTrainer, 900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def train(tokenizer, trainer, vocab_size, special=(), **options):
    specials = [AddedToken(text, special=True, normalized=False) for text in [*SPECIAL, *special]]
    tokenizer.train_from_iterator(
        TEXT.splitlines(keepends=True),
        trainer(vocab_size=vocab_size, special_tokens=specials, show_progress=False, **options),
    )
    return tokenizer


def gpt2():
    tokenizer = byte_level()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def llama3():
    tokenizer = byte_level(pre_tokenizers.Split(LLAMA3_SPLIT, "isolated"), ignore_merges=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def qwen():
    return byte_level(pre_tokenizers.Split(LLAMA3_SPLIT, "isolated"), normalizers.NFC())


def smollm():
    return byte_level(pre_tokenizers.Digits(individual_digits=True))


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def llama2():
    """SentencePiece's way: spaces are ▁, one in front; what the vocabulary lacks is spelled in bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_byte_tokens(train(tokenizer, trainers.BpeTrainer, 500, limit_alphabet=60))


def mistral():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_byte_tokens(train(tokenizer, trainers.BpeTrainer, 500, limit_alphabet=60))


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return train(tokenizer, trainers.UnigramTrainer, 400, unk_token="<unk>")


def bert():
    """Words in lower case without accents; pieces behind the first of a word begin with ##."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return train(tokenizer, trainers.WordPieceTrainer, 500)


def words():
    """Whole words, unknown beyond the vocabulary."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return train(tokenizer, trainers.WordLevelTrainer, 400)


def roberta():
    """A space in front of the text, and added tokens that take the spaces around them or are words of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, trainers.BpeTrainer, 900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True, rstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("tool", single_word=True), AddedToken("Ünit", normalized=True), AddedToken("##", lstrip=True)])
    return tokenizer


def albert():
    """Unigram behind accents and letter case taken off; its control tokens are looked for in what is left."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    train(tokenizer, trainers.UnigramTrainer, 400, unk_token="<unk>")
    tokenizer.add_special_tokens([AddedToken("<|tool|>", special=True, normalized=True)])
    return tokenizer


def with_byte_tokens(tokenizer):
    """The trained vocabulary with SentencePiece's 256 byte tokens put into the model itself."""
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    for token in BYTES:
        vocab.setdefault(token, len(vocab))
    return Tokenizer.from_str(json.dumps(content))


TOKENIZERS = {make.__name__: make for make in (gpt2, llama3, qwen, smollm, llama2, mistral, unigram)}
MORE_TOKENIZERS = {make.__name__: make for make in (bert, words, roberta, albert)}
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def write_folder(folder, tokenizer, template=None, **config):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", **NAMED, **config}
    if template is not None:
        content["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder
