"""Shared by every Python test under tests/: where the build and the package lie."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing but this machine is asked
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests" / "layers")]


@pytest.fixture(scope="session")
def build():
    """The build folder."""
    return ROOT / "build"


@pytest.fixture(scope="session")
def engine(build):
    """The engine module; without it the tests that need it are skipped, if the build was told to leave it out."""
    if "BITCTL_ENGINE:BOOL=OFF" in (build / "CMakeCache.txt").read_text():
        pytest.skip("built with BITCTL_ENGINE=OFF")
    return build / "libbitctl_engine.so"


@pytest.fixture(scope="session")
def bitctl():
    """The built program."""
    return str(ROOT / "build" / "bitctl")
