"""examples/bit-llama: a short training; what it leaves in floats and what it leaves packed say the same, here and in
transformers."""

import importlib.util
import json
import random
import subprocess

import pytest
import torch
from runs import ROOT
from safetensors.torch import load_file
from test_llama_decode import Decoder

EXAMPLE = ROOT / "examples" / "bit-llama"
MATRIX = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def run(start, tmp_path):
    """Three steps on a few conversations, saved after the second and the third."""
    if importlib.util.find_spec("chitchat_dataset") is None:
        pytest.skip("there is nothing to train on without the Python package chitchat_dataset")
    settings = ("--set", f"output.dir={tmp_path / 'runs'}", "--set", "checkpoints.every=2")
    run = start("train", EXAMPLE / "config.yaml", *settings, "--", "--steps", 3, "--batch", 2, "--chats", 80, "--length", 64)
    assert run.wait() == 0, run.text()
    return run


def apart(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_latents_and_packed_weights_say_the_same(build, bitctl, run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    earlier, finished, packed = run.path / "checkpoints" / "step-000000002", run.path / "model", run.path / "packed"
    latents, two_bits = load_file(finished / "model.safetensors"), load_file(packed / "model.safetensors")
    rows, columns = latents[MATRIX].shape
    assert (two_bits[MATRIX].dtype, two_bits[MATRIX].shape) == (torch.uint8, (rows // 4, columns))
    assert not latents[MATRIX].equal(load_file(earlier / "model.safetensors")[MATRIX]), "or nothing was learned"

    pick = random.Random(0)
    prompts = [[pick.randrange(latents["model.embed_tokens.weight"].shape[0]) for _ in range(pick.randint(1, 10))] for _ in range(20)]
    said = {}
    with torch.compiler.set_stance("force_eager"), torch.inference_mode():
        for folder in (earlier, finished, packed):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
            assert type(model.model.layers[0].mlp.up_proj).__name__ == "AutoBitLinear"
            with Decoder(build, folder, "--native") as decoder:
                said[folder] = [decoder.logits(ids) for ids in prompts]
            theirs = [model(torch.tensor([ids])).logits[0, -1] for ids in prompts]
            distances = [apart(*pair) for pair in zip(said[folder], theirs, strict=True)]
            # Where an activation stands between two integers, rounding moves it by a whole one.
            assert max(distances) < 0.05 and sorted(distances)[4] < 1e-5, distances
    distances = [apart(*pair) for pair in zip(said[packed], said[finished], strict=True)]
    assert max(distances) < 0.05 and sorted(distances)[4] < 1e-5, distances
    # The controls: another step, and scales taken for their inverses, say something else.
    assert apart(said[finished][0], said[earlier][0]) > 1e-3
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"]["linear_class"] = "bitlinear"
    (packed / "config.json").write_text(json.dumps(config))
    with Decoder(build, packed, "--native") as decoder:
        assert apart(decoder.logits(prompts[0]), said[packed][0]) > 0.1
    config["quantization_config"]["linear_class"] = "autobitlinear"
    (packed / "config.json").write_text(json.dumps(config))

    template = AutoTokenizer.from_pretrained(packed).chat_template
    assert template == AutoTokenizer.from_pretrained(finished).chat_template and "<|im_start|>" in template
    for model in ((run.path,), (run.path, "--step", "2"), (packed,)):
        command = [bitctl, "chat", *model, "--temperature", "0", "--max-new-tokens", "4", "-p", "Hi!"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
