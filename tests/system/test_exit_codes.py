"""The exit codes of `bitctl train`, as one table."""

import signal
import subprocess

import pytest
import runs


def hostile(kind):
    return lambda folder: ["train", "--no-restart", runs.config(folder, "hostile.py", [kind])]


def plain_file(folder):
    (folder / "plain").write_text("no program")
    return ["train", "--", folder / "plain"]


def bad_config(folder):
    (folder / "bad.yaml").write_text("run: {script: train.py}\nno_such_field: 1\n")
    return ["train", "bad.yaml"]


# What is started: (the arguments, the code).
CODES = {
    "0: done": (hostile("exit0"), 0),
    "the trainer's own": (hostile("exit42"), 42),
    "SIGKILL": (hostile("signal9"), 137),
    "SIGSEGV": (hostile("signal11"), 139),
    "hang": (lambda folder: ["train", "--no-restart", runs.config(folder, "stuck.py", ["sleeps", "--always"], watchdog={"stall": "3s"})], 124),
    "75: stopped": (hostile("exit75"), 75),
    "not found": (lambda folder: ["train", "--", "no-such-program"], 127),
    "not executable": (plain_file, 126),
    "bad config": (bad_config, 125),
    "no config": (lambda folder: ["train", "nowhere.yaml"], 125),
    "usage": (lambda folder: ["train", "--no-such-option"], 2),
    "no such run": (lambda folder: ["resume", "no-such-run"], 6),
}


# What never began is told by the command that wanted it in the background, too.
NEVER_BEGAN = {2, 6, 125, 126, 127}


@pytest.mark.parametrize("case", CODES)
def test_the_code_of(start, tmp_path, case):
    arguments, code = CODES[case]
    assert start(*arguments(tmp_path)).wait() == code


@pytest.mark.parametrize("case", [case for case, (_, code) in CODES.items() if code in NEVER_BEGAN])
def test_the_code_of_a_background_that_never_was(start, tmp_path, case):
    arguments, code = CODES[case]
    command, *rest = arguments(tmp_path)
    assert start(command, "-d", *rest).wait() == code


def test_stopped_on_request(start, tmp_path):
    run = start("train", runs.config(tmp_path, "told.py", [tmp_path / "never"]))
    run.wait_step(1)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75


def test_a_lock_that_is_held(start, tmp_path, bitctl):
    config = runs.config(tmp_path, "told.py", [tmp_path / "never"])
    start("train", config).wait_event("spawned")
    for more in ([], ["-d"]):
        second = subprocess.run([bitctl, "train", *more, config], capture_output=True, text=True, env=runs.environment(tmp_path))
        assert second.returncode == 125
        assert second.stderr.startswith("bitctl: Training already in progress: ") and second.stdout == ""
