"""The safetensors layout of a snapshot, and states of any shape taken apart into tensors and plain JSON.

No pickle: what is neither a tensor nor plain data is refused by name.
"""

import base64
import ctypes
import json
import math
import sys

PAGE = 4096

# As the safetensors library sorts them: widest last here, so the file holds them from the end.
DTYPE_ORDER = (
    "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 "
    "F64 I64 U64"
).split()

_TORCH_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
_NUMPY_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64",
}  # fmt: skip


def torch_module():
    """torch where the trainer has imported it, else None; never imported by us."""
    return sys.modules.get("torch")


def is_distributed(value):
    """True for a DTensor (FSDP, tensor parallel): each process holds a part of it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def local_parts(value):
    """What this process holds of every DTensor in a state; all else as it is."""
    if is_distributed(value):
        with torch_module().no_grad():
            return value.to_local()
    if isinstance(value, dict):
        return {k: local_parts(v) for k, v in value.items()}
    if type(value) is list:
        return [local_parts(v) for v in value]
    return value


def distributed_like(part, whole):
    """local_parts() undone: the DTensor of the form of `whole` of which this process holds `part`."""
    return type(whole).from_local(
        part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


class Piece:
    """One tensor of a snapshot. `address` is where its bytes lie now, None where torch has to copy it."""

    __slots__ = ("name", "dtype", "shape", "nbytes", "address", "source")

    def __init__(self, name, dtype, shape, nbytes, address, source):
        self.name, self.dtype, self.shape, self.nbytes = name, dtype, shape, nbytes
        self.address, self.source = address, source


def torch_dtype_name(dtype):
    return _TORCH_NAMES.get(str(dtype).replace("torch.", ""))


def torch_dtype(name):
    torch = torch_module()
    return next(getattr(torch, t) for t, s in _TORCH_NAMES.items() if s == name and hasattr(torch, t))


def piece_of_torch(name, tensor):
    dtype = torch_dtype_name(tensor.dtype)
    if dtype is None or tensor.layout is not torch_module().strided or tensor.is_quantized:
        raise TypeError("%s: a %s tensor (%s) cannot be saved" % (name, tensor.dtype, tensor.layout))
    if is_distributed(tensor):
        raise TypeError("%s: each rank holds a part of it; run.restore(…, sharded=True) saves it" % name)
    tensor = tensor.detach()
    nbytes = tensor.numel() * tensor.element_size()
    plain = tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
    address = tensor.data_ptr() if plain else None
    if nbytes and address == 0:
        raise TypeError("%s: a %s, whose bytes are not its own, cannot be saved" % (name, type(tensor).__name__))
    return Piece(name, dtype, tuple(tensor.shape), nbytes, address, tensor)


def piece_of_bytes(name, dtype, shape, data):
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value if data else 0
    return Piece(name, dtype, tuple(shape), len(data), address, data)


def piece_of_numpy(name, array):
    dtype = _NUMPY_NAMES.get(array.dtype.name)
    if dtype is None or not array.dtype.isnative:
        raise TypeError("%s: a numpy array of %s cannot be saved" % (name, array.dtype))
    return piece_of_bytes(name, dtype, array.shape, array.tobytes())


def _is_torch(value):
    torch = torch_module()
    return torch is not None and isinstance(value, torch.Tensor)


def _is_numpy(value):
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def pack(value, path, pieces):
    """JSON for `value`; every tensor in it becomes a piece named by its path. TypeError names what cannot be saved."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if _is_torch(value):
        pieces.append(piece_of_torch(path, value))
        return {"$tensor": path}
    if _is_numpy(value):
        import numpy

        array = numpy.asarray(value)
        pieces.append(piece_of_numpy(path, array))
        return {"$numpy": path, "scalar": not isinstance(value, numpy.ndarray)}
    if type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        items = [(k, pack(v, "%s.%s" % (path, k), pieces)) for k, v in value.items()]
        if all(type(k) is str and not k.startswith("$") for k, _ in items):
            return dict(items)
        return {"$map": [[pack(k, path, pieces), v] for k, v in items]}
    if type(value) is list and set(map(type, value)) == {int}:  # an optimizer's thousands of parameter indices
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [pack(v, "%s.%d" % (path, i), pieces) for i, v in enumerate(value)]
        if type(value) is list:
            return items
        kind = "$tuple" if isinstance(value, tuple) else "$set"
        return {kind: items}
    torch = torch_module()
    if torch is not None and isinstance(value, torch.dtype):
        return {"$dtype": str(value).replace("torch.", "")}
    if isinstance(value, (int, float)):  # subclasses: IntEnum, numpy-free scalars
        return pack(int(value) if isinstance(value, int) else float(value), path, pieces)
    raise TypeError("%s: a value of type %s cannot be saved (tensors and plain data only)" % (path, type(value).__name__))


def unpack(value, tensors):
    """The inverse of pack(); `tensors(name)` gives a tensor's (dtype, shape, memoryview)."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return torch_tensor(*tensors(value["$tensor"])).clone()
    if "$numpy" in value:
        import numpy

        dtype, shape, view = tensors(value["$numpy"])
        name = next(n for n, s in _NUMPY_NAMES.items() if s == dtype)
        array = numpy.frombuffer(bytes(view), dtype=name).reshape(shape)
        return array[()] if value["scalar"] else array.copy()
    if "$float" in value:
        return float(value["$float"])
    if "$bytes" in value:
        return base64.b64decode(value["$bytes"])
    if "$map" in value:
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value["$map"]}
    if "$tuple" in value:
        return tuple(unpack(v, tensors) for v in value["$tuple"])
    if "$set" in value:
        return set(unpack(v, tensors) for v in value["$set"])
    if "$dtype" in value:
        return getattr(torch_module(), value["$dtype"])
    return {k: unpack(v, tensors) for k, v in value.items()}


def torch_tensor(dtype, shape, view):
    """A torch view of the bytes; no copy."""
    torch = torch_module()
    if not len(view):
        return torch.empty(shape, dtype=torch_dtype(dtype))
    return torch.frombuffer(view, dtype=torch_dtype(dtype)).reshape(shape)


def sorted_for_file(pieces, file):
    """As the safetensors library orders them; ValueError for two of one name."""
    if len({p.name for p in pieces}) != len(pieces):
        raise ValueError("two tensors of one name in %s" % file)
    order = {dtype: i for i, dtype in enumerate(DTYPE_ORDER)}
    return sorted(pieces, key=lambda p: (-order[p.dtype], p.name))


def entry_text(piece, begin):
    """The piece's part of a header, its data starting at `begin`."""
    return '%s:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}' % (
        json.dumps(piece.name, ensure_ascii=False), piece.dtype, ",".join(map(str, piece.shape)), begin, begin + piece.nbytes,
    )  # fmt: skip


def header_of(metadata, entries):
    """The unpadded JSON of a header, of its metadata and the bytes of all its entries."""
    head = '{"__metadata__":%s' % json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    return b"".join((head.encode(), b"," if entries else b"", entries, b"}"))


def region_for(header, entries):
    """What the header needs, and its metadata once more, in whole pages: the states in it may grow, the `entries` not."""
    return -(-(8 + len(header) + max(PAGE, len(header) - len(entries))) // PAGE) * PAGE


def parse_header(view):
    """(entries, metadata, data_start) of a safetensors image."""
    size = int.from_bytes(view[:8], "little")
    header = json.loads(bytes(view[8 : 8 + size]))
    return header, header.pop("__metadata__", {}), 8 + size
