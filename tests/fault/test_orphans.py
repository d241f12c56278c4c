"""The short form of tests/fault/orphans."""

import pathlib
import re
import subprocess
import sys

import pytest

ORPHANS = pathlib.Path(__file__).parent / "orphans"


def orphans(level, kills):
    done = subprocess.run([sys.executable, ORPHANS, "--kills", str(kills), "--levels", level], capture_output=True, text=True, timeout=600)
    if done.stdout.startswith("SKIPPED"):
        pytest.skip(done.stdout)
    print(done.stdout + done.stderr)
    return done.returncode, int(re.search(r"^RESULT .*left=(\d+)", done.stdout, re.M).group(1))


@pytest.mark.parametrize("level", ["cgroup", "scope", "sweep"])
def test_nothing_is_left_whoever_dies(bitctl, level):
    assert orphans(level, 12) == (0, 0)


def test_the_process_group_alone_leaks(bitctl):
    code, left = orphans("group", 4)
    assert code == 0 and left > 0
