"""Torch stays behind the engine module: no program links it, and the module shows nothing but its one door."""

import pathlib
import re
import subprocess

import pytest
from byte_model import write_byte_model
from test_llama_decode import make

TORCH = re.compile(r"lib(torch|c10|gomp|mkl|caffe2)\b|lib(torch|c10)_")


def needed(path):
    listing = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", listing)


def programs(build):
    """Every program and library that the build puts beside bitctl, but the engine."""
    return [
        path
        for path in sorted(pathlib.Path(build).iterdir())
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF" and path.name != "libbitctl_engine.so"
    ]


def test_no_program_links_torch(build):
    found = {path.name: [name for name in needed(path) if TORCH.search(name)] for path in programs(build)}
    assert "bitctl" in found
    assert {name: libraries for name, libraries in found.items() if libraries} == {}


def test_the_engine_does_and_the_check_sees_it(engine):
    assert any(TORCH.search(name) for name in needed(engine))


def test_the_engine_has_one_door(engine):
    listing = subprocess.run(["nm", "-D", "--defined-only", engine], check=True, capture_output=True, text=True).stdout
    functions = [line.split()[-1] for line in listing.splitlines() if line.split()[-2] in "TWV"]
    assert functions == ["bitctl_engine_entry"]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_a_short_command_loads_no_torch(bitctl, arguments):
    trace = subprocess.run(
        ["strace", "-f", "-e", "trace=openat", bitctl, *arguments], check=True, capture_output=True, text=True
    ).stderr
    assert "libc.so" in trace
    assert not [line for line in trace.splitlines() if TORCH.search(line)]


@pytest.mark.parametrize("engine_name, loads", [("native", False), ("torch", True)])
def test_a_chat_loads_torch_only_where_it_is_asked_to(request, bitctl, tmp_path, engine_name, loads):
    """Neither the program nor its text worker; --engine torch is the control."""
    if loads:
        request.getfixturevalue("engine")
    write_byte_model(tmp_path)
    make(tmp_path, vocab_size=259)
    command = [bitctl, "chat", tmp_path, "-p", "Hi", "--max-new-tokens", "2", "--engine", engine_name]
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-e", "trace=openat", "-o", trace, *command]
    subprocess.run(traced, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    opened = [line for line in trace.read_text().splitlines() if " = -1 " not in line]
    assert any("model.safetensors" in line for line in opened) and any("tokenizers" in line for line in opened)
    assert any(TORCH.search(line) for line in opened) == loads
