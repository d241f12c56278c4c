"""The torch decoder against transformers: the same greedy tokens in float32, the same logits, in every spelling."""

import json
import os
import random
import shutil
import subprocess

import pytest
import safetensors.torch
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, CONTEXT, NEW, PROMPTS = 320, 512, 64, 20
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# Name → fields of the config beside the common ones.
MODELS = {
    "gqa": {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 48},
    "tied": {"tie_word_embeddings": True},
    "no_gqa": {"num_key_value_heads": 4},
    "one_kv_head": {"num_key_value_heads": 1},
    "llama3": {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head_dim": {"head_dim": 20, "rms_norm_eps": 1e-5},
}


def make(folder, dtype=torch.float32, **fields):
    torch.manual_seed(len(str(fields)))
    config = LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT,
            "initializer_range": 0.2,  # logits far enough apart that the tokens say something
            "eos_token_id": None,
            "bos_token_id": None,
            **fields,
        }
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.to(dtype).save_pretrained(folder)
    return load(folder)


def load(folder):
    return LlamaForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="sdpa").eval()


def spell_as_v4(folder):
    """config.json as transformers 4 writes it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


def prompts(seed, count=PROMPTS):
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 40))] for _ in range(count)]


def greedy(model, ids, new=NEW):
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        # Without a mask of its own, generate would take a prompt's zeros for padding.
        tokens = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=new, pad_token_id=0
        )
    return tokens[0, len(ids) :].tolist()


def last_logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1].float()


class Decoder:
    """The decode tool on a model folder."""

    def __init__(self, build, folder, *options):
        self.process = subprocess.Popen(
            [build / "tests" / "decode_tool", "--threads", "1", *options, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.about = json.loads(self.process.stdout.readline())

    def ask(self, ids, **fields):
        self.process.stdin.write(json.dumps({"ids": ids, **fields}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def logits(self, ids, position=0):
        return torch.tensor(self.ask(ids, position=position, logits=True)["logits"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def assert_same_logits(ours, theirs, tolerance=1e-4):
    """Relative to the largest logit."""
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name, spelling", [*((name, "v5") for name in MODELS), *((name, "v4") for name in ("tied", "theta", "linear", "llama3"))]
)
def test_greedy_tokens_are_those_of_transformers(build, engine, tmp_path, name, spelling):
    model = make(tmp_path, **MODELS[name])
    if spelling == "v4":
        spell_as_v4(tmp_path)
        model = load(tmp_path)
    seen = set()
    with Decoder(build, tmp_path) as decoder:
        assert decoder.about["dtype"] == "float32" and decoder.about["mapped"]
        for ids in prompts(name):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            theirs = greedy(model, ids)
            assert decoder.ask(ids, new=NEW)["ids"] == theirs
            seen.update(theirs)
    assert len(seen) > 50  # not one token over and over


def test_a_wrong_weight_is_seen(build, engine, tmp_path):
    """The control: with one layer's norm changed, neither tokens nor logits agree."""
    model = make(tmp_path, **MODELS["gqa"])
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.input_layernorm.weight"] *= 1.1
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with Decoder(build, tmp_path) as decoder:
        answers = [decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids) for ids in prompts("control", 5)]
        assert not all(answers)
        with pytest.raises(AssertionError):
            assert_same_logits(decoder.logits([1, 2, 3]), last_logits(model, [1, 2, 3]))


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_stays_within_its_rounding(build, engine, tmp_path, dtype, tolerance):
    model = make(tmp_path, dtype, **MODELS["gqa"])
    with Decoder(build, tmp_path) as decoder:
        assert decoder.about["dtype"] == str(dtype).removeprefix("torch.")
        for ids in prompts(str(dtype)):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids), tolerance)


def test_long_prompts_and_rewinds(build, engine, tmp_path):
    """A prompt longer than one chunk of the decoder; then back to earlier positions, where other tokens follow."""
    model = make(tmp_path, max_position_embeddings=1400)
    rng = random.Random(5)
    ids = [rng.randrange(VOCABULARY) for _ in range(1300)]
    with Decoder(build, tmp_path) as decoder:
        assert_same_logits(decoder.logits(ids), last_logits(model, ids))
        for position in (1299, 700, 512, 511, 3, 0):
            other = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 40))]
            assert_same_logits(decoder.logits(other, position), last_logits(model, ids[:position] + other))
            assert_same_logits(decoder.logits(ids[position:], position), last_logits(model, ids))
        assert "the context is full" in decoder.ask([1], position=1300, new=200)["error"]


def test_sampling_repeats_itself(build, engine, tmp_path):
    make(tmp_path)
    options = {"new": 32, "temperature": 1.0, "top_p": 0.95, "top_k": 40}
    with Decoder(build, tmp_path) as decoder:
        first = decoder.ask([1, 2, 3], seed=11, **options)["ids"]
        decoder.ask([9, 8], seed=5, **options)
        assert decoder.ask([1, 2, 3], seed=11, **options)["ids"] == first
        assert decoder.ask([1, 2, 3], seed=12, **options)["ids"] != first
    with Decoder(build, tmp_path) as decoder:
        assert decoder.ask([1, 2, 3], seed=11, **options)["ids"] == first


@pytest.mark.parametrize("replace", ["unlink", "rename over"])
@pytest.mark.parametrize("options", [[], ["--no-mmap"]])
def test_the_weights_outlive_their_path(build, engine, tmp_path, replace, options):
    folder = tmp_path / "model"
    model = make(folder, **MODELS["gqa"])
    ids = prompts("outlive", 1)[0]
    with Decoder(build, folder, *options) as decoder:
        assert decoder.about["mapped"] == (not options)
        if replace == "unlink":
            shutil.rmtree(folder)
        else:
            other = make(tmp_path / "other", **{**MODELS["gqa"], "rms_norm_eps": 1e-3})
            assert greedy(other, ids) != greedy(model, ids)
            os.replace(tmp_path / "other" / "model.safetensors", folder / "model.safetensors")
        assert decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids)


def shift(path):
    """Makes it a legal file whose data starts at an odd offset: every tensor lies unaligned."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].rstrip(b" ")
    header += b" " * (1 - len(header) % 2)
    assert (8 + len(header)) % 2 == 1
    shifted = path.with_name("shifted")  # not in place: transformers has the file mapped too
    shifted.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    os.replace(shifted, path)


def test_a_shifted_file_is_copied_where_it_must_be(build, engine, tmp_path):
    model = make(tmp_path, **MODELS["gqa"])
    shift(tmp_path / "model.safetensors")
    ids = prompts("shifted", 1)[0]
    with Decoder(build, tmp_path) as decoder:
        assert decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "more than 100000000"),
        (lambda folder: (folder / "model.safetensors").unlink(), "No such file"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "truncated"),
    ],
)
def test_a_broken_model_is_refused_with_one_line(build, engine, tmp_path, damage, reason):
    make(tmp_path)
    damage(tmp_path)
    answer = subprocess.run([build / "tests" / "decode_tool", tmp_path], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1 and answer.stdout == ""
    assert reason in answer.stderr and answer.stderr.count("\n") == 1
