"""`bitctl restart`: a new attempt at once, from a checkpoint of the very step, and no budget drawn on."""

import os
import signal
import subprocess

import pytest
import runs


@pytest.fixture
def restart(bitctl, tmp_path):
    def run(*arguments):
        return subprocess.run([bitctl, "restart", *map(str, arguments)], capture_output=True, text=True,
                              env=runs.environment(tmp_path), timeout=runs.DEADLINE)  # fmt: skip

    return run


def test_the_next_attempt_goes_on_at_the_next_step(start, restart, tmp_path):
    steps = tmp_path / "steps.log"
    run = start("train", runs.config(tmp_path, "small.py", [60, "--pause", 0.05, "--log", steps], checkpoints={"every": 1000}))
    run.wait_step(5)
    done = restart(run.path)
    assert (done.returncode, done.stdout) == (0, "restarting %s at its next step boundary\nattempt 2 started\n" % run.path.name)
    resumed = run.wait_event("resumed")
    assert resumed["source"] == "memory" and resumed["attempt"] == 2
    assert run.wait() == 0, run.text()
    assert run.events("exited")[0]["code"] == 75, "it left by itself, at the boundary"
    waiting = run.events("waiting")[0]
    assert (waiting["delay"], waiting["reason"]) == (0, "asked for by bitctl restart")
    assert [int(line.split()[1]) for line in steps.read_text().splitlines()] == list(range(1, 61)), "no step ran twice"


def test_now_and_as_often_as_one_likes(start, restart, tmp_path):
    """Without checkpoints, five kills would be two more than the budget: the control is test_train's."""
    run = start("train", runs.config(tmp_path, "told.py", [tmp_path / "word"], restart={"max": 3}))
    for attempt in range(1, 6):
        run.wait_event("hello", attempt=attempt)
        assert restart("--now", run.path).stdout.endswith("attempt %d started\n" % (attempt + 1))
    assert [row.get("signal") for row in run.events("exited")] == ["SIGKILL"] * 5
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75


def test_a_bare_script_gets_the_signal(start, restart, tmp_path):
    run = start("train", "--", "python3", "-c", "import time; print('up', flush=True); time.sleep(600)")
    run.wait_log("up")
    assert restart(run.path).returncode == 0
    assert run.events("exited")[0]["signal"] == "SIGTERM"
    run.wait_log("up", attempt=2)


def test_a_back_off_is_cut_short(start, restart, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["signal9"], restart={"backoff": "10m", "backoff_max": "10m", "max": 5}))
    run.wait_event("waiting", attempt=2)  # the first restart is immediate
    assert restart(run.path).returncode in (0, 1)  # attempt 3 dies as soon as it has started
    run.wait_event("exited", attempt=3)
    assert run.process.poll() is None, "control: attempt 4 waits again"


def test_a_back_off_that_was_cut_short_shortens_no_other(start, restart, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["signal9"], restart={"backoff": "2s", "max": 5}))
    run.wait_event("waiting", attempt=2)
    restart(run.path)
    waiting = run.wait_event("waiting", attempt=3)
    fourth = run.wait_event("spawned", attempt=4)
    assert waiting["delay"] >= 4 and fourth["t"] - waiting["t"] >= waiting["delay"] - 0.01


def test_a_run_that_is_being_stopped_is_not_restarted(start, restart, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["deaf"], stop={"grace": "10m"}))
    run.wait_log("deaf")
    run.process.send_signal(signal.SIGINT)
    run.wait_event("stop_requested")
    refused = restart(run.path)
    assert refused.returncode == 1
    assert refused.stderr == "bitctl: cannot restart %s: it is stopping already\n" % run.path.name
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    over = restart(run.path)
    assert over.returncode == 1
    assert "is not in progress: stopped at step " in over.stderr and "`bitctl resume %s`" % run.path.name in over.stderr


def test_a_stop_during_a_restart_stops(start, tmp_path, bitctl):
    run = start("train", runs.config(tmp_path, "hostile.py", ["deaf"], stop={"grace": "10m"}))
    run.wait_log("deaf")
    restarting = subprocess.Popen([bitctl, "restart", run.path], env=runs.environment(tmp_path), stderr=subprocess.PIPE, text=True)
    run.wait_event("restart_requested")
    run.process.send_signal(signal.SIGINT)
    run.wait_event("stop_requested")
    os.kill(run.trainer(), signal.SIGKILL)
    assert run.wait() == 75
    assert len(run.events("spawned")) == 1
    assert "no attempt followed: stopped at step" in restarting.communicate(timeout=runs.DEADLINE)[1]
    assert restarting.returncode == 1
