"""The random generators of this process, read fast and written small."""

import random
import struct
import sys

_PYTHON = struct.Struct("<625I?d")
_NUMPY = struct.Struct("<624IIId")


def capture():
    """What they stand at. Some ten microseconds."""
    torch, numpy = sys.modules["torch"], sys.modules.get("numpy")
    return (
        random.getstate(),
        numpy.random.get_state(legacy=True) if numpy is not None else None,
        torch.get_rng_state(),
        torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else [],
    )


def put_back(state):
    torch = sys.modules["torch"]
    python, numpy, cpu, cuda = state
    random.setstate(python)
    if numpy is not None:
        sys.modules["numpy"].random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def to_bytes(state):
    """Of one length as long as the generators are the same ones."""
    (_, words, gauss), numpy, cpu, cuda = state
    parts = [_PYTHON.pack(*words, gauss is not None, gauss or 0.0)]
    if numpy is not None:
        kind, keys, position, has_gauss, cached = numpy
        if kind != "MT19937":
            raise ValueError("numpy's generator is a %s" % kind)
        parts.append(_NUMPY.pack(*keys, position, has_gauss, cached))
    return b"".join([*parts, cpu.numpy().tobytes(), *(s.numpy().tobytes() for s in cuda)])


def from_bytes(data):
    """The inverse, in a process that has the same generators; ValueError where it has not."""
    torch, numpy = sys.modules["torch"], sys.modules.get("numpy")
    *words, has_gauss, gauss = _PYTHON.unpack_from(data)
    at = _PYTHON.size
    legacy = None
    if numpy is not None:
        *keys, position, numpy_has_gauss, cached = _NUMPY.unpack_from(data, at)
        legacy = ("MT19937", numpy.array(keys, dtype="uint32"), position, numpy_has_gauss, cached)
        at += _NUMPY.size
    rest = torch.frombuffer(bytearray(data[at:]), dtype=torch.uint8)
    cpu = torch.get_rng_state().numel()
    cuda = [s.numel() for s in torch.cuda.get_rng_state_all()] if rest.numel() > cpu else []
    if rest.numel() != cpu + sum(cuda):
        raise ValueError("the random generators are not those that were saved")
    cpu_state, *cuda_states = rest.split([cpu, *cuda])
    return (3, tuple(words), gauss if has_gauss else None), legacy, cpu_state.clone(), [s.clone() for s in cuda_states]
