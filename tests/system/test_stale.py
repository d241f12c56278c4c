"""Once with the real clock: a healthy run never looks stale, a stopped supervisor does."""

import os
import signal
import subprocess
import time

import runs
from runs import wait_for


def status(bitctl, run):
    done = subprocess.run([bitctl, "status", run.path], capture_output=True, text=True, env=runs.environment(run.folder))
    return done.returncode, done.stdout


def test_seventy_seconds_of_a_bare_script_and_a_stopped_supervisor(start, tmp_path, bitctl):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    bare = str(runs.ROOT / "examples" / "bare" / "train.py")
    healthy = start("train", "--", "python3", bare, "72", folder=tmp_path / "a")
    frozen = start("train", "--", "python3", bare, "600", folder=tmp_path / "b")
    healthy.wait_event("spawned")
    frozen.wait_event("spawned")
    frozen.process.send_signal(signal.SIGSTOP)
    stopped = time.time()
    seen = []
    while healthy.process.poll() is None and time.time() - stopped < 70:
        seen.append(status(bitctl, healthy))
        time.sleep(1)
    assert len(seen) > 30 and all(code == 0 and "Last update" in text for code, text in seen), seen
    assert len(healthy.events("restamped")) >= 5

    wait_for(lambda: time.time() - stopped > 62, "a minute")
    code, text = status(bitctl, frozen)
    assert code == 4 and "❌ Process unresponsive (stale pulse)" in text
    assert frozen.pulse()["status"] == "running", "never written back"
    frozen.process.send_signal(signal.SIGCONT)
    wait_for(lambda: status(bitctl, frozen)[0] == 0, "a fresh stamp", 30)
    assert healthy.wait() == 0
    os.kill(frozen.process.pid, signal.SIGTERM)
    os.kill(frozen.process.pid, signal.SIGTERM)
    assert frozen.wait() == 75
