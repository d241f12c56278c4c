"""Many who want the same run: one gets it. And pids of another boot, or another process, are nobody's."""

import json
import os
import signal
import subprocess
import sys

import runs
from runs import wait_for

STARTERS = 50


def starters(tmp_path, bitctl, *arguments):
    return [
        subprocess.Popen([bitctl, *map(str, arguments)], cwd=tmp_path, env=runs.environment(tmp_path), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(STARTERS)
    ]  # fmt: skip


def winner_of(processes):
    """The one that goes on; the others have refused, each naming it."""
    try:
        wait_for(lambda: sum(p.poll() is None for p in processes) <= 1, "49 refusals")
        left = [p for p in processes if p.poll() is None]
        assert len(left) == 1, [(p.returncode, p.communicate()[0]) for p in processes if p.returncode != 125]
        for process in processes:
            if process is not left[0]:
                said = process.communicate()[0]
                assert process.returncode == 125 and "already in progress" in said, said
                assert "pid %d " % left[0].pid in said, said
        return left[0]
    except BaseException:
        for process in processes:
            process.kill()
        raise


def stop(winner, run_dir):
    winner.send_signal(signal.SIGINT)
    winner.communicate()
    assert winner.returncode == 75
    assert len({row["pid"] for row in runs.events_of(run_dir, "supervising")}) == len(runs.events_of(run_dir, "supervising"))


def test_fifty_starters_and_fifty_who_resume(bitctl, tmp_path):
    config = runs.config(tmp_path, "stuck.py", ["none", "--steps", 100000])
    winner = winner_of(starters(tmp_path, bitctl, "train", config))
    run_dir = (tmp_path / "runs" / "latest").resolve()
    wait_for(lambda: runs.events_of(run_dir, "progress"), "a step")
    assert len([path for path in (tmp_path / "runs").iterdir() if path.is_dir() and not path.is_symlink()]) == 1
    stop(winner, run_dir)
    before = len(runs.events_of(run_dir, "spawned"))
    winner = winner_of(starters(tmp_path, bitctl, "resume", run_dir))
    wait_for(lambda: len(runs.events_of(run_dir, "spawned")) == before + 1, "the resumed attempt")
    stop(winner, run_dir)
    assert len(runs.events_of(run_dir, "spawned")) == before + 1, "one of them started one attempt"


def test_a_pid_of_another_boot_is_nobodys(start, bitctl, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [40, "--pause", 0.05], checkpoints={"every": 2}))
    run.wait_event("committed")
    writer = run.writer()
    run.process.send_signal(signal.SIGSTOP)
    os.kill(writer, signal.SIGKILL)
    run.process.kill()
    run.process.wait()
    # As a machine that went down leaves it: the pids are taken by others now.
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        events = run.path / "events.jsonl"
        rows = [json.loads(line) for line in events.read_text().splitlines()]
        ticks = int(open("/proc/%d/stat" % other.pid).read().rpartition(")")[2].split()[19])
        for row in rows:
            if row["kind"] == "supervising":
                row.update(pid=other.pid, start_ticks=ticks, boot_id="00000000-0000-4000-8000-000000000000")
            if row["kind"] == "spawned":
                row["pid"] = other.pid
        events.write_text("".join(json.dumps(row) + "\n" for row in rows))
        said = subprocess.run([bitctl, "stop", run.path], capture_output=True, text=True, env=runs.environment(tmp_path))
        assert said.returncode == 1 and "not in progress" in said.stderr
        again = start("resume", run.path)
        assert again.wait() == 0, again.text()
        assert other.poll() is None, "it was not touched"
    finally:
        other.kill()
        other.wait()


def test_the_control_that_pid_on_this_boot_holds_the_run(start, bitctl, tmp_path):
    run = start("train", runs.config(tmp_path, "stuck.py", ["none", "--steps", 100000]))
    run.wait_step(1)
    said = subprocess.run([bitctl, "resume", run.path], capture_output=True, text=True, env=runs.environment(tmp_path))
    assert said.returncode == 125 and "pid %d " % run.process.pid in said.stderr
