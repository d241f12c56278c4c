"""What persist and load measure with: our saver on a state made of random tensors, and the same bytes in torch for the peers."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOL = ROOT / "build" / "tests" / "checkpoint_bench"
PYTHON = ROOT / ".venv" / "bin" / "python"
SHAPES = {"L": (1024, 435), "S": (64, 10000), "H": (4096, 8), "tiny": (0, 2)}  # MiB, tensors


def again_with_torch():
    """The peers live in .venv."""
    if pathlib.Path(sys.prefix) != PYTHON.parents[1]:
        os.execv(PYTHON, [PYTHON, *sys.argv])


class Tool:
    """tests/tools/checkpoint_bench.cc"""

    def __init__(self, folder, shape, *command):
        self.process = subprocess.Popen([*command, TOOL, folder, *map(str, SHAPES[shape])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def work_folder(path):
    """On the disk that is measured; removed at the end."""
    return tempfile.TemporaryDirectory(prefix="bitctl-bench-", dir=path)


def cached_bytes(folder):
    """What the page cache holds of a folder's files."""
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    told = subprocess.run(["fincore", "--bytes", "--raw", "--noheadings", "--output", "RES", *files], capture_output=True, text=True, check=True)
    return sum(map(int, told.stdout.split()))


def state(shape):
    """Tensors as the tool makes them."""
    import torch

    mebibytes, count = SHAPES[shape]
    left, tensors = (mebibytes << 20 or 1024) // 4, {}
    for i in range(count):
        even = left // (count - i)
        size = even if i + 1 == count else max(1, even * (1 + i % 3) // 2)
        tensors["model.%d" % i] = torch.rand(size)
        left -= size
    return tensors


def drop_from_cache(folder):
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def spread(values):
    values = sorted(values)
    return "%.2f [%.2f..%.2f]" % (statistics.median(values), values[len(values) // 10], values[-1 - len(values) // 10])
