"""A million reads against a writer at full speed: none torn. The control, a writer that truncates in place, must be
caught by the same program."""

import json
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from schema_check import assert_obeys

PROGRAM = pathlib.Path(__file__).parents[2] / "build" / "tests" / "pulse_torture"


@pytest.fixture
def memory_folder(tmp_path):
    """In memory where that is possible, so that fsync does not slow the writer down."""
    if not pathlib.Path("/dev/shm").is_dir():
        yield tmp_path
        return
    folder = tempfile.mkdtemp(prefix="bitctl-test-", dir="/dev/shm")
    yield pathlib.Path(folder)
    shutil.rmtree(folder)


def torture(path, *options):
    result = subprocess.run([PROGRAM, path, "--readers", "4", *options], capture_output=True, text=True)
    return result.returncode, json.loads(result.stdout)


def test_no_read_is_torn(memory_folder):
    path = memory_folder / "training_status.json"
    code, counts = torture(path, "--reads", "1000000")
    print(counts)
    assert (code, counts["reads"], counts["torn"], counts["missing"]) == (0, 1_000_000, 0, 0)
    assert counts["writes"] > 1000, "the writer hardly wrote: this has shown nothing"
    assert [file.name for file in memory_folder.iterdir()] == [path.name]
    assert_obeys("pulse.v1", path)


def test_a_writer_that_truncates_in_place_is_caught(memory_folder):
    code, counts = torture(memory_folder / "training_status.json", "--reads", "50000", "--in-place")
    assert code == 1 and counts["torn"] > 0
