"""Taking a snapshot: the states of the registered objects, laid out as safetensors, copied into a slot of the arena."""

import array
import json
import random
import struct
import sys

from . import _tensors
from ._tensors import FileLayout, padded_header, region_for, torch_module

MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"


def unwrap(model):
    """The module behind DistributedDataParallel and torch.compile."""
    torch = torch_module()
    while True:
        if torch is not None and hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif type(model).__name__ == "DistributedDataParallel" and hasattr(model, "module"):
            model = model.module
        else:
            return model


def model_pieces(model):
    """The state_dict under its own names, tied tensors once; and {dropped name: kept name}."""
    pieces, aliases, seen = [], {}, {}
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    state = {k: v for k, v in model.state_dict().items() if torch_module() is not None and isinstance(v, torch_module().Tensor)}
    # Of several names for one tensor the one stays that the model does not call tied.
    for name in sorted(state, key=lambda n: n in tied):
        tensor = state[name]
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device))
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        pieces.append(_tensors.piece_of_torch(name, tensor))
    return pieces, aliases


def parameter_names(optimizer, model):
    """Names for the optimizer's parameter indices, where the model knows every parameter; else None."""
    if model is None or not hasattr(optimizer, "param_groups"):
        return None
    by_id = {id(p): name for name, p in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    names = [by_id.get(id(p)) for p in parameters]
    return names if all(names) and len(set(names)) == len(names) else None


def _object_state(value, model):
    """state_dict() with the optimizer's indices replaced by parameter names."""
    state = value.state_dict()
    names = parameter_names(value, model)
    if names and isinstance(state, dict) and isinstance(state.get("state"), dict):
        indices = range(len(names))
        state = dict(state)
        if set(state["state"]) <= set(indices):
            state["state"] = {names[i]: v for i, v in state["state"].items()}
            state["$names"] = True
    return state


def rng_state(pieces):
    """Every random generator that is in use; the tensors go to `pieces`, the rest is returned."""
    version, words, gauss = random.getstate()
    data = struct.pack("<%dI" % len(words), *words)
    pieces.append(_tensors.piece_of_bytes("rng.python", "U32", (len(words),), data))
    state = {"python": {"version": version, "gauss": gauss}}
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        kind, keys, position, has_gauss, cached = numpy.random.get_state()
        pieces.append(_tensors.piece_of_numpy("rng.numpy", keys))
        state["numpy"] = {"kind": kind, "position": int(position), "has_gauss": int(has_gauss), "cached": float(cached)}
    torch = torch_module()
    if torch is not None:
        pieces.append(_tensors.piece_of_torch("rng.torch_cpu", torch.get_rng_state()))
        state["torch"] = {"cuda": 0}
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states = torch.cuda.get_rng_state_all()
            state["torch"]["cuda"] = len(states)
            pieces.extend(_tensors.piece_of_torch("rng.cuda.%d" % i, s) for i, s in enumerate(states))
    return state


def collect(objects, facts):
    """The two files of a snapshot as (FileLayout, header bytes) pairs.

    `objects`: name -> thing with state_dict(); "model" goes to model.safetensors, the rest to training.safetensors.
    `facts`: what the writer reads from the metadata (step, epoch, metrics, side_files, …).
    """
    model = unwrap(objects["model"]) if objects.get("model") is not None else None
    pieces, aliases = model_pieces(model) if model is not None else ([], {})
    training, states = [], {}
    for name, value in objects.items():
        if name != "model" and value is not None:
            prefix = {"optimizer": "optim"}.get(name, name)
            states[name] = _tensors.pack(_object_state(value, model), prefix, training)
    state = {"objects": states, "rng": rng_state(training), "aliases": aliases}
    if torch_module() is not None:
        state["threads"] = torch_module().get_num_threads()
    metadata = {
        "format": "pt",
        "bitctl": json.dumps(facts, separators=(",", ":"), allow_nan=False),
        "bitctl.state": json.dumps(state, separators=(",", ":"), allow_nan=False),
    }
    files = []
    for layout, meta in ((FileLayout(MODEL_FILE, pieces), {"format": "pt"}), (FileLayout(TRAINING_FILE, training), metadata)):
        files.append((layout, layout.header(meta)))
    return files


def needs(files):
    """[(name, header bytes, data bytes)]: the least an arena must offer."""
    return [(layout.name, 8 + len(header), layout.data_bytes) for layout, header in files]


def regions(files):
    """The `files` of an arena request."""
    return [
        {"name": layout.name, "header_bytes": region_for(header), "data_bytes": layout.data_bytes} for layout, header in files
    ]


def write(arena, slot, files):
    """Copies everything into the slot: headers, one C call for all plain tensors, torch for the others. used bytes."""
    torch = torch_module()
    base, items, used = arena.address(slot), array.array("Q"), []
    for index, (layout, header) in enumerate(files):
        region = arena.files[index]["header_bytes"]
        offset = arena.offset_of(index)
        arena.view(slot, offset, region)[:] = padded_header(header, region)
        data = offset + region
        used.append(region + layout.data_bytes)
        for piece, start in zip(layout.pieces, layout.offsets):
            if not piece.nbytes:
                continue
            if piece.address is not None:
                items.extend((base + data + start, piece.address, piece.nbytes))
            else:
                view = arena.view(slot, data + start, piece.nbytes)
                _tensors.torch_tensor(piece.dtype, piece.shape, view).copy_(piece.source)
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    arena.copy(items)
    return used
