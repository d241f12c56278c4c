"""Putting a snapshot back: tensors are copied into, never re-pointed; the random generators last."""

import array
import json
import random
import struct
import sys

from . import _tensors
from ._plan import from_table
from ._tensors import parse_header, torch_module
from .snapshot import parameter_names, unwrap


_BATCH_BYTES = 32 << 20  # copied by one call


class Mismatch(Exception):
    """The checkpoint does not fit the script's objects."""


class NotVerified(Exception):
    """The checkpoint turned out to be damaged while it was read."""


class _Image:
    """One file's image in a slot; waits for the bytes that it hands out."""

    def __init__(self, arena, slot, index):
        self._arena, self._slot, self._offset = arena, slot, arena.offset_of(index)
        region = arena.files[index]["header_bytes"]
        self._wait(region)
        view = arena.view(slot, self._offset, region + arena.files[index]["data_bytes"])
        self.entries, self.metadata, self._data = parse_header(view)
        self._view = view
        self._copies = []  # (begin, end, address), until copy()

    def _wait(self, end):
        if not self._arena.wait_loaded(self._slot, self._offset + end):
            raise NotVerified()

    def _entry(self, name):
        entry = self.entries.get(name)
        if entry is None:
            raise Mismatch("the checkpoint has no tensor %r" % name)
        return entry

    def tensor(self, name):
        """(dtype, shape, memoryview) of a tensor, once its bytes are verified."""
        entry = self._entry(name)
        begin, end = entry["data_offsets"]
        self._wait(self._data + end)
        return entry["dtype"], tuple(entry["shape"]), self._view[self._data + begin : self._data + end]

    def copy_later(self, name, target):
        """At the next copy() into `target`, which has its dtype and shape."""
        if target.device.type == "cpu" and target.is_contiguous() and not target.is_conj() and not target.is_neg():
            self._copies.append((*self._entry(name)["data_offsets"], target.data_ptr()))
        else:
            target.copy_(_tensors.torch_tensor(*self.tensor(name)))

    def new_tensor(self, name):
        """One of its own, filled by the next copy()."""
        entry = self._entry(name)
        target = torch_module().empty(entry["shape"], dtype=_tensors.torch_dtype(entry["dtype"]))
        self.copy_later(name, target)
        return target

    def copy(self):
        """In the order of the file, behind what is verified."""
        items, pending = array.array("Q"), 0
        last = len(self._copies) - 1
        for i, (begin, end, address) in enumerate(sorted(self._copies)):
            items.extend((address, self._data + begin, end - begin))
            pending += end - begin
            if pending >= _BATCH_BYTES or i == last:
                self._wait(self._data + end)
                self._arena.copy_out(self._slot, self._offset, items)
                items, pending = array.array("Q"), 0
        self._copies = []


def _differences(entries, targets):
    """What keeps the file's tensors out of the model's, one line each."""
    lines = ["the checkpoint has no tensor %r" % n for n in targets if n not in entries]
    lines += ["the model has no tensor %r" % n for n in entries if n not in targets]
    for name in targets:
        if name not in entries:
            continue
        have = (entries[name]["dtype"], tuple(entries[name]["shape"]))
        want = (_tensors.torch_dtype_name(targets[name].dtype), tuple(targets[name].shape))
        if have != want:
            lines.append("tensor %r is %s %s in the checkpoint and %s %s in the model" % ((name,) + have + want))
    return lines


def _restore_model(model, images, aliases):
    model = unwrap(model)
    image_of = {name: image for image in images for name in image.entries}
    state = {k: _tensors.local_parts(v) for k, v in model.state_dict().items() if isinstance(v, torch_module().Tensor)}
    kept = {name: tensor for name, tensor in state.items() if name not in aliases}
    lines = _differences({name: image.entries[name] for name, image in image_of.items()}, kept)
    if lines:
        raise Mismatch("; ".join(lines[:5]) + (" …" if len(lines) > 5 else ""))
    with torch_module().no_grad():
        for name, tensor in kept.items():
            image_of[name].copy_later(name, tensor)
        for image in images:
            image.copy()
        for name, kept_as in aliases.items():
            if name in state and state[name].data_ptr() != state[kept_as].data_ptr():
                state[name].copy_(state[kept_as])


def _state_of(packed, image):
    """What state_dict() gave."""
    table = packed.get("state") if isinstance(packed, dict) else None
    if not isinstance(table, dict) or "$table" not in table:
        return _tensors.unpack(packed, image.tensor)
    state = _tensors.unpack({k: v for k, v in packed.items() if k != "state"}, image.tensor)
    state["state"] = from_table(image.entries, table["$table"], image.new_tensor, packed["$names"])
    image.copy()
    return state


