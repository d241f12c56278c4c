"""Random models of each family: shapes, windows, kinds of RoPE, biases, ties. Our logits beside transformers'."""

import random

import pytest
import torch
from test_llama_decode import Decoder, one_thread  # noqa: F401
from test_native_decode import COMMON, GPT2, classes, load

VOCABULARY, POSITIONS = COMMON["vocab_size"], 128
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3", "Gemma2", "Gemma3Text", "Phi3", "BitNet", "GPT2")


def rope(pick, turning):
    """rope_parameters of any kind, for so many dimensions that turn."""
    theta, original = pick.choice([100.0, 10000.0, 5e5]), pick.choice([16, 64])
    factor, name = pick.choice([1.5, 4.0, 8.0]), pick.choice(["default", "linear", "dynamic", "llama3", "yarn", "longrope"])
    fields = {"rope_type": name, "rope_theta": theta}
    if name != "default":
        fields["factor"] = factor
    if name in ("llama3", "yarn", "longrope"):
        fields["original_max_position_embeddings"] = original
    if name == "llama3":
        fields |= {"low_freq_factor": pick.choice([1.0, 2.0]), "high_freq_factor": pick.choice([4.0, 8.0])}
    if name == "yarn":
        fields |= pick.choice([{}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"truncate": False}, {"attention_factor": 1.3}, {"mscale": 1.2, "mscale_all_dim": 0.7}])
    if name == "longrope":
        fields |= {key: [1.0 + pick.random() for _ in range(turning // 2)] for key in ("short_factor", "long_factor")}
        fields |= pick.choice([{}, {"attention_factor": 1.2}])
    return fields


def fields_of(family, pick):
    heads = pick.choice([1, 2, 3, 4, 6, 8])
    if family == "GPT2":
        inner = pick.choice([{}, {"n_inner": pick.choice([12, 52])}])
        return GPT2 | {"n_embd": heads * pick.choice([4, 8, 14]), "n_head": heads, "n_layer": pick.randint(1, 4), "n_positions": POSITIONS, **inner}
    head_dim, own = pick.choice([4, 8, 12, 16, 22]), pick.random() < 0.5
    fields = COMMON | {
        "num_attention_heads": heads,
        "num_key_value_heads": pick.choice([k for k in range(1, heads + 1) if heads % k == 0]),
        "hidden_size": heads * pick.choice([4, 8, 12]) if own else heads * head_dim,
        "intermediate_size": pick.choice([4, 20, 72, 100]),
        "num_hidden_layers": pick.randint(1, 7),
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": pick.random() < 0.5,
        "rms_norm_eps": pick.choice([1e-6, 1e-5, 1e-2]),
    }
    turning = head_dim
    if own and family not in ("Phi3", "Qwen2", "BitNet"):  # whose classes have no head_dim
        fields["head_dim"] = head_dim
    else:
        turning = fields["hidden_size"] // heads
        if family in ("Qwen3", "Gemma2", "Gemma3Text"):
            fields["head_dim"] = turning
    window = pick.choice([1, 2, 7, 8, 31, 100, 500])
    if family in ("Llama", "SmolLM3"):
        fields |= {"attention_bias": pick.random() < 0.5, "mlp_bias": pick.random() < 0.5}
    if family in ("Qwen3", "Gemma2", "Gemma3Text", "BitNet"):
        fields["attention_bias"] = pick.random() < 0.5
    if family in ("Mistral", "Phi3"):
        fields["sliding_window"] = pick.choice([None, window])
    if family in ("Qwen2", "Qwen3", "SmolLM3"):
        fields |= {"use_sliding_window": pick.random() < 0.5, "sliding_window": window}
    if family in ("Qwen2", "Qwen3"):
        fields["max_window_layers"] = pick.randint(0, fields["num_hidden_layers"])
    if family == "SmolLM3":
        fields |= pick.choice([{}, {"no_rope_layer_interval": pick.randint(1, 4)}, {"no_rope_layers": [pick.randint(0, 1) for _ in range(fields["num_hidden_layers"])]}])
    if family in ("Gemma2", "Gemma3Text"):
        fields |= {"sliding_window": window, "query_pre_attn_scalar": pick.choice([4, 24, 256]), "final_logit_softcapping": pick.choice([None, 5.0])}
        fields |= pick.choice([{}, {"layer_types": [pick.choice(["full_attention", "sliding_attention"]) for _ in range(fields["num_hidden_layers"])]}])
    if family == "Gemma2":
        fields["attn_logit_softcapping"] = pick.choice([None, 2.0])
    if family == "Gemma3Text":
        everywhere = {key: value for key, value in rope(pick, turning).items() if key != "truncate"}  # which is refused there
        fields["rope_parameters"] = {"full_attention": everywhere, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
    elif family == "Phi3":
        part = pick.choice([1.0, 0.5]) if turning % 4 == 0 else 1.0
        kind = rope(pick, int(turning * part))
        while kind["rope_type"] not in ("default", "longrope"):
            kind = rope(pick, int(turning * part))
        fields["rope_parameters"] = kind | {"partial_rotary_factor": part}
        fields["original_max_position_embeddings"] = kind.get("original_max_position_embeddings", 4096)
    else:
        fields["rope_parameters"] = rope(pick, turning)
    if family not in ("BitNet", "Gemma2", "Gemma3Text", "Phi3"):
        fields["hidden_act"] = pick.choice(["silu", "gelu_pytorch_tanh", "relu2"])
    return fields


def make(folder, family, fields, pick):
    """transformers' model, saved to `folder` and read again."""
    config_class, model_class = classes(family)
    torch.manual_seed(pick.randrange(2**31))
    model = model_class(config_class(**fields, initializer_range=0.2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return load(folder, model_class)


def difference(build, folder, family, seed):
    """(fields, how far our logits are from transformers', how far they may be, over the largest logit) of a random model; prompts
    shorter and longer than its windows. Some of these models blow rounding up: there, several times as far as transformers in
    float32 is from itself in float64."""
    pick = random.Random(f"{family} {seed}")
    fields = fields_of(family, pick)
    model = make(folder, family, fields, pick)
    worst, bound = 0.0, 1e-4
    prompts = [[pick.randrange(VOCABULARY) for _ in range(length)] for length in (1, pick.randint(2, 30), POSITIONS - pick.randint(0, 20))]
    with Decoder(build, folder, "--native") as decoder, torch.inference_mode():
        said = [(decoder.logits(ids), model(torch.tensor([ids])).logits[0, -1].float()) for ids in prompts]
        model.double()
        for ids, (ours, theirs) in zip(prompts, said, strict=True):
            largest, truth = theirs.abs().max(), model(torch.tensor([ids])).logits[0, -1]
            worst = max(worst, ((ours - theirs).abs().max() / largest).item())
            bound = max(bound, 4 * ((theirs - truth).abs().max() / largest).item())
    return fields, worst, bound


@pytest.mark.parametrize("family", FAMILIES)
def test_random_models(build, tmp_path, family):
    """Two of each family; scripts/soak --architectures has many."""
    for seed in ("a", "b"):
        fields, apart, bound = difference(build, tmp_path / seed, family, seed)
        assert apart <= bound, fields
