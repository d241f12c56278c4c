"""`bitctl doctor`: one line a check, what fails and why, nothing left behind."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import fake_systemd
import pytest
import runs

CHECKS = ["isolation", "neighbours", "memfd", "space", "folder", "disk speed", "direct I/O", "locks", "rename", "file times", "memory", "python", "engine", "clock", "stacks"]  # fmt: skip


def doctor(bitctl, tmp_path, *arguments, env=None, user=()):
    """(exit code, {check: finding}); findings in the order of the lines."""
    command = [*user, bitctl, "doctor", "--json", *map(str, arguments)]
    begun = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=runs.environment(tmp_path, env), timeout=runs.DEADLINE)
    assert done.stderr == ""
    found = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    return done.returncode, found, time.monotonic() - begun


def test_a_good_machine_passes_and_nothing_is_left(bitctl, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, found, _ = doctor(bitctl, tmp_path)
    assert list(found) == CHECKS
    assert code == 0 and all(row["verdict"] != "fail" for row in found.values()), found
    assert "torch 2." in found["python"]["text"]
    assert all(row["mend"] for row in found.values() if row["verdict"] != "ok")
    assert sorted(tmp_path.iterdir()) == before
    if fake_systemd.mount():
        assert not list(pathlib.Path(fake_systemd.mount()).glob("bitctl-doctor-*"))


def test_for_people_it_is_a_line_a_check(bitctl, tmp_path):
    done = subprocess.run([bitctl, "doctor"], cwd=tmp_path, capture_output=True, text=True, env=runs.environment(tmp_path))
    lines = done.stdout.splitlines()
    assert [line[6:17].strip() for line in lines] == CHECKS
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}


def test_a_folder_that_takes_nothing_fails(bitctl, tmp_path):
    code, found, _ = doctor(bitctl, tmp_path, "/proc")
    assert code == 1 and found["folder"]["verdict"] == "fail" and "cannot write in /proc" in found["folder"]["text"]
    assert found["locks"]["verdict"] == "fail"


def test_a_folder_that_is_not_there(bitctl, tmp_path):
    code, found, _ = doctor(bitctl, tmp_path, "none")
    assert code == 1 and "no such folder: %s/none" % tmp_path in found["folder"]["text"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount")
def test_a_full_disk_fails(bitctl, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", full], capture_output=True).returncode != 0:
        pytest.skip("no mounts here")
    try:
        code, found, _ = doctor(bitctl, tmp_path, full)
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", full], check=True)
    assert code == 1 and found["space"]["verdict"] == "fail" and "free some space" in found["space"]["mend"]
    assert found["disk speed"]["verdict"] == "fail" and "No space left" in found["disk speed"]["text"]
    assert found["locks"]["verdict"] == "ok", "control: the rest of it is looked at all the same"


def test_no_python_and_one_that_is_none(bitctl, tmp_path):
    nothing = {"VIRTUAL_ENV": "", "PATH": str(tmp_path)}
    code, found, _ = doctor(bitctl, tmp_path, env=nothing)
    assert code == 1 and found["python"]["verdict"] == "fail" and "install one" in found["python"]["mend"]
    python = tmp_path / "python3"
    for script, told in [("echo no such module >&2; exit 3", "cannot run: no such module"), ("exec sleep 600", "does not answer")]:
        python.write_text("#!/bin/sh\n" + script)
        python.chmod(0o755)
        code, found, took = doctor(bitctl, tmp_path, env=dict(nothing, PATH=str(tmp_path) + ":/usr/bin:/bin"))
        assert code == 1 and told in found["python"]["text"]
        assert took < 60, "it is not waited for"
    python.write_text("#!/bin/sh\necho 3.12.1\n")
    code, found, _ = doctor(bitctl, tmp_path, env=dict(nothing, PATH=str(tmp_path) + ":/usr/bin:/bin"))
    assert code == 0 and found["python"]["verdict"] == "warn" and "3.12.1" in found["python"]["text"] and "without torch" in found["python"]["text"]


def test_space_and_memory_are_measured_by_the_newest_checkpoint(bitctl, start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [20], checkpoints={"every": 10}))
    assert run.wait() == 0
    for folder in (run.path, tmp_path):
        _, found, _ = doctor(bitctl, tmp_path, folder)
        assert "a checkpoint takes" in found["space"]["text"] and "snapshots take" in found["memory"]["text"]
    _, found, _ = doctor(bitctl, tmp_path, tmp_path / "state")
    assert "checkpoint" not in found["space"]["text"], "control: there is none"


@pytest.mark.parametrize("level, verdict", [("sweep", "warn"), ("group", "fail"), ("nonsense", "fail")])
def test_a_poorer_isolation_is_told(bitctl, tmp_path, level, verdict):
    code, found, _ = doctor(bitctl, tmp_path, env={"BITCTL_ISOLATION": level})
    assert found["isolation"]["verdict"] == verdict and code == (1 if verdict == "fail" else 0)


@pytest.mark.skipif(not fake_systemd.can_use_cgroups(), reason="no writable cgroup v2 here")
def test_who_may_make_no_cgroup_is_told_what_train_does_instead(bitctl):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bitctl-test-"))
    try:
        os.chmod(folder, 0o777)
        env = {"HOME": str(folder), "BITCTL_ISOLATION": ""}
        with fake_systemd.installed(folder, 65534) as systemd:
            os.chmod(systemd, 0o755)
            _, found, _ = doctor(bitctl, folder, env=dict(env, PATH=systemd + ":" + os.environ["PATH"]), user=nobody)
        assert found["isolation"]["text"].startswith("scope: train enters a cgroup from your systemd (cannot create cgroup")
        (folder / "bin").mkdir()
        for program in ("python3", "setpriv"):
            (folder / "bin" / program).symlink_to(shutil.which(program))
        _, found, _ = doctor(bitctl, folder, env=dict(env, PATH=str(folder / "bin")), user=nobody)
        assert found["isolation"]["verdict"] == "warn" and "systemd-run is not installed" in found["isolation"]["text"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
