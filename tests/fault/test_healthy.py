"""Quick forms of scripts/soak --healthy."""

import contextlib
import pathlib
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent)]
import healthy  # noqa: E402


@pytest.fixture
def bitctl():
    return str(healthy.ROOT / "build" / "bitctl")


@contextlib.contextmanager
def ended(run):
    try:
        yield run
        assert run.wait() == 0, run.text()
        assert healthy.verdicts(run) == []
    finally:
        run.end()


def test_four_neighbours_for_each_cpu(bitctl, tmp_path):
    others = healthy.neighbours()
    try:
        with ended(healthy.start(bitctl, tmp_path, "none", "--steps", 100)):
            pass
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_wall_clock_that_jumps_by_an_hour(bitctl, tmp_path):
    clock = healthy.Clock(tmp_path)
    # With a stall of 4 s: a verdict that looked at the wall clock would be wrong at once.
    with ended(healthy.start(bitctl, tmp_path, "none", "--steps", 160, watchdog={"stall": "4s"}, env=clock.env)) as run:
        for offset, step in ((3600, 20), (-3600, 50), (0, 80)):
            run.wait_step(step)
            clock.move(offset)
            if offset < 0:
                before = run.events("progress")[-1]["step"]
    times = [row["t"] for row in run.events()]
    assert max(times) - min(times) > 3000, "control: the clock did jump"
    assert any(before + 5 < row["step"] < 160 for row in run.events("progress")), "a row a second, also after the jump back"
