"""Quantized exports in the libraries that read them: transformers with compressed-tensors, and its own BitNet."""

import json
import subprocess

import pytest
import runs
import torch
from safetensors.torch import load_file

SCRIPT = """
import torch, bitctl
from transformers import %(config)s, %(model)s
torch.manual_seed(0)
model = %(model)s(%(config)s(
    vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
run = bitctl.init()
run.restore(model=model, optimizer=optimizer)
tokens = torch.randint(96, (2, 16))
model(input_ids=tokens, labels=tokens).loss.backward()
optimizer.step()
run.progress(step=1, total_steps=1)
run.checkpoint(1)
run.finish()
"""
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 96


@pytest.fixture
def exported(bitctl, start, tmp_path):
    """(the folder of the model, that of its export) of a trained one of that class."""

    def export(family, dtype):
        (tmp_path / "train.py").write_text(SCRIPT % {"config": family + "Config", "model": family + "ForCausalLM"})
        (tmp_path / "config.yaml").write_text(json.dumps({"run": {"script": "train.py"}, "checkpoints": {"every": 1}, "restart": {"warm": "off"}}))
        run = start("train", "config.yaml")
        assert run.wait() == 0, run.text()
        command = [bitctl, "checkpoints", "export", run.path, "newest", "out", "--dtype", dtype]
        done = subprocess.run(command, cwd=tmp_path, env=runs.environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return run.path / "model", tmp_path / "out"

    return export


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits.float()


def with_weights(folder, weights):
    """The float model, these in the place of its own."""
    model = loaded(folder)
    model.load_state_dict(weights, strict=False)
    return model


def quantized(out):
    """name -> (integers, scale) of what is."""
    tensors = load_file(out / "model.safetensors")
    return {name: (t, tensors[name + "_scale"]) for name, t in tensors.items() if name + "_scale" in tensors}


def test_int8_gives_the_logits_of_its_integers_times_their_scales(exported):
    original, out = exported("Llama", "int8")
    integers = quantized(out)
    assert len(integers) == 14
    weights = {name: t.to(torch.bfloat16) * scale.to(torch.bfloat16) for name, (t, scale) in integers.items()}
    assert torch.equal(logits(loaded(out)), logits(with_weights(original, weights)))
    assert not torch.equal(logits(loaded(out)), logits(loaded(original))), "or nothing was quantized"
    close = torch.nn.functional.cosine_similarity(logits(loaded(out)), logits(loaded(original)), dim=-1)
    assert close.min() > 0.99


def test_ternary_is_unpacked_to_what_was_meant(exported):
    original, out = exported("BitNet", "ternary")
    model = loaded(out)
    modules = dict(model.named_modules())
    floats = load_file(original / "model.safetensors")
    packed = quantized(out)
    assert len(packed) == 14
    for name, (_, scale) in packed.items():
        module = modules[name.removesuffix(".weight")]
        mean = floats[name].abs().mean().clamp(min=1e-5)
        assert torch.equal(module.weight.float(), (floats[name] / mean).round().clamp(-1, 1)), name
        assert torch.equal(module.weight_scale, scale) and torch.equal(scale, mean.to(torch.bfloat16).reshape(1))
    assert logits(model).isfinite().all()
