"""The copy plan: which bytes go where, worked out once and kept for as long as it is true.

Nearly everything in a snapshot is a table of tensors (the model's state_dict, the optimizer's state) that looks the same
each time. The plan is true while every table has the same keys, and every tensor in it the same address, dtype, shape and
strides; to look costs well under a microsecond a tensor, to plan anew some ten. What is small and made anew for each
snapshot (random states, a scheduler's tensors) is "loose": its place is planned, its address filled in each time.
The plan refers to no tensor, so it keeps no memory alive.

Parameters that nothing trains get a file of their own where they are much: it is the same from one step to the next, and the
writer links it instead of writing it. Only speed hangs on them being the same; they are copied like the rest, since no
version counter tells of every write (`p.data` has one of its own), and the writer compares their bytes.
"""

import array
import itertools
import operator
import os.path

from . import _cuda_staging, _tensors
from ._tensors import torch_module

_FROZEN_BYTES = 16 << 20  # the least that is worth a file of its own,
_FROZEN_PART = 0.1  # and the least part of the whole


class Table:
    """Tensors side by side in one file.

    `keys`: all that decides their names and places; `names()` works the names out. `tied`: names that give way where two are
    one tensor; None where nothing is shared. `frozen()`: of each tensor, whether it is one that nothing trains; None where
    all are trained.
    """

    __slots__ = ("file", "keys", "tensors", "names", "tied", "frozen")

    def __init__(self, file, keys, tensors, names, tied=None, frozen=None):
        self.file, self.keys, self.tensors, self.names, self.tied, self.frozen = file, keys, tensors, names, tied, frozen

    def look(self):
        """An iterator: where each tensor's bytes lie and how a header describes them."""
        if not self.tensors:
            return iter(())
        kind, tensors = torch_module().Tensor, self.tensors
        return zip(
            map(kind.data_ptr, tensors), map(kind.dtype.__get__, tensors), map(kind.size, tensors),
            map(kind.is_contiguous, tensors),
        )  # fmt: skip

    def strides(self, look):
        return [tensor.stride() for tensor, seen in zip(self.tensors, look) if not seen[3]]


def optimizer_table(file, prefix, state, names):
    """The table of {index: {name: tensor}}, or None where `state` is anything else. `names`: of the parameters, or None."""
    torch = torch_module()
    if torch is None or not isinstance(state, dict) or not state:
        return None
    inner = list(state.values())
    if set(map(type, inner)) != {dict} or set(map(type, state)) != {int}:
        return None
    counts = list(map(len, inner))
    keys = list(itertools.chain.from_iterable(inner))
    tensors = list(itertools.chain.from_iterable(map(dict.values, inner)))
    if 0 in counts or not set(map(type, tensors)) <= {torch.Tensor, torch.nn.Parameter}:
        return None
    if not all(type(key) is str and "." not in key for key in set(keys)):
        return None
    owners = list(state) if names is None else [names[index] for index in state]

    def full_names():
        each = itertools.chain.from_iterable(map(itertools.repeat, owners, counts))
        return ["%s.%s.%s" % (prefix, owner, key) for owner, key in zip(each, keys)]

    return Table(file, (prefix, owners, counts, keys), tensors, full_names)


def from_table(entries, prefix, tensor, with_names):
    """optimizer_table() undone: {owner: {name: tensor(full name)}} of the header's entries."""
    state = {}
    for full in entries:
        if full.startswith(prefix + "."):
            owner, _, key = full[len(prefix) + 1 :].rpartition(".")
            state.setdefault(owner if with_names else int(owner), {})[key] = tensor(full)
    return state


