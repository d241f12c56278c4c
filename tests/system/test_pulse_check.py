"""`bitctl pulse check FILE`: strict about anybody's file."""

import os
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schema_check import assert_obeys

from bitctl import pulse

GOOD = '{"status":"running","epoch":1.5,"total_epochs":3,"loss":0.25,"message":"m","timestamp":1732800000}'


@pytest.fixture
def check(bitctl):
    def run(path):
        return subprocess.run([bitctl, "pulse", "check", path], capture_output=True, text=True, timeout=30)

    return run


def test_a_good_file(check, tmp_path):
    file = tmp_path / "status.json"
    file.write_text(GOOD)
    result = check(file)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{file}: good: running, epoch 1.5 of 3\n"


@pytest.mark.parametrize(
    "text, complaint",
    [
        (GOOD.replace("{", '{"progress":50,'), "PULSE v1 has no key progress"),
        (GOOD.replace("1.5", "NaN"), "byte 28: parse error"),
        (GOOD.replace("1.5", "null"), 'byte 28: "epoch" is not a number: null'),
        (GOOD.replace("1.5", "-1.5"), 'byte 28: "epoch" is negative: -1.5'),
        (GOOD.replace("status", "state"), '"status" is missing'),
        (GOOD.replace("running", "queued"), 'byte 10: "status" is none of idle, running, done, error: "queued"'),
        (GOOD.replace("0000}", "0000.5}"), '"timestamp" is not a whole number: 1732800000.5'),
        (GOOD.replace('"loss"', '"epoch"'), 'duplicate key "epoch"'),
        ("", "byte 0: empty"),
    ],
)
def test_a_bad_file(check, tmp_path, text, complaint):
    file = tmp_path / "status.json"
    file.write_text(text)
    result = check(file)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"bitctl: {file}: ") and complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_no_file(check, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, complaint in (("none", "no such file"), ("fifo", "a FIFO, not a file"), (".", "a folder, not a file")):
        result = check(tmp_path / name)
        assert result.returncode == 1 and complaint in result.stderr


def test_without_a_file_it_says_how(bitctl):
    for arguments in ([], ["check"], ["nonsense"]):
        result = subprocess.run([bitctl, "pulse", *arguments], capture_output=True, text=True)
        assert result.returncode == 2 and result.stderr


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(pulse.STATES), numbers.map(abs), numbers.map(abs), st.floats(),
       st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_whatever_the_python_writer_writes_is_good(check, tmp_path, state, epoch, total_epochs, loss, message):
    file = tmp_path / "status.json"
    pulse._publish(file, pulse._status(state, epoch, total_epochs, loss, message))
    assert_obeys("pulse.v1", file)
    result = check(file)
    assert result.returncode == 0, result.stderr
