"""Several runs at once: `bitctl ls` tells them apart, and `bitctl logs -f` follows one."""

import fcntl
import json
import os
import signal
import subprocess

import pytest
import runs
from runs import wait_for


@pytest.fixture
def ls(bitctl, tmp_path):
    def run():
        done = subprocess.run([bitctl, "ls", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True,
                              env=runs.environment(tmp_path), timeout=runs.DEADLINE)  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def folder_of(tmp_path, name):
    return wait_for(lambda: list((tmp_path / "runs").glob(name + "-*")), "the folder of " + name)[0]


def test_several_in_progress(start, ls, tmp_path, bitctl):
    config = runs.config(tmp_path, "told.py", [tmp_path / "word"])
    started = {name: start("train", "-d", "--no-restart", "--name", name, config) for name in ("one", "two", "three")}
    paths = {}
    for name, run in started.items():
        assert run.wait() == 0, run.text()
        paths[name] = folder_of(tmp_path, name)
    wait_for(lambda: all(row["step"] > 2 for row in ls()), "steps of all three")
    rows = ls()
    assert {row["id"] for row in rows} == {path.name for path in paths.values()}
    assert [row["id"][-15:] for row in rows] == sorted((row["id"][-15:] for row in rows), reverse=True), "newest first"
    assert {row["state"] for row in rows} == {"running"}
    table = subprocess.run([bitctl, "ls"], cwd=tmp_path, capture_output=True, text=True, env=runs.environment(tmp_path)).stdout
    assert table.split("\n")[0].split() == ["RUN", "STATE", "STEP", "LOSS", "AGE"] and table.count("running") == 3
    subprocess.run([bitctl, "stop", paths["two"]], check=True, capture_output=True, env=runs.environment(tmp_path))
    assert {row["id"]: row["state"] for row in ls()}[paths["two"].name] == "stopped"
    assert [row["state"] for row in ls()].count("running") == 2


def test_a_dead_supervisor_is_dead_and_its_writer_saves(start, ls, tmp_path):
    run = start("train", runs.config(tmp_path, "told.py", [tmp_path / "never"]))
    run.wait_step(2)
    writer = run.writer()
    os.kill(writer, signal.SIGSTOP)  # a disk that takes its time
    run.process.kill()
    run.process.wait()
    assert ls()[0]["state"] == "saving"
    os.kill(writer, signal.SIGKILL)
    wait_for(lambda: ls()[0]["state"] == "dead", "the end of all the writer's threads, one of which may hold the lock")
    for pid in runs.marked(run.path):
        os.kill(pid, signal.SIGKILL)
    with open(run.path / "training_status.json.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert ls()[0]["state"] == "saving", "the lock is what counts"
    assert ls()[0]["state"] == "dead"


def test_logs_follow_every_attempt_and_mark_it(start, tmp_path, bitctl):
    """Also the ones that came and went while nobody looked."""
    (tmp_path / "train.py").write_text(
        "import os, time\nattempt = int(os.environ['BITCTL_ATTEMPT'])\n"
        "for line in range(30 if attempt == 1 else 2): print('line', line, 'of', attempt, flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "raise SystemExit(attempt < 4)\n"
    )
    (tmp_path / "config.yaml").write_text("name: test\nrun: {script: train.py}\nrestart: {backoff: 1ms, max: 9}\n")
    run = start("train", "config.yaml")
    run.wait_log("line 29 of 1")
    with open(tmp_path / "follow.out", "wb") as output:
        follow = subprocess.Popen([bitctl, "logs", "-f", run.path], stdout=output, env=runs.environment(tmp_path))
        wait_for(lambda: b"line 29" in (tmp_path / "follow.out").read_bytes(), "the tail")
        follow.send_signal(signal.SIGSTOP)
        (tmp_path / "go").write_text("")
        run.wait_event("spawned", attempt=4)
        follow.send_signal(signal.SIGCONT)
        assert run.wait() == 0
        assert follow.wait(runs.DEADLINE) == 0
    lines = (tmp_path / "follow.out").read_text().splitlines()
    expected = ["line %d of 1" % i for i in range(20, 30)]
    for attempt in (2, 3, 4):
        expected += ["== attempt %d ==" % attempt] + ["line %d of %d" % (i, attempt) for i in range(2)]
    assert lines == expected


def test_logs_follow_across_a_restart_that_was_asked_for(start, tmp_path, bitctl):
    run = start("train", "--", "python3", "-u", "-c", "import os, time; print('attempt', os.environ['BITCTL_ATTEMPT']); time.sleep(600)")
    run.wait_log("attempt 1")
    with open(tmp_path / "follow.out", "wb") as output:
        follow = subprocess.Popen([bitctl, "logs", "-f", run.path], stdout=output, env=runs.environment(tmp_path))
        subprocess.run([bitctl, "restart", run.path], check=True, capture_output=True, env=runs.environment(tmp_path))
        wait_for(lambda: b"attempt 2\n" in (tmp_path / "follow.out").read_bytes(), "the next attempt")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 75
        assert follow.wait(runs.DEADLINE) == 0
    assert (tmp_path / "follow.out").read_text() == "attempt 1\n== attempt 2 ==\nattempt 2\n"
