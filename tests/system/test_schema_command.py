"""`bitctl schema`: the very files of schemas/."""

import pathlib
import subprocess

import pytest

SCHEMAS = pathlib.Path(__file__).parents[2] / "schemas"
NAMES = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json"))


def schema(bitctl, *arguments):
    return subprocess.run([bitctl, "schema", *arguments], capture_output=True)


def test_there_are_schemas():
    assert {"config.v1", "event.v1", "run.v1"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_the_file_byte_for_byte(bitctl, name):
    result = schema(bitctl, name)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == (SCHEMAS / f"{name}.schema.json").read_bytes()


def test_the_version_may_be_left_out(bitctl):
    assert schema(bitctl, "config").stdout == schema(bitctl, "config.v1").stdout != b""


def test_without_a_name_it_lists_them(bitctl):
    assert schema(bitctl).stdout.decode().split() == NAMES


def test_an_unknown_name_is_refused_with_the_known_ones(bitctl):
    result = schema(bitctl, "confog")
    assert result.returncode == 2
    assert result.stdout == b""
    assert result.stderr.decode() == f"bitctl: no schema 'confog'; there are {', '.join(NAMES)}\n"
