"""A process that SIGKILL does not end: it is named, and nothing is started over it."""

import os
import pathlib
import signal
import subprocess

import pytest
import runs
from runs import wait_for

FREEZER = pathlib.Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def freezer():
    """A v1 freezer: what is frozen in it is in state D, and a SIGKILL waits until it thaws. (A frozen v2 cgroup does die.)"""
    if os.geteuid() != 0 or not (FREEZER / "cgroup.procs").exists():
        pytest.skip("no writable v1 freezer here")
    group = FREEZER / ("bitctl-test-%d" % os.getpid())
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "the end of what was frozen", 30)
    group.rmdir()


@pytest.mark.parametrize("level", ["cgroup", "sweep"])
def test_a_process_in_state_d_is_named_and_not_started_over(start, tmp_path, bitctl, freezer, level):
    if level == "cgroup" and "cgroup2" not in open("/proc/self/mountinfo").read():
        pytest.skip("no cgroup v2 here")
    (tmp_path / "train.sh").write_text("sleep 600 & echo $! >helper; wait")
    run = start("train", "--", "sh", "train.sh", env={"BITCTL_ISOLATION": level})
    helper = int(wait_for(lambda: (tmp_path / "helper").exists() and (tmp_path / "helper").read_text().strip(), "the helper"))
    wait_for(lambda: pathlib.Path("/proc/%d/comm" % helper).read_text() == "sleep\n", "its exec")
    (freezer / "cgroup.procs").write_text(str(helper))
    (freezer / "freezer.state").write_text("FROZEN")
    wait_for(lambda: runs.state(helper) == "D", "state D")
    os.kill(run.wait_event("spawned")["pid"], signal.SIGKILL)
    assert run.wait() == 125
    assert len(run.events("spawned")) == 1, "nothing is started over it"
    row = run.events("unkillable")[0]["processes"]
    assert [(p["pid"], p["command"], p["state"]) for p in row] == [(helper, "sleep", "D")] and row[0]["wchan"]
    told = "cannot be killed: %d (sleep, state D in %s)" % (helper, row[0]["wchan"])
    assert run.pulse()["status"] == "error" and told in run.pulse()["message"]
    env = runs.environment(tmp_path)
    status = subprocess.run([bitctl, "status", run.path], capture_output=True, text=True, env=env)
    assert status.returncode == 3 and told in status.stdout
    resume = subprocess.run([bitctl, "resume", run.path], capture_output=True, text=True, env=env, timeout=runs.DEADLINE)
    assert resume.returncode == 125 and told in resume.stderr
    (freezer / "freezer.state").write_text("THAWED")
    wait_for(lambda: not runs.alive(helper), "its end")
