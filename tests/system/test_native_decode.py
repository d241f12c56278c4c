"""The native decoder against transformers: each family's own class with random weights, logits and greedy tokens."""

import json
import os
import random
import subprocess

import pytest
import safetensors.torch
import torch
import transformers
from test_llama_decode import MODELS, Decoder, assert_same_logits, greedy, one_thread, prompts, shift, spell_as_v4  # noqa: F401

VOCABULARY, NEW = 320, 32
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
GPT2 = {key: COMMON[key] for key in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id")} | {
    "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256
}  # fmt: skip
SCALED = {"rope_theta": 10000.0, "original_max_position_embeddings": 64, "factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.5], "long_factor": [1.0, 2.0, 3.0, 4.0], **SCALED}
SIX_LAYERS = {"num_hidden_layers": 6, "sliding_window": 8}

# Name → (prefix of transformers' classes, fields of the config beside the common ones).
FAMILIES = {
    **{f"llama_{name}": ("Llama", fields) for name, fields in MODELS.items()},
    "llama_yarn": ("Llama", {"rope_parameters": {"rope_type": "yarn", **SCALED}}),
    "llama_yarn_mscale": ("Llama", {"rope_parameters": {"rope_type": "yarn", "mscale": 1.5, "mscale_all_dim": 0.5, "beta_fast": 16, **SCALED}}),
    "llama_dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "qwen3_bias": ("Qwen3", {"head_dim": 16, "attention_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "mistral_everything": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5}),
    "smollm3_window": ("SmolLM3", {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 8, "attention_bias": True}),
    "bitnet_floats": ("BitNet", {}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0}),
    "gemma2_uncapped": ("Gemma2", {"head_dim": 16, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3": ("Gemma3Text", {"head_dim": 16, "query_pre_attn_scalar": 24, **SIX_LAYERS}),
    "phi3": ("Phi3", {}),
    "phi3_window": ("Phi3", {"sliding_window": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    "phi3_longrope": ("Phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 64}),
    "gpt2": ("GPT2", {}),
}  # fmt: skip


def classes(family):
    config = getattr(transformers, family + "Config")
    name = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(family, family + "ForCausalLM")
    return config, getattr(transformers, name)


def make(folder, family, dtype=torch.float32, **fields):
    torch.manual_seed(len(str(fields)))
    config_class, model_class = classes(family)
    spread = 0.2  # logits far enough apart that the tokens say something
    config = config_class(**{**(GPT2 if family == "GPT2" else COMMON), "initializer_range": spread, **fields})
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * spread)
    model.to(dtype).save_pretrained(folder)
    return load(folder, model_class)


def load(folder, model_class):
    return model_class.from_pretrained(folder, dtype="auto", attn_implementation="eager").eval()


def native(build, folder, *options):
    return Decoder(build, folder, "--native", *options)


def last_logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1].float()


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_greedy_tokens_are_those_of_transformers(build, tmp_path, name):
    family, fields = FAMILIES[name]
    model = make(tmp_path, family, **fields)
    seen = set()
    with native(build, tmp_path) as decoder:
        for ids in prompts(name, 4):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            theirs = greedy(model, ids, NEW)
            assert decoder.ask(ids, new=NEW)["ids"] == theirs
            seen.update(theirs)
    assert len(seen) > 5  # not one token over and over; Gemma 2 of random weights goes round in 7 of them


def spell_gemma3_as_v4(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    ropes = config.pop("rope_parameters")
    config["rope_theta"] = ropes["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    config["sliding_window_pattern"] = 3
    del config["layer_types"]
    path.write_text(json.dumps(config))


def test_the_spelling_of_transformers_4(build, tmp_path):
    for name, spell, family in (("llama_yarn", spell_as_v4, "Llama"), ("gemma3", spell_gemma3_as_v4, "Gemma3Text")):
        folder = tmp_path / name
        before = make(folder, family, **FAMILIES[name][1])
        spell(folder)
        model = load(folder, classes(family)[1])
        ids = prompts(name, 1)[0]
        if name == "gemma3":  # or the new fields say nothing
            with pytest.raises(AssertionError):
                assert_same_logits(last_logits(before, ids), last_logits(model, ids))
        with native(build, folder) as decoder:
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            assert decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids, NEW)


@pytest.mark.parametrize("spelling", [5, 4])
def test_the_text_of_a_gemma_that_sees(build, tmp_path, spelling):
    """Its text model answers; the tensors of its eyes lie beside it. As transformers 5 and as 4 have saved it."""
    torch.manual_seed(1)
    text = {**COMMON, **FAMILIES["gemma3"][1], "initializer_range": 0.2}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=5)
    model = transformers.Gemma3ForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    model = load(tmp_path, transformers.Gemma3ForConditionalGeneration)
    path = tmp_path / "model.safetensors"
    names = {"model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.", "model.multi_modal": "multi_modal"}
    tensors = {}
    for name, tensor in safetensors.torch.load_file(path).items():
        for new, old in names.items():
            there, here = (new, old) if spelling == 4 else (old, new)
            name = here + name.removeprefix(there) if name.startswith(there) else name
        tensors[name] = tensor
    assert any("vision_tower" in name for name in tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    if spelling == 4:
        saved = json.loads((tmp_path / "config.json").read_text())
        # What is the class's own is not written.
        saved["text_config"] = {k: v for k, v in saved["text_config"].items() if k not in ("tie_word_embeddings", "hidden_activation", "rms_norm_eps")}
        (tmp_path / "config.json").write_text(json.dumps(saved))
    with native(build, tmp_path) as decoder:
        for ids in prompts("gemma3", 4):
            ids = [id for id in ids if id != 5] or [1]
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            assert decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids, NEW)


def test_the_names_of_the_first_gpt2(build, tmp_path):
    """Saved without its head, and with its masks."""
    model = make(tmp_path, "GPT2")
    path = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in safetensors.torch.load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    ids = prompts("gpt2", 1)[0]
    with native(build, tmp_path) as decoder:
        assert_same_logits(decoder.logits(ids), last_logits(model, ids))


@pytest.mark.parametrize("name", ["llama_gqa", "mistral", "gemma3", "phi3_longrope", "gpt2"])
def test_long_prompts_and_rewinds(build, tmp_path, name):
    """A prompt longer than two pieces of the decoder; then back to earlier positions, where other tokens follow."""
    family, fields = FAMILIES[name]
    positions = {"n_positions" if family == "GPT2" else "max_position_embeddings": 400}
    model = make(tmp_path, family, **{**fields, **positions})
    rng = random.Random(name)
    ids = [rng.randrange(VOCABULARY) for _ in range(300)]
    with native(build, tmp_path) as decoder:
        assert_same_logits(decoder.logits(ids), last_logits(model, ids))
        for position in (299, 129, 128, 127, 65, 64, 63, 3, 0):
            other = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 40))]
            assert_same_logits(decoder.logits(other, position), last_logits(model, ids[:position] + other))
            assert_same_logits(decoder.logits(ids[position:], position), last_logits(model, ids))
        assert decoder.ask([1], position=302) == {"error": "position 302 leaves a gap: the cache holds 300 positions"}
        assert "the context is full" in decoder.ask([1], position=300, new=200)["error"]
        assert decoder.ask([1, VOCABULARY]) == {"error": f"token id {VOCABULARY} is outside the vocabulary of {VOCABULARY}"}


