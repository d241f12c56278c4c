"""The order of the calls that bring tensors from a device; the device is a stand-in."""

import contextlib

import pytest

from bitctl import _cuda_staging


class Cuda:
    """torch.cuda as far as it is used: what is copied on a stream arrives when the stream is synchronized."""

    def __init__(self, refuses=False):
        self.calls, self.current, self.registered, self.refuses = [], None, {}, refuses

    def current_stream(self, device):
        return "current of %s" % device

    def Stream(self, device):
        return Stream(self, device)

    def stream(self, stream):
        return stream

    def cudart(self):
        return self

    @contextlib.contextmanager
    def device(self, device):
        self.inside = device
        yield
        self.inside = None

    def cudaHostRegister(self, address, size, flags):
        assert self.inside == "cuda:1"
        if self.refuses:
            return 1
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address):
        del self.registered[address]


class Stream:
    def __init__(self, cuda, device):
        self.cuda, self.device, self.queue = cuda, device, []

    def wait_stream(self, other):
        self.cuda.calls.append(("wait", self.device, other))

    def synchronize(self):
        self.cuda.calls.append(("synchronize", self.device))
        for target, source in self.queue:
            target.data = source.data
        self.queue = []

    def __enter__(self):
        self.cuda.current = self

    def __exit__(self, *_):
        self.cuda.current = None


class Tensor:
    def __init__(self, cuda, device, data=None):
        self.cuda, self.data = cuda, data
        self.device = _Device(device)

    def copy_(self, source, non_blocking=False):
        if non_blocking:
            assert self.cuda.current is not None and self.cuda.current.device == source.device
            self.cuda.calls.append(("copy", source.device))
            self.cuda.current.queue.append((self, source))
        else:
            assert source.device.type == "cpu"
            self.data = source.data


class _Device(str):
    @property
    def type(self):
        return self.partition(":")[0]


def test_devices_copy_on_streams_of_their_own_while_the_cpu_works():
    cuda = Cuda()
    sources = [Tensor(cuda, device, device) for device in ("cuda:1", "cpu", "cuda:0", "cuda:1")]
    pairs = [(Tensor(cuda, "cpu"), source) for source in sources]
    with _cuda_staging.copying(pairs, cuda):
        assert [target.data for target, _ in pairs] == [None, "cpu", None, None], "nobody has waited for a device"
        assert ("synchronize", "cuda:0") not in cuda.calls
        waits = [call for call in cuda.calls if call[0] == "wait"]
        assert waits == [("wait", d, "current of %s" % d) for d in ("cuda:0", "cuda:1")]
        assert cuda.calls.index(("wait", "cuda:1", "current of cuda:1")) < cuda.calls.index(("copy", "cuda:1"))
    assert [target.data for target, _ in pairs] == ["cuda:1", "cpu", "cuda:0", "cuda:1"]


def test_after_a_failure_no_device_writes_any_more():
    cuda = Cuda()
    pair = (Tensor(cuda, "cpu"), Tensor(cuda, "cuda:0", "x"))
    with pytest.raises(KeyError), _cuda_staging.copying([pair], cuda):
        raise KeyError
    assert cuda.calls[-1] == ("synchronize", "cuda:0")


def test_pages_are_locked_for_as_long_as_they_are_mapped():
    class Memory:
        address, size = 4096, 8192

    cuda, memory = Cuda(), Memory()
    assert _cuda_staging.lock_pages(memory, "cuda:1", cuda) and cuda.registered == {4096: 8192}
    del memory
    assert cuda.registered == {}
    assert not _cuda_staging.lock_pages(Memory(), "cuda:1", Cuda(refuses=True))
    assert not _cuda_staging.lock_pages(Memory(), _cuda_staging.current_device()), "no device here"