class _File:
    """What the copy of one file needs, but for the addresses of loose pieces."""

    def __init__(self, name, pieces, frozen=False):
        """`pieces`: [(piece, source)]; the source is a loose piece's name, else (table, index)."""
        self.name, self.frozen = name, frozen
        self.items = array.array("Q")
        self.loose = {}  # name -> where its address stands in `items`
        self.by_torch = []  # what memcpy cannot do: (source, start, bytes, dtype, shape)
        start, entries, sources = 0, [], {piece.name: source for piece, source in pieces}
        for piece in _tensors.sorted_for_file([piece for piece, _ in pieces], name):
            entries.append(_tensors.entry_text(piece, start))
            source = sources[piece.name]
            if piece.nbytes and piece.address is None:
                self.by_torch.append((source, start, piece.nbytes, piece.dtype, piece.shape))
            elif piece.nbytes:
                if isinstance(source, str):
                    self.loose[source] = len(self.items) + 1
                self.items.extend((start, piece.address, piece.nbytes))
            start += piece.nbytes
        self.data_bytes, self.entries = start, ",".join(entries).encode()


def _files_of(name, trained, frozen):
    """One file, or two under the names that Hugging Face gives to the parts of a model."""
    apart, rest = (sum(piece.nbytes for piece, _ in pieces) for pieces in (frozen, trained))
    if apart < max(_FROZEN_BYTES, _FROZEN_PART * (apart + rest)):
        return [_File(name, trained + frozen)]
    stem, ending = os.path.splitext(name)
    return [_File(stem + "-00001-of-00002" + ending, frozen, True), _File(stem + "-00002-of-00002" + ending, trained)]


def _spec(piece):
    return piece.name, piece.dtype, piece.shape, piece.address is None


class Plan:
    """Of `tables`, and of `loose` pieces for the last of the `files`."""

    def __init__(self, files, tables, loose):
        self.aliases = {}  # name that was left out -> name of the same tensor
        pieces = {name: ([], []) for name in files}  # trained and frozen ones
        for number, table in enumerate(tables):
            frozen = table.frozen() if table.frozen else [False] * len(table.tensors)
            for index, name in self._kept(table):
                piece = _tensors.piece_of_torch(name, table.tensors[index])
                pieces[table.file][frozen[index]].append((piece, (number, index)))
        pieces[files[-1]][False].extend((piece, piece.name) for piece in loose)
        self.files = [file for name in files for file in _files_of(name, *pieces[name])]
        self._loose = list(map(_spec, loose))
        self._keys = [(table.file, table.keys) for table in tables]
        self._looks = [list(table.look()) for table in tables]
        self._strides = list(map(Table.strides, tables, self._looks))

    def _kept(self, table):
        """[(index, name)], every tensor once."""
        names, seen = table.names(), {}
        if table.tied is None:
            return list(enumerate(names))
        kept = []
        # Of several names for one tensor the one stays that the model does not call tied.
        for index in sorted(range(len(names)), key=lambda i: names[i] in table.tied):
            name, tensor = names[index], table.tensors[index]
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device))
            if tensor.numel() and key in seen:
                self.aliases[name] = seen[key]
            else:
                seen[key] = name
                kept.append((index, name))
        return kept

    def fits(self, tables, loose):
        return (
            self._keys == [(table.file, table.keys) for table in tables]
            and self._loose == list(map(_spec, loose))
            and all(map(self._is_as_before, tables, self._looks, self._strides))
        )

    @staticmethod
    def _is_as_before(table, look, strides):
        try:
            return all(map(operator.eq, table.look(), look)) and table.strides(look) == strides
        except (RuntimeError, TypeError):  # what has no address any more: planning says why it cannot be saved
            return False

    def copy(self, arena, slot, tables, loose):
        """Every tensor into the slot; when it returns, every byte is there."""
        by_name = {piece.name: piece for piece in loose}
        pairs = []
        for index, file in enumerate(self.files):
            for name, at in file.loose.items():
                file.items[at] = by_name[name].address
            for source, start, nbytes, dtype, shape in file.by_torch:
                tensor = by_name[source].source if isinstance(source, str) else tables[source[0]].tensors[source[1]]
                view = arena.view(slot, arena.data_of(index) + start, nbytes)
                pairs.append((_tensors.torch_tensor(dtype, shape, view), tensor.detach()))
        with _cuda_staging.copying(pairs):
            for index, file in enumerate(self.files):
                arena.copy(slot, index, file.items)