def test_threads_change_no_bit(build, tmp_path):
    make(tmp_path, "Qwen3", torch.bfloat16)
    ids = prompts("threads", 4)
    answers = []
    for threads in ("1", "2", "5"):
        with native(build, tmp_path, "--threads", threads) as decoder:
            answers.append([decoder.ask(prompt, new=16, logits=True) for prompt in ids])
    bits = [[(answer["logits"], answer["ids"]) for answer in each] for each in answers]
    assert bits[0] == bits[1] == bits[2]


@pytest.mark.parametrize("kv", ["bf16", "int8"])
def test_a_long_context_in_pieces_or_at_once_and_by_any_threads(build, tmp_path, kv):
    """Attention of one token is shared by position; its bits are those of a prompt that holds it."""
    make(tmp_path, "Llama", torch.bfloat16, max_position_embeddings=600)
    rng = random.Random(kv)
    ids = [rng.randrange(VOCABULARY) for _ in range(590)]
    found = []
    for threads in ("1", "3"):
        with native(build, tmp_path, "--threads", threads, "--kv", kv) as decoder:
            found.append(decoder.ask(ids, logits=True)["logits"])
            for at in (0, 587):
                found.append(decoder.ask(ids[at : at + 1], position=at, logits=True)["logits"])
                decoder.ask(ids[at + 1 : -1], position=at + 1)
                found.append(decoder.ask(ids[-1:], position=len(ids) - 1, logits=True)["logits"])
    assert len({str(logits) for logits in found}) == 3  # at positions 0, 587 and 589


def test_int8_keys_and_values_are_near(build, tmp_path):
    model = make(tmp_path, "Llama")
    with native(build, tmp_path, "--kv", "int8") as decoder:
        for ids in prompts("int8", 4):
            truth = last_logits(model, ids)
            apart = (decoder.logits(ids) - truth).abs().max() / truth.abs().max()
            assert 1e-5 < apart < 3e-2  # of float32's it would be below


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_every_level_of_instructions(build, tmp_path, monkeypatch, isa):
    model = make(tmp_path, "Gemma2", **FAMILIES["gemma2"][1])
    monkeypatch.setenv("BITCTL_ISA", isa)
    try:
        decoder = native(build, tmp_path)
    except json.JSONDecodeError:
        pytest.skip(f"this machine has no {isa}")
    with decoder:
        for ids in prompts("levels", 4):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))


def test_a_level_that_is_none_is_refused_with_one_line(build, tmp_path):
    make(tmp_path, "Llama")
    command = [build / "tests" / "decode_tool", "--native", tmp_path]
    environment = {**os.environ, "BITCTL_ISA": "sse9"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert "sse9" in done.stderr and done.stderr.count("\n") == 1


def test_a_file_whose_tensors_lie_unaligned(build, tmp_path):
    model = make(tmp_path, "Llama")
    shift(tmp_path / "model.safetensors")
    ids = prompts("shifted", 1)[0]
    with native(build, tmp_path) as decoder:
        assert_same_logits(decoder.logits(ids), last_logits(model, ids))


def test_a_wrong_weight_is_seen(build, tmp_path):
    """The control: with one layer's norm changed, neither tokens nor logits agree."""
    model = make(tmp_path, "Llama")
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.input_layernorm.weight"] *= 1.01
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with native(build, tmp_path) as decoder:
        for ids in prompts("control", 4):
            with pytest.raises(AssertionError):
                assert_same_logits(decoder.logits(ids), last_logits(model, ids))