def _load_object(name, value, state, model):
    if isinstance(state, dict) and state.pop("$names", False):
        names = parameter_names(value, unwrap(model) if model is not None else None)
        if names is None:
            raise Mismatch("%s: its parameters are not the model's any more" % name)
        index = {n: i for i, n in enumerate(names)}
        unknown = [n for n in state["state"] if n not in index]
        if unknown:
            raise Mismatch("%s: the parameter %r is not the model's any more" % (name, unknown[0]))
        state["state"] = {index[n]: v for n, v in state["state"].items()}
    exact = _optimizer_tensors(value, state)
    value.load_state_dict(_with_whole_tensors(value, state))
    # torch casts an optimizer's state to its parameter's dtype; what was wider must stay so.
    for parameter, key, tensor in exact:
        if value.state[parameter][key].dtype != tensor.dtype:
            value.state[parameter][key] = tensor.to(parameter.device)
        if _tensors.is_distributed(parameter) and tensor.dim() > 0 and tensor.shape == _tensors.local_parts(parameter).shape:
            value.state[parameter][key] = _tensors.distributed_like(value.state[parameter][key], parameter)


def _with_whole_tensors(value, state):
    """What is a DTensor in the state that `value` has, made one of the part that was saved."""
    before = value.state_dict() if "torch.distributed.tensor" in sys.modules else None
    if not isinstance(before, dict) or not isinstance(state, dict):
        return state
    whole = {k: v for k, v in before.items() if _tensors.is_distributed(v) and k in state}
    return dict(state, **{k: _tensors.distributed_like(state[k], v) for k, v in whole.items()}) if whole else state


def _optimizer_tensors(value, state):
    groups = getattr(value, "param_groups", None)
    if groups is None or not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        return []
    parameters = [p for group in groups for p in group["params"]]
    return [
        (parameters[index], key, tensor)
        for index, entry in state["state"].items()
        if isinstance(index, int) and index < len(parameters) and isinstance(entry, dict)
        for key, tensor in entry.items()
        if isinstance(tensor, torch_module().Tensor)
    ]


def _restore_rng(state, image):
    words = bytes(image.tensor("rng.python")[2])
    random.setstate(
        (state["python"]["version"], struct.unpack("<%dI" % (len(words) // 4), words), state["python"]["gauss"])
    )
    if "numpy" in state:
        import numpy

        saved = state["numpy"]
        keys = numpy.frombuffer(bytes(image.tensor("rng.numpy")[2]), dtype="uint32")
        numpy.random.set_state((saved["kind"], keys, saved["position"], saved["has_gauss"], saved["cached"]))
    torch = torch_module()
    if "torch" in state and torch is not None:
        torch.set_rng_state(_tensors.torch_tensor(*image.tensor("rng.torch_cpu")).clone())
        count = state["torch"]["cuda"]
        if count and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(
                [_tensors.torch_tensor(*image.tensor("rng.cuda.%d" % i)).clone() for i in range(count)]
            )


class Saved:
    """What one rank has saved: its images in a slot."""

    def __init__(self, arena, slot):
        self._arena, self._slot = arena, slot
        images = [_Image(arena, slot, i) for i in range(len(arena.files))]
        self.model, self.training = images[:-1], images[-1]
        self.state = json.loads(self.training.metadata["bitctl.state"])
        self.facts = json.loads(self.training.metadata["bitctl"])

    def state_of(self, name):
        """What that object's state_dict() gave; None for one that was not saved."""
        packed = self.state["objects"].get(name)
        return None if packed is None else _state_of(packed, self.training)

    def wait(self):
        if not self._arena.wait_complete(self._slot):
            raise NotVerified()


def put_back(saved, own, objects):
    """Copies into `objects` what this rank has saved itself (`own`), and the rest from `saved`.

    Without `own` the random generators stay as they are. Mismatch, NotVerified; any other error means a half-restored state.
    """
    state, training = saved.state, saved.training
    missing = [name for name, value in objects.items() if name != "model" and value is not None and name not in state["objects"]]
    if missing:
        raise Mismatch("the checkpoint holds no state of %s" % ", ".join(missing))
    model = objects.get("model")
    if model is not None:
        _restore_model(model, saved.model, state["aliases"])
    for name, value in objects.items():
        if name != "model" and value is not None:
            source = own if own is not None and name in own.state["objects"] else saved
            _load_object(name, value, _state_of(source.state["objects"][name], source.training), model)
    torch = torch_module()
    if torch is not None and state.get("threads") and torch.get_num_threads() != state["threads"]:
        print(
            "bitctl: using %d threads, as the checkpoint did (bits depend on it)" % state["threads"], file=sys.stderr
        )
        torch.set_num_threads(state["threads"])
    if own is not None:
        _restore_rng(own.state["rng"], own.training)
