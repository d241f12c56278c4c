"""SmolLM2-135M-Instruct (examples/smollm2-chat) with its weights rounded to bf16, as long as a `with` lasts."""

import contextlib
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]


def prepared():
    """The float32 folder, made once."""
    command = [sys.executable, ROOT / "examples" / "smollm2-chat" / "prepare.py"]
    return pathlib.Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


@contextlib.contextmanager
def in_bf16():
    import torch
    from safetensors.torch import load_file, save_file

    folder, halves = prepared(), ROOT / "build" / "bench" / "chat" / "smollm2-bf16"
    shutil.rmtree(halves, ignore_errors=True)
    halves.mkdir(parents=True)
    try:
        for path in [*folder.glob("*.json"), *folder.glob("*.jinja")]:
            shutil.copy(path, halves)
        tensors = load_file(folder / "model.safetensors")
        save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, halves / "model.safetensors")
        yield halves
    finally:
        shutil.rmtree(halves)
