"""Taking a snapshot: the states of the registered objects, laid out as safetensors, copied into a slot of the arena."""

import itertools
import json
import random
import struct
import sys

from . import _tensors
from ._plan import Plan, Table, optimizer_table
from ._tensors import header_of, region_for, torch_module

MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"


def holds_parts(objects):
    """Whether a parameter of one of them is a DTensor."""
    torch = torch_module()
    for value in objects:
        if torch is not None and isinstance(value, torch.nn.Module):
            parameters = value.parameters()
        else:
            parameters = (p for group in getattr(value, "param_groups", ()) for p in group["params"])
        if any(map(_tensors.is_distributed, parameters)):
            return True
    return False


def file_names(rank, has_model, is_sharded):
    """The files in which a rank saves what is its own."""
    training = TRAINING_FILE if rank == 0 else "training-rank-%d.safetensors" % rank
    model = "model-rank-%d.safetensors" % rank if is_sharded else MODEL_FILE
    return (model, training) if has_model else (training,)


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


def _keeps_variables(model):
    """True for a module whose state_dict() can give the parameters themselves: to detach each is most of its time."""
    torch = torch_module()
    return torch is not None and getattr(model.state_dict, "__func__", None) is torch.nn.Module.state_dict


def model_table(model, trained=None, file=MODEL_FILE, parts=False):
    """The state_dict under its own names.

    `trained`: names of parameters that have been trainable once, kept up here; they never count as frozen again, since what
    is frozen now and then (a GAN's other half) would change its place each time. `parts`: of each DTensor what this process holds.
    """
    torch = torch_module()
    keeps_variables = _keeps_variables(model)
    state = model.state_dict(keep_vars=True) if keeps_variables else model.state_dict()
    state = {k: v for k, v in state.items() if torch is not None and isinstance(v, torch.Tensor)}
    names, tensors = list(state), list(state.values())
    tied = frozenset(getattr(model, "_tied_weights_keys", None) or ())
    if parts:
        tensors = _tensors.local_parts(tensors)
    if not keeps_variables or trained is None:
        return Table(file, names, tensors, lambda: names, tied)
    trainable = list(map(torch.Tensor.requires_grad.__get__, tensors))

    def frozen():
        trained.update(itertools.compress(names, trainable))
        return [isinstance(v, torch.nn.Parameter) and name not in trained for name, v in zip(names, tensors)]

    return Table(file, (names, trainable), tensors, lambda: names, tied, frozen)


def parameter_names(optimizer, model):
    """Names for the optimizer's parameter indices, where the model knows every parameter; else None."""
    if model is None or not hasattr(optimizer, "param_groups"):
        return None
    by_id = {id(p): name for name, p in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    names = [by_id.get(id(p)) for p in parameters]
    return names if all(names) and len(set(names)) == len(names) else None


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


class Snapshot:
    """What a snapshot will hold. It refers to the tensors; nothing is copied before write()."""

    def __init__(self, plan, tables, loose, headers):
        self._plan, self._tables, self._loose, self._headers = plan, tables, loose, headers

    def _files(self):
        return zip(self._plan.files, self._headers)

    def needs(self):
        """[(name, header bytes, data bytes)]: the least an arena must offer."""
        return [(file.name, 8 + len(header), file.data_bytes) for file, header in self._files()]

    def regions(self):
        """The `files` of an arena request."""
        return [
            {"name": file.name, "header_bytes": region_for(header, file.entries), "data_bytes": file.data_bytes}
            for file, header in self._files()
        ]

    def header(self, name):
        return next(header for file, header in self._files() if file.name == name)

    def write(self, arena, slot):
        """Copies everything into the slot; the bytes used of each file."""
        for index, header in enumerate(self._headers):
            arena.write_header(slot, index, header)
        self._plan.copy(arena, slot, self._tables, self._loose)
        return [arena.files[i]["header_bytes"] + file.data_bytes for i, file in enumerate(self._plan.files)]


class Collector:
    """Makes snapshots of the same objects, and keeps the plan of the last one."""

    def __init__(self, files=(MODEL_FILE, TRAINING_FILE), parts=False):
        """`files`: the model's, where it is saved, and the one for all the rest. `parts`: of each DTensor what this process
        holds; else one is refused."""
        self._files = files
        self._parts = parts
        self._plan = None
        self._model_headers = []
        self._trained = set() if files[0] == MODEL_FILE else None  # names of the model's parameters
        self._names = {}  # optimizer -> (what its parameters' names were worked out from, the names)

    def collect(self, objects, facts):
        """A Snapshot of `objects`: name -> thing with state_dict(). "model" goes to the first file (in two parts, where
        much of it is frozen), the rest to the last. `facts`: what the writer reads from the metadata (step, epoch, metrics,
        side_files, …)."""
        model = unwrap(objects["model"]) if objects.get("model") is not None else None
        tables, loose, states = [], [], {}
        if model is not None:
            tables.append(model_table(model, self._trained, self._files[0], self._parts))
        for name, value in objects.items():
            if name != "model" and value is not None:
                states[name] = self._collect_object(name, value, model, tables, loose)
        state = {"objects": states, "rng": rng_state(loose)}
        if self._plan is None or not self._plan.fits(tables, loose):
            self._plan = Plan(self._files, tables, loose)
            self._model_headers = [
                header_of({"format": "pt", "bitctl.frozen": "true"} if file.frozen else {"format": "pt"}, file.entries)
                for file in self._plan.files[:-1]
            ]
        state["aliases"] = self._plan.aliases
        if torch_module() is not None:
            state["threads"] = torch_module().get_num_threads()
        metadata = {"format": "pt"}
        for key, value in (("bitctl", facts), ("bitctl.state", state)):
            metadata[key] = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return Snapshot(self._plan, tables, loose, [*self._model_headers, header_of(metadata, self._plan.files[-1].entries)])

    def _collect_object(self, name, value, model, tables, loose):
        """JSON for its state; the tensors go to `tables` or to `loose`."""
        prefix = {"optimizer": "optim"}.get(name, name)
        state = value.state_dict()
        if self._parts:
            state = _tensors.local_parts(state)
        if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
            return _tensors.pack(state, prefix, loose)
        names = self._parameter_names(name, value, model, tables)
        indices = range(len(names or ()))
        named = names is not None and set(state["state"]) <= set(indices)
        if state.keys() == {"state", "param_groups"}:
            table = optimizer_table(self._files[-1], prefix + ".state", state["state"], names if named else None)
            if table is not None:
                tables.append(table)
                groups = _tensors.pack(state["param_groups"], prefix + ".param_groups", loose)
                return {"state": {"$table": prefix + ".state"}, "param_groups": groups, "$names": named}
        if named:
            state = dict(state, state={names[i]: v for i, v in state["state"].items()})
            state["$names"] = True
        return _tensors.pack(state, prefix, loose)

    def _parameter_names(self, name, optimizer, model, tables):
        if model is None or not hasattr(optimizer, "param_groups"):
            return None
        if not _keeps_variables(model):
            return parameter_names(optimizer, model)
        parameters = [id(p) for group in optimizer.param_groups for p in group["params"]]
        source = (parameters, tables[0].keys, list(map(id, tables[0].tensors)))
        if name not in self._names or self._names[name][0] != source:
            self._names[name] = (source, parameter_names(optimizer, model))
        return self._names[name][1]
