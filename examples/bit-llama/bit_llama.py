"""A Llama whose linear layers are BitNet's: floats that are learned, and -1, 0 or 1 times one scale that is computed with."""

import copy
import pathlib
import shutil

import safetensors.torch
import torch
from transformers import BitNetQuantConfig, LlamaForCausalLM
from transformers.integrations.bitnet import AutoBitLinear, pack_weights, replace_with_bitnet_linear

# transformers compiles the two functions of AutoBitLinear, which takes longer than they do.
torch.compiler.set_stance("force_eager")


def quantization(mode):
    """`online`: the weights are floats, made ternary wherever they are used. `offline`: they are stored packed."""
    return BitNetQuantConfig(linear_class="autobitlinear", quantization_mode=mode)


def make_ternary(model):
    """Every linear layer but the head gets a straight-through estimator around the weights that it has."""
    weights = model.state_dict()
    model.config.quantization_config = quantization("online")
    replace_with_bitnet_linear(model, ["lm_head"], model.config.quantization_config)
    model.load_state_dict(weights)


def packed(model):
    """Its tensors as BitNet's models are stored: four rows a byte and one scale, the rest as it is."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in (model._tied_weights_keys or ())}
    for name, module in model.named_modules():
        if isinstance(module, AutoBitLinear):
            latents = module.weight.detach().float()
            scale = latents.abs().mean().clamp(min=1e-5)
            tensors[name + ".weight"] = pack_weights((latents * (1 / scale)).round().clamp(-1, 1))
            tensors[name + ".weight_scale"] = scale.reshape(1)
    return tensors


def save_packed(model, tokenizer, folder):
    """`folder`, renamed to that when it is whole."""
    folder = pathlib.Path(folder)
    stage = folder.with_name(f".{folder.name}.stage")
    for leftover in (stage, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [LlamaForCausalLM.__name__], "float32"
    config.quantization_config = quantization("offline")
    config.save_pretrained(stage)
    model.generation_config.save_pretrained(stage)
    tokenizer.save_pretrained(stage)
    safetensors.torch.save_file(packed(model), stage / "model.safetensors", {"format": "pt"})
    shutil.copymode(stage / "config.json", stage / "model.safetensors")  # which was for its owner's eyes only
    stage.rename(folder)
