"""States of known shapes, copies to compare with, and a training under bitctl that a bench drives from inside."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
BITCTL = str(ROOT / "build" / "bitctl")
# Parameters and bytes; AdamW makes three tensors of each, and a count of steps.
SHAPES = {"L": (145, 2**30), "S": (2500, 64 * 2**20), "T": (1250, 20 * 2**20), "H": (2, 4 * 2**30), "tiny": (4, 2**20)}


def build(shape):
    """A model of so many parameters and its AdamW after one step: (model, optimizer, bytes, tensors)."""
    import torch

    count, total = SHAPES[shape]
    size = total // (12 * count)
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    for i in range(0, count, 2):  # a weight and a bias, as layers have them
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.randn(size))
        if i + 1 < count:
            layer.bias = torch.nn.Parameter(torch.randn(size))
        model.append(layer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    step(model, optimizer)
    tensors = [*model.state_dict().values(), *(t for s in optimizer.state.values() for t in s.values())]
    return model, optimizer, sum(t.nbytes for t in tensors), len(tensors)


def step(model, optimizer):
    """Every tensor changes."""
    for parameter in model.parameters():
        parameter.grad = parameter.detach()
    optimizer.step()
    optimizer.zero_grad()


def change(model, optimizer):
    """Every tensor, as a step does, and quicker."""
    import torch

    with torch.no_grad():
        torch._foreach_add_([*model.parameters(), *(t for s in optimizer.state.values() for t in s.values())], 1.0)


class Copy:
    """One thread, memcpy of so many bytes between private buffers that are there, a GiB at a time: what is bigger does not fit
    beside the state and its two slots."""

    def __init__(self, size):
        self.pieces = [min(2**30, size - begin) for begin in range(0, size, 2**30)]
        self.source, self.target = (ctypes.create_string_buffer(self.pieces[0]) for _ in range(2))
        for buffer in (self.source, self.target):
            ctypes.memset(buffer, 1, self.pieces[0])

    def __call__(self):
        for piece in self.pieces:
            ctypes.memmove(self.target, self.source, piece)


def timed(work):
    """Its milliseconds, by the clock and of this process's CPU time; the second does not grow where others work too."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - begun) * 1e3, (time.process_time() - cpu) * 1e3


def under_bitctl(script, arguments, keep_last=1):
    """Runs `script` as a training of bitctl, with the arguments and a path last; what it wrote there as JSON."""
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        folder = pathlib.Path(name)
        answer = folder / "answer.json"
        (folder / "bench.yaml").write_text(
            "name: bench\nrun: {script: %s, args: %s}\ncheckpoints: {every: 1h, keep_last: %d}\nrestart: {max: 1000, backoff: 1ms, warm: off}\n"
            % (json.dumps(str(script)), json.dumps([*map(str, arguments), str(answer)]), keep_last)
        )
        env = dict(os.environ, XDG_STATE_HOME=str(folder / "state"), VIRTUAL_ENV=str(ROOT / ".venv"))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing of ours runs on
        output = folder / "output"
        with open(output, "wb") as file:
            process = subprocess.Popen([BITCTL, "train", folder / "bench.yaml"], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            process.wait()
        finally:
            process.terminate()
            process.wait()
        if not answer.exists():
            logs = "".join(p.read_text() for p in folder.glob("runs/bench-*/logs/*"))
            sys.exit(output.read_text() + logs)
        return json.loads(answer.read_text())


def wait_until_durable(run_dir, number):
    """Until `number` of the run's snapshots are on disk: nothing of ours works beside what is measured next."""
    events = pathlib.Path(run_dir) / "events.jsonl"
    end = time.monotonic() + 120
    while events.read_text().count('"kind":"committed"') < number:
        if time.monotonic() > end:
            raise SystemExit("a snapshot was not durable after two minutes")
        time.sleep(0.02)


def median_and_range(values):
    ordered = sorted(values)
    return "%6.2f [%.2f..%.2f]" % (ordered[len(ordered) // 2], ordered[0], ordered[-1])
