"""The arena seen from the trainer: the control page and the slots, through libbitctl_snapshot (src/snapshot)."""

import ctypes
import mmap
import os
import threading

from . import _cuda_staging

ABI = 4
PAGE = 4096
CONTROL_BYTES = 4096
MAX_FILES = 4
_LONGEST_LEAVE = 60000  # milliseconds
_AT_ONCE = 64 << 20  # bytes of an arena that are mapped in some milliseconds

_u32, _u64, _int, _ptr = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p


def load_library(path):
    library = ctypes.CDLL(path)
    signatures = {
        "bitctl_snapshot_abi": (_u32, []),
        "bitctl_control_check": (_int, [_ptr]),
        "bitctl_snapshot_begin": (_int, [_ptr, _u32, _u64, _u32, _u32]),
        "bitctl_snapshot_copy": (None, [_ptr, _ptr, ctypes.c_size_t]),
        "bitctl_snapshot_force": (None, [_int, _int]),
        "bitctl_snapshot_populate": (_int, [_ptr, ctypes.c_size_t]),
        "bitctl_snapshot_commit": (_int, [_ptr, _u32, _int, _ptr, ctypes.c_size_t, _int, _int]),
        "bitctl_snapshot_abandon": (None, [_ptr, _u32, _int]),
        "bitctl_snapshot_await": (_int, [_ptr, _u32, _int, _u64, _int]),
        "bitctl_control_set_step": (None, [_ptr, _u64]),
        "bitctl_control_enter": (_u32, [_ptr, _u32, _u64]),
        "bitctl_control_save_at": (_u64, [_ptr]),
        "bitctl_control_stop_at": (_u64, [_ptr]),
        "bitctl_control_clear_save_at": (None, [_ptr, _u64]),
        "bitctl_control_persist_ns": (_u64, [_ptr]),
        "bitctl_control_save_by": (None, [_ptr, _u64]),
        "bitctl_control_agree": (None, [_ptr, _u64]),
        "bitctl_control_join": (None, [_ptr, _u32]),
        "bitctl_control_world_size": (_u32, [_ptr]),
        "bitctl_control_leave": (_int, [_ptr, _int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    if library.bitctl_snapshot_abi() != ABI:
        raise OSError("%s is of another version of bitctl" % path)
    return library


class Memory:
    """A shared mapping that is not inherited by children."""

    def __init__(self, fd, size):
        self.map = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        os.close(fd)
        self.map.madvise(mmap.MADV_DONTFORK)
        self._anchor = ctypes.c_char.from_buffer(self.map)
        self.address = ctypes.addressof(self._anchor)
        self.size = size


class Control:
    """A control page: the requests, and a rank's step. What several ranks agree on stands on rank 0's page (snapshot.h)."""

    def __init__(self, library, fd, wake_fd):
        self._library = library
        self._memory = Memory(fd, CONTROL_BYTES)
        self.address = self._memory.address
        self.wake_fd = wake_fd
        if library.bitctl_control_check(self.address) != 0:
            raise OSError("the control page is of another version of bitctl")

    def set_step(self, step):
        self._library.bitctl_control_set_step(self.address, step)

    def enter(self, phase, milliseconds):
        self._library.bitctl_control_enter(self.address, phase, milliseconds)

    def save_at(self):
        return self._library.bitctl_control_save_at(self.address)

    def stop_at(self):
        return self._library.bitctl_control_stop_at(self.address)

    def clear_save_at(self, met):
        self._library.bitctl_control_clear_save_at(self.address, met)

    def save_by(self, step):
        self._library.bitctl_control_save_by(self.address, step)

    def agree(self, step):
        self._library.bitctl_control_agree(self.address, step)

    def join(self, rank):
        self._library.bitctl_control_join(self.address, rank)

    def world_size(self):
        return self._library.bitctl_control_world_size(self.address)

    def leave(self):
        """Waits for the other ranks to meet the stop."""
        self._library.bitctl_control_leave(self.address, _LONGEST_LEAVE)

    def persist_seconds(self):
        return self._library.bitctl_control_persist_ns(self.address) / 1e9


class Arena:
    """One generation: two slots, each the images of all files. `files` is [{name, header_bytes, data_bytes}]."""

    def __init__(self, library, control, gen, files, slot_fds):
        self._library, self._control = library, control
        self.gen, self.files = gen, files
        size = sum(f["header_bytes"] + f["data_bytes"] for f in files)
        self._slots = [Memory(fd, size) for fd in slot_fds]
        self._headers = {}  # (slot, file): the header that this process wrote there last
        self._populating = None

    def populate(self):
        """Maps every page, so that the first snapshot waits for no page faults; a large arena's in a thread of its own."""
        device = _cuda_staging.current_device()

        def work():
            for memory in self._slots:
                # Where the kernel cannot, the first copies pay for the faults.
                self._library.bitctl_snapshot_populate(memory.address, memory.size)
                _cuda_staging.lock_pages(memory, device)

        if sum(memory.size for memory in self._slots) <= _AT_ONCE:
            return work()
        self._populating = threading.Thread(target=work, name="bitctl-populate", daemon=True)
        self._populating.start()

    def is_populated(self):
        return self._populating is None or not self._populating.is_alive()

    def offset_of(self, index):
        return sum(f["header_bytes"] + f["data_bytes"] for f in self.files[:index])

    def holds(self, needs):
        """True where files of these (name, header_bytes, data_bytes) fit into the regions."""
        return len(needs) == len(self.files) and all(
            name == f["name"] and header <= f["header_bytes"] and data <= f["data_bytes"]
            for (name, header, data), f in zip(needs, self.files)
        )

    def data_of(self, index):
        """Where the tensors of a file begin in a slot."""
        return self.offset_of(index) + self.files[index]["header_bytes"]

    def view(self, slot, start, size):
        return memoryview(self._slots[slot].map)[start : start + size]

    def begin(self, step, attempt, world_size=1):
        """A slot for the snapshot of `step` (of so many ranks), or None where both are in use."""
        slot = self._library.bitctl_snapshot_begin(self._control.address, self.gen, step, attempt, world_size)
        return slot if slot >= 0 else None

    def write_header(self, slot, index, header):
        """The file's header: length field, JSON, spaces up to the region's end. ValueError where it does not fit."""
        before = self._headers.get((slot, index))
        if before is header:
            return
        region, size = self.files[index]["header_bytes"], 8 + len(header)
        if size > region:
            raise ValueError("a header of %d bytes in a region of %d" % (size, region))
        # Of what was there before, only the part that the new one does not cover is to become spaces.
        stale = region if before is None else 8 + len(before)
        view = self.view(slot, self.offset_of(index), region)
        self._headers.pop((slot, index), None)
        view[:8] = (region - 8).to_bytes(8, "little")
        view[8:size] = header
        if stale > size:
            view[size:stale] = b" " * (stale - size)
        self._headers[slot, index] = header

    def copy(self, slot, index, items):
        """`items`: array('Q') of (bytes from the start of the file's data, from, bytes) triples; the GIL is released."""
        base = self._slots[slot].address + self.data_of(index)
        address, length = items.buffer_info()
        self._library.bitctl_snapshot_copy(base, address, length // 3)

    def copy_out(self, slot, start, items):
        """`items`: (to, bytes from `start` of the slot, bytes) triples; addresses are made of them in place."""
        base = self._slots[slot].address + start
        for at in range(1, len(items), 3):
            items[at] += base
        address, length = items.buffer_info()
        self._library.bitctl_snapshot_copy(None, address, length // 3)

    def commit(self, slot, used, final):
        """False where the slot was taken back meanwhile: there is no snapshot."""
        sizes = (_u64 * MAX_FILES)(*used)
        return 0 == self._library.bitctl_snapshot_commit(
            self._control.address, self.gen, slot, ctypes.addressof(sizes), len(used), int(final), self._control.wake_fd
        )

    def abandon(self, slot):
        self._library.bitctl_snapshot_abandon(self._control.address, self.gen, slot)

    def wait_complete(self, slot):
        """Waits until all of a slot, and of every other rank's that is loaded with it, is verified; False where it failed."""
        return self.wait_loaded(slot, 2**64 - 1)

    def wait_loaded(self, slot, size):
        """Waits until `size` bytes of a slot that is being loaded are verified; False where the load failed."""
        while True:
            answer = self._library.bitctl_snapshot_await(self._control.address, self.gen, slot, size, 1000)
            if answer != 0:
                return answer > 0
