"""docs/chat.md and README name what the programs have, and nothing else."""

import re
import subprocess

import pytest
import runs
from byte_model import FAKE_CHAT, write_byte_model
from pty_program import PtyProgram

DOCS = (runs.ROOT / "docs" / "chat.md").read_text()


@pytest.fixture(scope="module")
def options():
    text = subprocess.run([FAKE_CHAT, "chat", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def test_every_option_that_is_named_exists(options):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCS)) - {"--help"}
    assert named and named <= options


def test_the_commands_are_those_of_the_help(tmp_path):
    chat = PtyProgram([FAKE_CHAT, "chat", str(write_byte_model(tmp_path / "tiny"))],
                      {"XDG_STATE_HOME": str(tmp_path)}, {b"\x1b[c": b"\x1b[?64;1c"})
    try:
        chat.send("/help")
        chat.expect("//x")
        of_help = set(re.findall(r"\n  (/[a-z]+) ", chat.output.decode().replace("\r", "")))
    finally:
        chat.close()
    assert set(re.findall(r"^\| `(/[a-z]+)", DOCS, re.M)) == of_help and len(of_help) > 15
