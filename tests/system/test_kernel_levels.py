"""A level's object file brings nothing into the program that the linker could take for all: such a copy would have its instructions."""

import subprocess

import pytest
import runs

LEVELS = ["scalar", "avx2", "avx512"]


def shared_symbols(path):
    """What the linker keeps one copy of, whoever defines it."""
    listing = subprocess.check_output(["nm", "--defined-only", "--demangle", path], text=True)
    return {line.split(maxsplit=2)[2] for line in listing.splitlines() if line.split(maxsplit=2)[1] in "uVvWw"}


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_keeps_its_instructions_to_itself(level, tmp_path):
    subprocess.run(["ar", "x", runs.ROOT / "build" / "src" / "libbitctl_kernels.a", f"level_{level}.cc.o"], cwd=tmp_path, check=True)
    assert shared_symbols(tmp_path / f"level_{level}.cc.o") == set()


def test_an_inline_function_in_a_level_would_be_found(tmp_path):
    (tmp_path / "bad.cc").write_text("template <class T> T twice(T x) { return x + x; }\nfloat (*bad)(float) = twice<float>;\n")
    subprocess.run(["g++", "-O3", "-mavx2", "-c", "bad.cc"], cwd=tmp_path, check=True)
    assert shared_symbols(tmp_path / "bad.o") == {"float twice<float>(float)"}
