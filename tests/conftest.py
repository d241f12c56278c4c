"""Shared by every Python test under tests/: where the build and the package lie."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests" / "layers")]


@pytest.fixture(scope="session")
def bitctl():
    """The built program."""
    return str(ROOT / "build" / "bitctl")
