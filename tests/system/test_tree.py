"""The whole tree dies together, at each isolation level; with that mechanism alone taken away it leaks."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import fake_systemd
import pytest
import runs
from runs import wait_for

LEVELS = ["cgroup", "scope", "sweep"]


@pytest.fixture(params=LEVELS)
def level(request, tmp_path, monkeypatch):
    """A level that is in force, for every bitctl that the test starts."""
    if request.param != "sweep" and not fake_systemd.can_use_cgroups():
        pytest.skip("no writable cgroup v2 here")
    monkeypatch.setenv("BITCTL_ISOLATION", request.param)
    if request.param != "scope":
        yield request.param
        return
    with fake_systemd.installed(tmp_path) as path:
        monkeypatch.setenv("PATH", path + ":" + os.environ["PATH"])
        yield request.param


def tree_is_up(run):
    run.wait_log("tree is up")
    return wait_for(lambda: (lambda pids: pids if len(pids) >= 8 else None)(runs.marked(run.path)), "eight processes")


def gone(pids):
    return not any(runs.alive(pid) for pid in pids)


def test_a_hostile_tree_dies_with_its_leader(level, start, tmp_path):
    run = start("train", "--no-restart", runs.config(tmp_path, "crowd.py"))
    pids = tree_is_up(run)
    assert run.events("supervising")[0]["isolation"] == level
    os.kill(run.trainer(), signal.SIGKILL)
    assert run.wait() == 137
    assert gone(pids), "left: %s" % [p for p in pids if runs.alive(p)]
    assert runs.marked(run.path) == []


def test_by_its_process_group_alone_it_leaks(start, tmp_path):
    """The control: what the levels are for."""
    run = start("train", "--no-restart", runs.config(tmp_path, "crowd.py"), env={"BITCTL_ISOLATION": "group"})
    pids = tree_is_up(run)
    assert run.events("supervising")[0]["isolation"] == "group"
    os.kill(run.trainer(), signal.SIGKILL)
    assert run.wait() == 137
    assert not gone(pids)


def test_a_hostile_tree_dies_with_its_supervisor(level, start, tmp_path):
    run = start("train", runs.config(tmp_path, "crowd.py"))
    pids = tree_is_up(run)
    run.process.kill()
    run.process.wait()
    wait_for(lambda: gone(pids) and not runs.marked(run.path), "the tree's end", 20)
    wait_for(lambda: run.pulse()["status"] == "error", "the truth in PULSE", 20)
    assert "bitctl itself was killed" in run.pulse()["message"]


def test_a_second_ctrl_c_ends_it_at_once(level, start, tmp_path):
    run = start("train", runs.config(tmp_path, "crowd.py"))
    pids = tree_is_up(run)
    run.process.send_signal(signal.SIGINT)
    run.wait_event("stop_requested")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    assert gone(pids)


def test_what_a_good_trainer_leaves_behind_goes_too(level, start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["leaves"]))
    assert run.wait() == 0
    assert runs.marked(run.path) == []


def test_a_deaf_trainer_is_killed_after_the_grace(level, start, tmp_path):
    config = runs.config(tmp_path, "hostile.py", ["deaf"], stop={"grace": "300ms"})
    run = start("train", config)
    run.wait_log("deaf")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75
    assert run.events("exited")[0]["signal"] == "SIGKILL"


def test_what_supervisor_and_writer_left_is_swept_by_the_next_start(start, tmp_path):
    run = start("train", runs.config(tmp_path, "crowd.py"), env={"BITCTL_ISOLATION": "sweep"})
    pids = tree_is_up(run)
    writer = run.writer()
    os.kill(run.process.pid, signal.SIGSTOP)
    os.kill(writer, signal.SIGKILL)
    run.process.kill()
    run.process.wait()
    assert not gone(pids), "control: without a sweep the helpers of a dead leader live on"
    wait_for(lambda: not run.path.name.endswith(time.strftime("%H%M%S")), "the second after: a run is named by its second")
    again = start("train", runs.config(tmp_path, "hostile.py", ["exit0"]))
    assert again.wait() == 0
    assert gone(pids)


def test_stop_from_another_terminal(start, tmp_path, bitctl):
    run = start("train", runs.config(tmp_path, "small.py", [2000, "--pause", 0.02]))
    run.wait_step(5)
    done = subprocess.run([bitctl, "stop", run.path], capture_output=True, text=True, env=runs.environment(tmp_path), timeout=runs.DEADLINE)
    assert done.returncode == 0 and "(resumable)" in done.stdout, done.stdout + done.stderr
    assert run.wait() == 75
    again = subprocess.run([bitctl, "stop", run.path], capture_output=True, text=True, env=runs.environment(tmp_path))
    assert again.returncode == 1 and "not in progress" in again.stderr


def test_the_time_limit_stops_with_a_checkpoint(start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [100000, "--pause", 0.02], limits={"time": "8s"}, checkpoints={"every": 10000}))
    assert run.wait() == 75
    assert run.events("stop_requested")[0]["by"] == "limits.time"
    assert list((run.path / "checkpoints").glob("step-*"))


WORKER = """
import os, sys, time
print("rank", os.environ["RANK"], "of attempt", os.environ["BITCTL_ATTEMPT"], flush=True)
time.sleep(600)
"""


def workers_of(run, attempt):
    """The pids of an attempt's ranks: what torchrun has started."""
    found = []
    for pid in runs.marked(run.path):
        with contextlib.suppress(OSError):
            environ = pathlib.Path("/proc/%d/environ" % pid).read_bytes().split(b"\0")
            if b"BITCTL_ATTEMPT=%d" % attempt in environ and any(entry.startswith(b"LOCAL_RANK=") for entry in environ):
                found.append(pid)
    return found


def test_a_launchers_death_is_its_workers_death(level, start, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun = [runs.python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "worker.py")]
    run = start("train", "--", *torchrun)
    pids = wait_for(lambda: (lambda found: found if len(found) == 2 else None)(workers_of(run, 1)), "two ranks")
    os.kill(run.trainer(), signal.SIGKILL)
    run.wait_event("spawned", attempt=2)
    assert gone(pids) and workers_of(run, 1) == []
