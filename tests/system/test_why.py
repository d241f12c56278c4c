"""`bitctl why`: the last failure as a person would tell it, from runs that really failed."""

import json
import os
import signal
import subprocess

import pytest
import runs


@pytest.fixture
def why(bitctl, tmp_path):
    def run(*arguments):
        done = subprocess.run([bitctl, "why", *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True,
                              env=runs.environment(tmp_path), timeout=runs.DEADLINE)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def script(folder, text):
    (folder / "train.py").write_text(text)
    (folder / "config.yaml").write_text("name: test\nrun: {script: train.py}\nrestart: {backoff: 10ms}\n")
    return "config.yaml"


def status(bitctl, run, *arguments):
    done = subprocess.run([bitctl, "status", run.path, *arguments], capture_output=True, text=True, env=runs.environment(run.folder), timeout=runs.DEADLINE)
    assert done.returncode == 3
    return done.stdout


def test_an_exception_inside_a_library(start, why, tmp_path, bitctl):
    config = script(tmp_path, "import bitctl, json\nbitctl.init().progress(step=3, total_steps=9)\ndef load():\n    json.loads('{')\nload()\n")
    run = start("train", config)
    assert run.wait() == 1
    frame = "%s/train.py:4 in load" % tmp_path
    told = json.loads(why("--json"))
    assert told["what"].startswith("attempt 2 ended with exit code 1 at step 3: json.decoder.JSONDecodeError: ")
    assert (told["frame"], told["step"], told["code"], told["attempt"]) == (frame, 3, 1, 2)
    assert told["did"] == ["restarted it once", "gave up with exit code 1: the same failure twice at the same step"]
    assert "it fails in the same way each time: look at " + frame in told["next"]
    text = why()
    assert "where   %s\n" % frame in text and "log     %s" % (run.path / "logs" / "attempt-2.log") in text
    shown = status(bitctl, run)
    assert "  in %s\n" % frame in shown and shown.endswith("  more: bitctl why %s\n" % run.path.name)
    assert status(bitctl, run, "--follow").endswith("  more: bitctl why %s\n" % run.path.name)
    assert "bitctl why" not in status(bitctl, run, "--json")
    assert "why:   bitctl why %s\n" % run.path.name in run.output.read_text()


def test_a_script_that_knows_no_bitctl(start, why, tmp_path):
    run = start("train", "--no-restart", script(tmp_path, "def go():\n    raise KeyError('lr')\ngo()\n"))
    assert run.wait() == 1
    told = json.loads(why("--json"))
    assert (told["exception"], told["frame"]) == ("KeyError: 'lr'", "%s/train.py:2 in go" % tmp_path)


def test_a_module_that_is_not_there(start, why, tmp_path):
    run = start("train", script(tmp_path, "import no_such_module\n"))
    assert run.wait() == 1
    assert "%s -m pip install no_such_module`" % runs.python() in why()


def test_a_kill_that_a_run_survived(start, why, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [40, "--pause", 0.05], checkpoints={"every": 5}))
    run.wait_step(8)
    assert "nothing failed; step " in why()
    os.kill(run.trainer(), signal.SIGKILL)
    assert run.wait() == 0
    told = json.loads(why("--json"))
    resumed = run.events("resumed")[0]["step"]
    assert (told["state"], told["signal"], told["attempt"]) == ("done", "SIGKILL", 1)
    assert told["did"][0] == "restarted it once, the last time from step %d (memory)" % resumed
    assert told["next"] == []


def test_the_death_of_bitctl_itself(start, why, tmp_path):
    run = start("train", runs.config(tmp_path, "told.py", [tmp_path / "never"]))
    run.wait_step(3)
    run.process.kill()
    runs.wait_for(lambda: runs.events_of(run.path, "failed"), "the writer's word")
    text = why()
    assert "bitctl" in text and "killed" in text and "bitctl resume %s" % run.path.name in text


def test_a_run_that_nobody_knows(bitctl, tmp_path):
    done = subprocess.run([bitctl, "why", "nothing"], cwd=tmp_path, capture_output=True, text=True, env=runs.environment(tmp_path))
    assert done.returncode == 6 and done.stderr.startswith('bitctl: no run "nothing"')


def test_nothing_that_the_trainer_wrote_steers_the_terminal(start, why, tmp_path):
    run = start("train", "--no-restart", script(tmp_path, "raise ValueError('\\x1b]0;title\\x07')\n"))
    assert run.wait() == 1
    assert "\x1b" not in why() and "^[]0;title^G" in why()
