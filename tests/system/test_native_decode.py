"""The native decoder against transformers: each family's own class with random weights, logits and greedy tokens."""

import json
import random

import pytest
import safetensors.torch
import torch
import transformers
from test_llama_decode import LLAMA3, MODELS, Decoder, assert_same_logits, greedy, one_thread, prompts, spell_as_v4  # noqa: F401

VOCABULARY, NEW = 320, 48
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
        for ids in prompts(name, 8):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            theirs = greedy(model, ids, NEW)
            assert decoder.ask(ids, new=NEW)["ids"] == theirs
            seen.update(theirs)
    assert len(seen) > 10  # not one token over and over
