"""Which level holds a run's processes, where they then are, and that nothing of it stays."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import fake_systemd
import pytest
import runs
from runs import wait_for

needs_cgroups = pytest.mark.skipif(not fake_systemd.can_use_cgroups(), reason="no writable cgroup v2 here")


def cgroup_of(pid):
    """Its folder under the mount of cgroup v2."""
    lines = pathlib.Path("/proc/%d/cgroup" % pid).read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def left_of(run):
    """The cgroups that carry the run's name."""
    base = fake_systemd.mount() + cgroup_of(os.getpid())
    return [name for name in os.listdir(base) if name.startswith("bitctl-%s-" % run.path.name)]


@needs_cgroups
def test_bitctl_and_its_writer_are_in_a_leaf_of_their_own(start, tmp_path):
    own = cgroup_of(os.getpid())
    run = start("train", runs.config(tmp_path, "crowd.py"), env={"BITCTL_ISOLATION": "cgroup"})
    run.wait_log("tree is up")
    supervisor, trainer = cgroup_of(run.process.pid), cgroup_of(run.trainer())
    folder = supervisor.rpartition("/")[0]
    assert folder.startswith(own.rstrip("/") + "/bitctl-" + run.path.name) and supervisor == folder + "/supervisor"
    assert cgroup_of(run.writer()) == supervisor
    assert trainer == folder + "/trees/attempt-1"
    status = subprocess.run([run.bitctl, "status", "--verbose", run.path], capture_output=True, text=True, env=runs.environment(tmp_path))
    assert "isolation: cgroup" in status.stderr
    os.kill(run.trainer(), signal.SIGKILL)
    run.wait_event("spawned", attempt=2)
    assert cgroup_of(run.trainer()) == folder + "/trees/attempt-2", "a leaf that was killed is never used again"


@needs_cgroups
@pytest.mark.parametrize("end", ["well", "supervisor killed"])
def test_no_cgroup_stays(start, tmp_path, end):
    run = start("train", runs.config(tmp_path, *(["hostile.py", ["exit0"]] if end == "well" else ["crowd.py"])), env={"BITCTL_ISOLATION": "cgroup"})
    if end != "well":
        run.wait_log("tree is up")
        assert left_of(run), "control: it is found while it is there"
        run.process.kill()
    run.wait()
    wait_for(lambda: not left_of(run), "the end of its cgroups", 20)


@needs_cgroups
def test_where_cgroups_may_not_be_made_systemd_gives_one(bitctl):
    """As nobody, who has no rights to the cgroup it was started in."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bitctl-test-"))
    try:
        (folder / "train.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)\n")
        for path in (folder, folder / "train.py"):
            os.chown(path, 65534, 65534)
        with fake_systemd.installed(folder, 65534) as systemd:
            os.chmod(systemd, 0o755)
            env = runs.environment(folder, {"PATH": systemd + ":" + os.environ["PATH"], "VIRTUAL_ENV": "", "HOME": str(folder)})
            env.pop("BITCTL_ISOLATION", None)
            with open(folder / "out", "wb") as out:
                process = subprocess.Popen(
                    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bitctl, "train", "--", "sh", "-c", "echo here; exec sleep 600"],
                    cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                )  # fmt: skip
            try:
                latest = folder / "runs" / "latest"
                wait_for(lambda: runs.events_of(latest, "spawned") or process.poll() is not None, "the trainer")
                assert process.poll() is None, (folder / "out").read_text()
                assert runs.events_of(latest, "supervising")[0]["isolation"] == "scope"
                trainer = runs.events_of(latest, "spawned")[0]["pid"]
                assert "/bitctl-fake-scope-" in cgroup_of(trainer) and cgroup_of(trainer).endswith("/trees/attempt-1")
                assert b"BITCTL_SCOPE" not in pathlib.Path("/proc/%d/environ" % trainer).read_bytes()
            finally:
                process.kill()
                process.wait()
            wait_for(lambda: not runs.alive(trainer), "the trainer's end", 20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


SYSTEMD_RUN = {"missing": None, "refuses": "echo 'Failed to connect to bus: No medium found' >&2; exit 1"}


@needs_cgroups
@pytest.mark.parametrize("case, told", [("missing", "systemd-run is not installed"), ("refuses", "Failed to connect to bus")])
def test_without_a_scope_it_is_the_sweep_and_the_log_says_why(bitctl, case, told):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bitctl-test-"))
    try:
        # A PATH that holds what is needed and this systemd-run alone.
        (folder / "bin").mkdir()
        for program in ("sh", "true", "setpriv"):
            (folder / "bin" / program).symlink_to(shutil.which(program))
        if SYSTEMD_RUN[case]:
            (folder / "bin" / "systemd-run").write_text("#!/bin/sh\n" + SYSTEMD_RUN[case])
            (folder / "bin" / "systemd-run").chmod(0o755)
        os.chmod(folder, 0o777)
        env = runs.environment(folder, {"PATH": str(folder / "bin"), "VIRTUAL_ENV": "", "HOME": str(folder)})
        env.pop("BITCTL_ISOLATION", None)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bitctl, "train", "--", "sh", "-c", "true"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=runs.DEADLINE)
        assert done.returncode == 0, done.stdout + done.stderr
        latest = folder / "runs" / "latest"
        assert runs.events_of(latest, "supervising")[0]["isolation"] == "sweep"
        log = (latest / "logs" / "bitctl.log").read_text()
        assert "isolation by sweep: cannot create cgroup" in log and told in log
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("level, told", [("cgroups", "'cgroup', 'scope', 'sweep' or 'group', not 'cgroups'"), ("scope", "BITCTL_ISOLATION=scope: ")])
def test_a_level_that_is_not_to_be_had_is_an_error(start, tmp_path, level, told):
    run = start("train", runs.config(tmp_path, "hostile.py", ["exit0"]), env={"BITCTL_ISOLATION": level, "PATH": "/usr/sbin"})
    assert run.wait() == 125
    assert told in run.text()


@pytest.mark.skipif("1" not in pathlib.Path("/proc/sys/kernel/sched_autogroup_enabled").read_text(), reason="no autogroups here")
def test_the_writer_gives_way_to_the_training(start, tmp_path):
    run = start("train", "--", "sleep", "600", env={"BITCTL_ISOLATION": "sweep"})
    run.wait_event("writer_ready")
    weight = {pid: pathlib.Path("/proc/%d/autogroup" % pid).read_text().split() for pid in (run.trainer(), run.writer())}
    assert weight[run.trainer()][2] == "0" and weight[run.writer()][2] == "3"
    assert weight[run.trainer()][0] != weight[run.writer()][0], "control: one autogroup would have one weight"
