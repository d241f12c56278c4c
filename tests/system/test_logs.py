"""`bitctl logs`: which lines it prints, and whom it waits for; and what becomes of output that does not arrive."""

import contextlib
import json
import os
import pathlib
import subprocess
import threading

import pytest
import runs


@pytest.fixture
def run(tmp_path):
    """A run's folder, and a process that passes for its supervisor."""
    folder = tmp_path / "runs" / "demo-20261121-145703"
    (folder / "logs").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    supervisor = subprocess.Popen(["sleep", "3600"])
    stat = pathlib.Path(f"/proc/{supervisor.pid}/stat").read_text()
    row = {"t": 1.0, "attempt": 0, "kind": "supervising", "pid": supervisor.pid,
           "start_ticks": int(stat.rpartition(")")[2].split()[19]),
           "boot_id": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    (folder / "events.jsonl").write_text(json.dumps(row) + "\n")
    yield folder, supervisor
    supervisor.kill()
    supervisor.wait()


def opened(pid):
    """What its descriptors are."""
    names = ""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names += os.readlink(fd) + " "
    return names


def log_of(folder, text):
    (folder / "logs" / "attempt-1.log").write_text(text)


@pytest.mark.parametrize("text, last", [("a\nb\nc", ["a", "b", "c"]), ("a\nb\nc\n", ["a", "b", "c"]), ("a", ["a"]),
                                        ("\n", [""]), ("", [])])
def test_the_last_lines(run, bitctl, tmp_path, text, last):
    log_of(run[0], text)
    for lines in range(5):
        done = subprocess.run([bitctl, "logs", "-n", str(lines), run[0]], capture_output=True, text=True,
                              env=runs.environment(tmp_path), timeout=runs.DEADLINE)
        wanted = last[len(last) - min(lines, len(last)):]
        assert (done.returncode, done.stdout) == (0, "".join(line + "\n" for line in wanted))


def test_a_log_that_does_not_exist_yet_is_followed(run, bitctl, tmp_path):
    folder, supervisor = run
    follow = subprocess.Popen([bitctl, "logs", "-f", folder], stdout=subprocess.PIPE, text=True,
                              env=runs.environment(tmp_path))
    # Once it sleeps on its watch of the folder it has tried to open the log.
    runs.wait_for(lambda: "inotify" in opened(follow.pid) and runs.state(follow.pid) == "S", "the watch")
    log_of(folder, "the first line\n")
    patience = threading.Timer(runs.DEADLINE, follow.kill)
    patience.start()
    assert follow.stdout.readline() == "the first line\n"
    patience.cancel()
    supervisor.kill()
    supervisor.wait()
    assert follow.communicate(timeout=runs.DEADLINE)[0] == ""
    assert follow.returncode == 0


def test_a_follower_whose_output_does_not_arrive_ends(run, bitctl, tmp_path):
    log_of(run[0], "a line\n")
    with open("/dev/full", "w", encoding="utf-8") as full:
        lost = subprocess.run([bitctl, "logs", "-f", run[0]], stdout=full, stderr=subprocess.PIPE, text=True,
                              env=runs.environment(tmp_path), timeout=runs.DEADLINE)
    assert (lost.returncode, lost.stderr) == (125, "bitctl: cannot write stdout\n")


COMMANDS = {
    "ls": lambda folder: ["ls"],
    "ls --json": lambda folder: ["ls", "--json"],
    "logs": lambda folder: ["logs", folder],
    "logs, long": lambda folder: ["logs", folder],
    "logs -f": lambda folder: ["logs", "-f", folder],
    "schema": lambda folder: ["schema", "config"],
    "schema names": lambda folder: ["schema"],
    "train --dry-run": lambda folder: ["train", "--dry-run", "--", "true"],
    "status": lambda folder: ["status", folder],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_does_not_arrive_is_told(run, bitctl, tmp_path, command):
    folder, supervisor = run
    log_of(folder, "a line\n" * (100_000 if "long" in command else 1))
    supervisor.kill()
    supervisor.wait()
    argv = [bitctl, *COMMANDS[command](folder)]
    env = runs.environment(tmp_path)
    whole = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=runs.DEADLINE)
    assert whole.returncode == 0 and whole.stdout, "the control: it has something to say"
    with open("/dev/full", "w", encoding="utf-8") as full:
        lost = subprocess.run(argv, cwd=tmp_path, env=env, stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=runs.DEADLINE)
    assert lost.returncode == 125
    assert "cannot write stdout" in lost.stderr
    assert lost.stderr.count("\n") == 1
