"""Tensors that memcpy cannot reach, strided ones and those on a CUDA device, on their way into the arena.

The arena itself is the staging memory: its slots are registered with the driver as page-locked, so a device copies straight
into them, on a stream of its own, while the CPU copies the rest.

Unproven: no CUDA device has run this. The tests drive it with a stand-in for torch.cuda, which shows the order of the calls
and not that a driver accepts them: that cudaHostRegister takes a shared mapping of a memfd (where it does not, the copies are
right, and slow), what it gains, and what registering costs. Other accelerators (XPU, MPS) copy without a stream, in order.
"""

import contextlib
import sys
import weakref

_PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every device


def _cuda():
    """torch.cuda where the trainer uses it, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def current_device(cuda=None):
    """The device of the calling thread; None where there is none."""
    cuda = cuda or _cuda()
    return None if cuda is None else cuda.current_device()


def lock_pages(memory, device, cuda=None):
    """Registers a mapping (`address`, `size`) until it is let go; False where `device` is None, or it is refused."""
    if device is None:
        return False
    cuda = cuda or _cuda()
    with cuda.device(device):  # another thread's would be the first one, and come with a context on it
        runtime = cuda.cudart()
        if int(runtime.cudaHostRegister(memory.address, memory.size, _PORTABLE)) != 0:
            return False
    weakref.finalize(memory, runtime.cudaHostUnregister, memory.address).atexit = False
    return True


@contextlib.contextmanager
def copying(pairs, cuda=None):
    """Copies every (target, source) while the body runs; when it is left, every byte is there."""
    devices = sorted({source.device for _, source in pairs if source.device.type == "cuda"}, key=str)
    cuda = cuda or _cuda()
    streams = {}
    for device in devices:
        streams[device] = cuda.Stream(device)
        # What computes the tensors was asked for on the current stream.
        streams[device].wait_stream(cuda.current_stream(device))
    try:
        here = []
        for target, source in pairs:
            if source.device in streams:
                with cuda.stream(streams[source.device]):
                    target.copy_(source, non_blocking=True)
            else:
                here.append((target, source))
        for target, source in here:
            target.copy_(source)
        yield
    finally:
        # Also after a failure: nothing may write into a slot that is given back.
        for stream in streams.values():
            stream.synchronize()
