"""Shared by the package's tests: the package of this checkout, and an arena without a supervisor."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")


class LocalArena:
    """Control page and slots made by the test, in the supervisor's and the writer's place."""

    def __init__(self, library_path):
        from bitctl import _arena

        self.module = _arena
        self.library = _arena.load_library(library_path)
        fd = os.memfd_create("control")
        page = bytearray(_arena.CONTROL_BYTES)
        page[0:8] = (0x3154524C54434F42).to_bytes(8, "little")
        page[8:12] = (3).to_bytes(4, "little")
        page[12:16] = self.control_struct_bytes().to_bytes(4, "little")
        os.write(fd, page)
        self.wake = os.eventfd(0, os.EFD_NONBLOCK) if hasattr(os, "eventfd") else -1
        self.control = _arena.Control(self.library, fd, self.wake)

    @staticmethod
    def control_struct_bytes():
        slot = 4 + 4 + 8 + 8 + 4 + 4 + 4 * 8 + 8 + 8
        return 8 + 4 + 4 + 7 * 8 + 6 * 4 + 4 * slot

    def arena(self, files, gen=1):
        regions = [
            {
                "name": f["name"],
                "header_bytes": -(-f["header_bytes"] // 4096) * 4096,
                "data_bytes": -(-f["data_bytes"] // 4096) * 4096,
            }
            for f in files
        ]
        size = sum(f["header_bytes"] + f["data_bytes"] for f in regions)
        fds = []
        for _ in range(2):
            fd = os.memfd_create("slot")
            os.ftruncate(fd, size)
            fds.append(fd)
        return self.module.Arena(self.library, self.control, gen, regions, fds)

    @staticmethod
    def put_back(arena, slot, objects):
        """As the one rank that has saved it does; the facts of the snapshot."""
        from bitctl import restore

        saved = restore.Saved(arena, slot)
        restore.put_back(saved, saved, objects)
        return saved.facts


@pytest.fixture
def local_arena():
    library = ROOT / "build" / "libbitctl_snapshot.so"
    if not library.exists():
        pytest.fail("build/libbitctl_snapshot.so is missing: run scripts/setup")
    return LocalArena(str(library))
