"""`bitctl prune`: what goes, what stays, and what a deletion that was cut short leaves."""

import fcntl
import json
import os
import signal
import subprocess
import time

import pytest
import runs
from pty_program import PtyProgram
from runs import wait_for


@pytest.fixture
def prune(bitctl, tmp_path):
    def run(*arguments):
        return subprocess.run([bitctl, "prune", *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env=runs.environment(tmp_path), timeout=runs.DEADLINE)  # fmt: skip

    return run


def make(tmp_path, name, days):
    """A run that ended so many days ago."""
    ended = time.time() - days * 86400
    folder = tmp_path / "runs" / (name + time.strftime("-%Y%m%d-%H%M%S", time.localtime(ended)))
    (folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    (folder / "checkpoints" / "step-000000001" / "model.safetensors").write_bytes(b"x" * 200_000)
    (folder / "run.json").write_text("{}")
    rows = [{"t": ended - 9, "attempt": 1, "kind": "spawned", "pid": 4}, {"t": ended, "attempt": 1, "kind": "finished", "seconds": 9}]
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    listed = tmp_path / "state" / "bitctl" / "runs"
    listed.mkdir(parents=True, exist_ok=True)
    (listed / folder.name).symlink_to(folder)
    return folder


@pytest.fixture
def three(tmp_path):
    """Of 40, 20 and 1 days."""
    made = [make(tmp_path, "demo", days) for days in (40, 20, 1)]
    (tmp_path / "runs" / "latest").symlink_to(made[-1].name)
    return made


def standing(folders):
    return [folder.exists() for folder in folders]


def test_thirty_days_where_nothing_is_said(prune, three):
    done = prune("--yes")
    assert (done.returncode, standing(three)) == (0, [False, True, True])
    assert three[0].name in done.stdout and done.stdout.endswith(" freed\n")
    assert prune("--yes").stdout == "0 B freed\n"


@pytest.mark.parametrize("arguments, left", [(["--older-than", "10d"], [False, False, True]), (["--keep", "2"], [False, True, True]),
                                             (["--keep", "0"], [False, False, False]), (["--older-than", "100d"], [True, True, True]),
                                             (["--older-than", "30d", "--keep", "1"], [False, False, True])])
def test_the_rules(prune, three, arguments, left):
    dry = prune("--dry-run", *arguments)
    assert dry.returncode == 0 and dry.stdout.endswith(" would be freed\n")
    assert [folder.name in dry.stdout for folder in three] == [not stays for stays in left]
    assert standing(three) == [True, True, True]
    assert prune("--yes", *arguments).returncode == 0
    assert standing(three) == left


def test_named_ones_and_their_links(prune, three, tmp_path):
    (tmp_path / "state" / "bitctl" / "runs" / "dead").symlink_to("/nowhere")
    assert prune("--yes", three[2].name, three[0]).returncode == 0
    assert standing(three) == [False, True, False]
    assert os.readlink(tmp_path / "runs" / "latest") == three[1].name
    assert os.listdir(tmp_path / "state" / "bitctl" / "runs") == [three[1].name]
    assert sorted(os.listdir(tmp_path / "runs")) == sorted([three[1].name, "latest"])


def test_nobody_is_asked_where_nobody_is(prune, three):
    done = prune("--keep", "0")
    assert done.returncode == 2 and "--yes" in done.stderr
    assert standing(three) == [True] * 3


@pytest.mark.parametrize("answer, left", [("y", [False, True, True]), ("", [True] * 3), ("n", [True] * 3)])
def test_on_a_terminal_it_asks(bitctl, tmp_path, three, answer, left):
    terminal = PtyProgram([bitctl, "prune", str(three[0])], env=runs.environment(tmp_path), columns=120)
    try:
        terminal.expect("remove this run with all its checkpoints and models (")
        terminal.type(answer + "\n")
        assert terminal.wait() == (0 if answer == "y" else 1)
    finally:
        terminal.close()
    assert standing(three) == left


def test_never_one_in_progress(start, prune, tmp_path):
    run = start("train", runs.config(tmp_path, "told.py", [tmp_path / "never"]))
    run.wait_step(1)
    named = prune("--yes", run.path)
    assert named.returncode == 1 and "is in progress: " in named.stderr
    assert prune("--yes", "--keep", "0").returncode == 0
    assert run.path.exists() and run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    path = run.path
    with open(path / "training_status.json.lock") as lock:  # a writer that still saves
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune("--yes", "--keep", "0").returncode == 0 and path.exists()
        assert prune("--yes", path).returncode == 1 and path.exists()
    assert prune("--yes", path).returncode == 0 and not path.exists(), "control: it was the lock"


def test_never_what_is_no_run_of_bitctl(prune, tmp_path):
    """A script that writes PULSE beside itself makes its folder look like a run."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "training_status.json").write_text("{}")
    done = prune("--yes", project)
    assert done.returncode == 1 and "not a run that bitctl made" in done.stderr
    assert project.exists()


def test_killed_in_the_middle_no_half_of_a_run_is_left(prune, bitctl, tmp_path, three):
    for i in range(5000):
        (three[0] / "checkpoints" / ("file-%d" % i)).write_text("x")
    removing = subprocess.Popen([bitctl, "prune", "--yes", three[0]], cwd=tmp_path, env=runs.environment(tmp_path), stdout=subprocess.DEVNULL)
    wait_for(lambda: not three[0].exists(), "the removal")
    removing.kill()
    removing.wait()
    listed = subprocess.run([bitctl, "ls", "--json"], cwd=tmp_path, capture_output=True, text=True, env=runs.environment(tmp_path))
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == [three[2].name, three[1].name]
    assert prune("--yes").returncode == 0
    assert not list((tmp_path / "runs").glob(".prune-*"))


def test_what_was_left_behind_is_cleared(prune, bitctl, tmp_path, three):
    left = tmp_path / "runs" / (".prune-%s-01234567" % three[0].name)
    three[0].rename(left)
    for command in (["ls", "--json"], ["ls", "--json", "--all"]):
        listed = subprocess.run([bitctl, *command], cwd=tmp_path, capture_output=True, text=True, env=runs.environment(tmp_path))
        assert listed.stdout.count("\n") == 2 and ".prune-" not in listed.stdout
    assert subprocess.run([bitctl, "status", left], capture_output=True, env=runs.environment(tmp_path)).returncode == 6
    assert prune("--dry-run").returncode == 0 and left.exists()
    done = prune("--yes")
    assert done.returncode == 0 and not left.exists() and not done.stdout.startswith("0 B")


def test_wrong_arguments(prune, three):
    assert prune("--keep", "1", three[0]).returncode == 2
    assert prune("--older-than", "soon").returncode == 2
    assert prune("--yes", "no-such-run").returncode == 6
    assert standing(three) == [True] * 3
