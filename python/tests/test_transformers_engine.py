"""The transformers engine against a fresh run of the same model, in every way that a conversation uses it."""

import json
import os
import random

import peft
import pytest
import safetensors.torch
import torch
import transformers

from bitctl import side_files, transformers_engine

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
# Experts, another block, ALiBi, windows that forget, states that cannot go back, both kinds in one model.
FAMILIES = {
    "Mixtral": {"num_local_experts": 4},
    "GPTNeoX": {"num_key_value_heads": None},
    "Bloom": {"n_layer": 2, "n_head": 4, "seq_length": 128},
    "Gemma3Text": {"head_dim": 8, "sliding_window": 16, "num_hidden_layers": 6},
    "Mamba": {"state_size": 8},
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save(folder, family, **fields):
    torch.manual_seed(1)
    config = getattr(transformers, family + "Config")(**{**SIZES, **FAMILIES.get(family, {}), **fields})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def start(folder, adapter=None, **options):
    """The engine on that folder, and its reply to `load`."""
    paths = [("config", folder / "config.json")]
    paths += [("weights", path) for path in sorted(folder.glob("model*.safetensors"))]
    if adapter is not None:
        paths.append(("adapter_config", adapter / "adapter_config.json"))
        paths += [("adapter_weights", path) for path in adapter.glob("adapter_model.safetensors")]
    engine = transformers_engine.Engine([(name, os.open(path, os.O_RDONLY)) for name, path in paths])
    reply, data = engine.answer({"op": "load", "mmap": True, "device": "cpu", "max_context": 0, **options})
    assert data == b""
    return engine, reply


def forward(engine, ids, position):
    reply, data = engine.answer({"op": "forward", "ids": ids[position:], "position": position})
    assert reply == {"bytes": len(data)}, reply
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def assert_same_logits(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def without_cache(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_a_fresh_run_however_they_were_asked_for(tmp_path, family):
    model = transformers.AutoModelForCausalLM.from_pretrained(save(tmp_path, family), dtype="auto").eval()
    engine, reply = start(tmp_path)
    assert reply == {"vocab_size": 320, "max_context": 128, "device": "cpu", "dtype": "float32"}
    rng = random.Random(family)
    ids = [rng.randrange(320) for _ in range(60)]
    others = [rng.randrange(320) for _ in range(30)]
    for text, position in (
        (ids[:30], 0),  # a prompt
        (ids[:31], 30),  # a token, and another
        (ids[:32], 31),
        (ids[:60], 32),  # the next turn
        (ids[:59] + others[:3], 59),  # the last words taken back
        (ids[:20] + others, 20),  # back beyond any window
        (others[:5], 0),
    ):
        assert_same_logits(forward(engine, text, position), without_cache(model, text))
    with pytest.raises(AssertionError):  # the control: a wrong position is heard
        assert_same_logits(forward(engine, others[:4] + ids[:1], 4), without_cache(model, others[:5]))


def test_what_can_be_reused_is_not_run_again(tmp_path):
    engine, _ = start(save(tmp_path, "Mixtral"))
    ran = []
    run = engine.model._run
    engine.model._run = lambda ids: ran.append(len(ids)) or run(ids)
    forward(engine, [1, 2, 3, 4], 0)
    forward(engine, [1, 2, 3, 4, 5], 4)
    forward(engine, [1, 2, 9, 8], 2)
    assert ran == [4, 1, 2]


def test_weights_read_into_memory_are_the_same(tmp_path):
    save(tmp_path, "Mixtral")
    ids = [3, 1, 4, 1, 5]
    assert torch.equal(forward(start(tmp_path)[0], ids, 0), forward(start(tmp_path, mmap=False)[0], ids, 0))


def error_of(folder, **options):
    _, reply = start(folder, **options)
    assert "\n" not in reply.get("error", "")
    return reply.get("error", "none")


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path):
    save(tmp_path, "Mixtral")
    assert error_of(tmp_path) == "none", "the control"
    assert error_of(tmp_path, max_context=129) == "max_context 129 is not within the model's 128"
    assert error_of(tmp_path, device="abacus").startswith("--device abacus: ")
    weights = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({k: v for k, v in tensors.items() if k != "model.norm.weight"}, weights)
    assert error_of(tmp_path) == "the weights do not fit config.json: model.norm.weight is missing"
    safetensors.torch.save_file({**tensors, "model.norm.weight": torch.ones(7)}, weights)
    assert error_of(tmp_path) == "the weights do not fit config.json: model.norm.weight is [7], not [32]"
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_type": "t5"}))
    assert "no causal language model" in error_of(tmp_path)
    path.write_text(json.dumps({**config, "model_type": "mine"}))
    assert error_of(tmp_path).endswith("does not know model_type 'mine'")


def test_code_that_comes_with_a_model_is_never_run(tmp_path):
    save(tmp_path, "Mixtral")
    path = tmp_path / "config.json"
    code = "open(%r, 'w')\n" % str(tmp_path / "it ran")
    (tmp_path / "mine.py").write_text(code)
    for model_type in ("mine", "mixtral"):
        auto = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": model_type, "auto_map": auto}))
        said = error_of(tmp_path)
        assert model_type == "mixtral" or said.endswith("code that comes with a model is never run")
    assert not (tmp_path / "it ran").exists()


def test_what_cannot_be_computed_leaves_the_rest_alone(tmp_path):
    engine, _ = start(save(tmp_path, "Mixtral"))
    before = forward(engine, [1, 2, 3], 0)
    for ids, position, reason in (
        ([1], 9, "position 9 leaves a gap: the cache holds 3 positions"),
        ([1] * 126, 3, "the context is full: 126 tokens at position 3 of 128"),
    ):
        assert engine.answer({"op": "forward", "ids": ids, "position": position}) == ({"error": reason}, b"")
    assert torch.equal(forward(engine, [1, 2, 3], 0), before)
    reply, _ = engine.answer({"op": "forward", "ids": [320], "position": 3})
    assert "error" in reply
    assert torch.equal(forward(engine, [1, 2, 3], 0), before)


@pytest.fixture
def adapted(tmp_path):
    """A tiny Llama in tmp_path/base, and a peft model on it whose adapter changes what it says."""
    model = transformers.AutoModelForCausalLM.from_pretrained(save(tmp_path / "base", "Llama"), dtype="auto")
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM")
    made = peft.get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


IDS = [5, 1, 200, 7, 9]


def test_an_adapter_answers_as_peft_has_it(adapted, tmp_path):
    adapted.save_pretrained(tmp_path / "adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    alone = without_cache(base, IDS)
    theirs = without_cache(peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval(), IDS)
    engine, _ = start(tmp_path / "base", tmp_path / "adapter")
    assert_same_logits(forward(engine, IDS, 0), theirs)
    assert_same_logits(forward(engine, [*IDS[:4], 9], 4), theirs)
    with pytest.raises(AssertionError):  # the control: it says something else
        assert_same_logits(alone, theirs)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_training_that_saves_base_and_adapter_answers_as_it_stands(adapted, tmp_path, wrapped):
    model = adapted if wrapped else adapted.get_base_model()  # as transformers' own add_adapter() leaves it
    if not wrapped:
        model.peft_config = adapted.peft_config
    side = side_files.write(str(tmp_path / "checkpoints"), model)
    step = tmp_path / "checkpoints" / ".side" / side
    safetensors.torch.save_file({k: v.clone() for k, v in model.state_dict().items()}, step / "model.safetensors")
    assert json.loads((step / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    engine, _ = start(step, step)
    assert_same_logits(forward(engine, IDS, 0), without_cache(adapted, IDS))


def test_what_is_wrong_with_an_adapter_is_one_line(adapted, tmp_path):
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter)
    path = adapter / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = next(key for key in tensors if "lora_B" in key)

    def error():
        _, reply = start(tmp_path / "base", adapter)
        return reply.get("error", "none")

    assert error() == "none", "the control"
    safetensors.torch.save_file({k: v for k, v in tensors.items() if k != name}, path)
    assert error() == f"the adapter does not fit its base: {name.replace('.weight', '.default.weight')} is missing"
    safetensors.torch.save_file({**tensors, "base_model.model.model.layers.7.lora_B.weight": torch.ones(1)}, path)
    assert "layers.7" in error() and "has no place" in error()
    path.unlink()
    assert error() == "the weights hold 0 adapters (), not one"
    config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert error() == "adapter_config.json: peft_type PROMPT_TUNING is no LoRA"
