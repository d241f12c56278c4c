"""The native decoder on weights that are no float32: BitNet's, integers with a scale a row, halves."""

import json

import pytest
import safetensors.torch
import torch
from test_llama_decode import assert_same_logits, greedy, one_thread, prompts  # noqa: F401
from test_native_decode import classes, last_logits, make, native

NEW = 32


def matrices(tensors):
    return [name for name in tensors if name.endswith("_proj.weight")]


def rewrite(folder, change, quantization):
    """The tensors changed, the config told."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name in matrices(tensors):
        change(tensors, name)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))


def to_ternary(inverse):
    from transformers.integrations.bitnet import pack_weights

    def change(tensors, name):
        mean = tensors[name].abs().mean().clamp(min=1e-5)
        tensors[name] = pack_weights((tensors[name] / mean).round().clamp(-1, 1))
        tensors[name + "_scale"] = (1 / mean if inverse else mean).reshape(1)

    return change


def to_int8(tensors, name):
    scale = tensors[name].abs().amax(1, keepdim=True) / 127
    tensors[name], tensors[name + "_scale"] = (tensors[name] / scale).round().to(torch.int8), scale


BITNET = {
    "multiplied": ("autobitlinear", "offline", to_ternary(inverse=False)),
    "divided": ("bitlinear", "offline", to_ternary(inverse=True)),
    "quantized_at_load": ("autobitlinear", "online", lambda tensors, name: None),
}


@pytest.fixture
def eager():
    """transformers' BitNet compiles its functions, which takes longer than the rest."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("family", ["BitNet", "Llama", "Phi3"])
@pytest.mark.parametrize("name", BITNET)
def test_ternary_models_are_those_of_transformers(build, tmp_path, eager, family, name):
    """Its integers are exact, so what is left is rounding; but where an activation stands between two integers, that
    rounding moves it by a whole one. So most prompts agree, and the others nearly."""
    linear_class, mode, change = BITNET[name]
    make(tmp_path, family)
    rewrite(tmp_path, change, {"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": mode})
    model = classes(family)[1].from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    assert type(model.model.layers[0].mlp.down_proj).__name__.lower() == linear_class
    exact = 0
    with native(build, tmp_path) as decoder:
        for ids in prompts(name, 10):
            ours, theirs = decoder.logits(ids), last_logits(model, ids)
            assert_same_logits(ours, theirs, 0.05)
            exact += (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        answers = [decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids, NEW) for ids in prompts("greedy", 4)]
    assert exact >= 7 and sum(answers) >= 2


# Bit-Llama's own names: as its first trainers wrote them, and as its last one does.
FIRST = {"model.embed_tokens.": "embed.", "model.layers.": "layers.", "model.norm.": "norm_f.", "input_layernorm.": "norm1.", "post_attention_layernorm.": "norm2."}
LAST = {"model.layers.": "layers.", "input_layernorm.": "norm1.model.norm.", "post_attention_layernorm.": "norm2.model.norm."}


def signs(latents):
    """As Bit-Llama's training has them: no scale, half away from zero."""
    scaled = latents / latents.abs().mean()
    return scaled.sign() * (scaled.abs() >= 0.5)


@pytest.mark.parametrize("names", [FIRST, LAST, {}], ids=["first", "last", "transformers"])
def test_bit_llamas_own_files(build, tmp_path, names):
    """The reference is transformers' Llama of floats with the signs for weights: that is what Bit-Llama's forward computes."""
    model = make(tmp_path, "Llama", rms_norm_eps=1e-5)
    latents = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: signs(tensor) for name, tensor in latents.items() if name in matrices(latents)}, strict=False)

    def own(name):
        for theirs, short in names.items():
            name = name.replace(theirs, short)
        return name

    safetensors.torch.save_file({own(name): tensor for name, tensor in latents.items()}, tmp_path / "model.safetensors")
    config = {
        "arch": "llama", "vocab_size": 320, "hidden_dim": 32, "num_layers": 3, "n_heads": 4, "n_kv_heads": 2, "intermediate_dim": 72,
        "inner_lr": 0.0, "n_gpu_layers": 10, "rope_theta": 10000.0, "max_position_embeddings": 256, "lm_head_cpu": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with native(build, tmp_path) as decoder:
        for ids in prompts("bit-llama", 8):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            assert decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids, NEW)
        # The control: the latents themselves say something else.
        model.load_state_dict(latents)
        with pytest.raises(AssertionError):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))


def test_integers_of_8_bits_are_multiplied_by_their_scales(build, tmp_path):
    model = make(tmp_path, "Qwen2")
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}},
    }
    rewrite(tmp_path, to_int8, quantization)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    meant = {name: tensors[name] * tensors[name + "_scale"] for name in matrices(tensors)}
    before = last_logits(model, [1, 2, 3])
    assert model.load_state_dict(meant, strict=False).unexpected_keys == []
    with native(build, tmp_path) as decoder:
        assert (decoder.logits([1, 2, 3]) - before).abs().max() > 1e-3 * before.abs().max()
        for ids in prompts("int8", 8):
            assert_same_logits(decoder.logits(ids), last_logits(model, ids))
            assert decoder.ask(ids, new=NEW)["ids"] == greedy(model, ids, NEW)


def divergence(logits, reference):
    p, q = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum().item()


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "GPT2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_closer_to_float32_than_transformers(build, tmp_path, family, dtype):
    """The same weights, computed in float32 by transformers, are what both are held against."""
    halves = make(tmp_path, family, dtype)
    floats = classes(family)[1].from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    ours, theirs = [], []
    with native(build, tmp_path) as decoder:
        for ids in prompts(family, 16):
            reference = last_logits(floats, ids)
            ours.append(divergence(decoder.logits(ids), reference))
            theirs.append(divergence(last_logits(halves, ids), reference))
    assert sum(ours) < sum(theirs)
    assert sum(ours) / len(ours) < 1e-4
