"""Hangs are seen, explained and ended; honest work is not."""

import os
import pathlib
import signal
import sys
import time

import pytest
import runs

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "fault"))
import healthy  # noqa: E402

STALL = {"stall": "4s"}


def stuck(tmp_path, *arguments, watchdog=STALL, **sections):
    return runs.config(tmp_path, "stuck.py", arguments, watchdog=watchdog, restart={"backoff": "10ms", "max": 3, **sections.pop("restart", {})}, **sections)


@pytest.mark.parametrize("kind", ["sleeps", "spins", "deadlocks"])
def test_a_hang_is_suspected_explained_and_ended(start, tmp_path, kind):
    run = start("train", stuck(tmp_path, kind))
    assert run.wait() == 0, run.text()
    suspected, hang = run.events("suspected")[0], run.events("hang")[0]
    assert suspected["phase"] == hang["phase"] == "train"
    assert suspected["limit"] == 2 and suspected["silent"] >= 2
    assert hang["limit"] == 4 and hang["silent"] >= 4
    stacks = [row["text"] for row in run.events("stacks") if row["attempt"] == 1]
    # C code that sits on the interpreter's lock is only looked into when it is to be killed.
    told = any if kind == "spins" else all
    assert stacks and told("get_stuck" in text for text in stacks) and all("threads: " in text for text in stacks), stacks
    assert run.events("exited")[0]["signal"] == "SIGKILL"
    assert len(run.events("spawned")) == 2
    assert "get_stuck" in (run.path / "logs" / "bitctl.log").read_text()


def test_a_hang_without_an_end_is_exit_code_124(start, tmp_path):
    run = start("train", stuck(tmp_path, "sleeps", "--always", restart={"max": 1}))
    assert run.wait() == 124, run.text()
    assert run.pulse()["status"] == "error" and "hung at step 20" in run.pulse()["message"]


def test_pulse_grows_old_while_a_hang_is_suspected(start, tmp_path):
    run = start("train", stuck(tmp_path, "sleeps", watchdog={"stall": "16s"}))
    run.wait_event("suspected")
    runs.wait_for(lambda: "no progress for" in run.pulse()["message"], "the suspicion in PULSE")
    stamp = run.pulse()["timestamp"]
    run.wait_event("hang")
    assert not [r for r in run.events("restamped") if r["t"] > run.events("suspected")[0]["t"] and r["t"] < run.events("hang")[0]["t"]]
    assert run.wait() == 0 and stamp < run.pulse()["timestamp"]


def test_one_that_was_stopped_is_continued(start, tmp_path):
    run = start("train", stuck(tmp_path, "stops"))
    assert run.wait() == 0, run.text()
    assert len(run.events("continued")) == 1 and not run.events("hang")
    assert len(run.events("spawned")) == 1
    assert run.events("recovered")


def test_after_a_sign_of_life_it_is_continued_again(start, tmp_path):
    run = start("train", stuck(tmp_path, "stops", "--every", "--steps", 50))
    assert run.wait() == 0, run.text()
    assert len(run.events("continued")) == 2 and run.events("recovered") and not run.events("hang")


def test_one_that_stops_again_hangs(start, tmp_path):
    run = start("train", stuck(tmp_path, "stops_again"))
    assert run.wait() == 0, run.text()
    assert len(run.events("continued")) == 1 and len(run.events("hang")) == 1
    assert any(" T " in row["text"] for row in run.events("stacks"))


def test_declared_work_may_take_its_time(start, tmp_path):
    run = start("train", stuck(tmp_path, "busy"))
    assert run.wait() == 0, run.text()
    assert not run.events("suspected") and len(run.events("spawned")) == 1
    assert run.events("phase")[0]["phase"] == "busy" and run.events("phase")[0]["text"] == "counting to six"


def test_undeclared_it_is_a_hang_only_where_a_shorter_stall_is_declared(start, tmp_path):
    # Longer than two stalls: on a crowded machine it gets one more.
    run = start("train", stuck(tmp_path, "pauses", "--pause", 12))
    assert run.wait() == 0 and len(run.events("hang")) == 1, "control"
    run = start("train", stuck(tmp_path, "pauses", watchdog={}), "--name", "automatic")
    assert run.wait() == 0 and not run.events("hang")
    assert run.events("suspected") and run.events("recovered")


def test_one_that_writes_to_the_disk_gets_one_more_chance(start, tmp_path):
    run = start("train", stuck(tmp_path, "saves", "--log", tmp_path / "saved.pt"))
    assert run.wait() == 0, run.text()
    assert run.events("extended")[0]["io_bytes"] >= 1 << 20
    assert not run.events("hang") and len(run.events("spawned")) == 1


def test_a_stopped_supervisor_stalls_nobody_and_kills_nobody(start, tmp_path):
    log = tmp_path / "steps.txt"
    run = start("train", stuck(tmp_path, "none", "--steps", 240, "--log", log))
    run.wait_step(10)
    run.process.send_signal(signal.SIGSTOP)
    before = len(log.read_text().splitlines())
    time.sleep(6)  # longer than the stall: what is measured is that nothing happens
    reached = len(log.read_text().splitlines())
    run.process.send_signal(signal.SIGCONT)
    assert run.wait() == 0, run.text()
    assert reached > before + 20, "the trainer went on"
    assert len(run.events("spawned")) == 1 and not run.events("hang")


def test_a_package_that_falls_silent_is_no_hang(start, tmp_path):
    run = start("train", stuck(tmp_path, "silences", "--steps", 400, watchdog={"stall": "4s"}))
    run.wait()
    assert "from here on this run is supervised by its exit alone" in (run.path / "logs" / "attempt-1.log").read_text()
    assert run.events("hang"), "a declared stall counts on: its output is its sign of life, and it has none"
    run = start("train", stuck(tmp_path, "silences", "--steps", 180, watchdog={}), "--name", "automatic")
    assert run.wait() == 75, run.text()
    assert not run.events("suspected") and len(run.events("spawned")) == 1
    failed = run.events("package_failed")[-1]
    assert failed["rank"] == 0 and failed["reason"].startswith("checkpoint failed (RuntimeError: checkpoint() before restore()")
    assert "nothing is reported or saved any more" in run.text()
    assert run.pulse()["message"].endswith(" · nothing is reported or saved any more: " + failed["reason"])


def test_work_that_is_declared_while_nobody_listens_may_take_its_time(start, tmp_path):
    run = start("train", stuck(tmp_path, "busy", "--after", 600, "--steps", 620, "--step", 0.03, "--pause", 10))
    run.wait_step(10)
    run.process.send_signal(signal.SIGSTOP)
    # Until its messages fill the socket, and the phase is one that gets through nowhere else.
    time.sleep(24)
    run.process.send_signal(signal.SIGCONT)
    assert run.wait() == 0, run.text()
    assert not run.events("hang") and len(run.events("spawned")) == 1


def test_fast_steps_do_not_hide_when_the_last_one_was(start, tmp_path):
    run = start("train", stuck(tmp_path, "sleeps", "--step", 0.004, "--after", 400, "--steps", 500))
    assert run.wait() == 0, run.text()
    assert run.events("suspected")[0]["limit"] == 2, "no gap was learned from steps that were not told"


def test_a_slow_end_is_no_hang_and_no_signal_kills_it(start, tmp_path):
    (tmp_path / "slow_end.py").write_text(
        "import atexit, bitctl, ctypes, threading, time\n"
        "run = bitctl.init()\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "for step in range(1, 31):\n"
        "    run.progress(step=step, total_steps=30)\n"
        "    time.sleep(0.05)\n"
        "libc = ctypes.CDLL(None)\n"
        "atexit.register(lambda: libc.usleep(6000000))\n"
    )
    run = start("train", runs.config(tmp_path, str(tmp_path / "slow_end.py"), watchdog=STALL))
    assert run.wait() == 0, run.text()
    assert not run.events("suspected")


def test_a_launcher_that_starts_its_worker_anew_starts_a_new_count(start, tmp_path):
    (tmp_path / "launcher.py").write_text(
        "import subprocess, sys\n"
        "arguments = [sys.executable, %r, 'none', '--step', '0.2']\n"
        "subprocess.run([*arguments, '--steps', '30'])\n"
        "sys.exit(subprocess.run([*arguments, '--steps', '30']).returncode)\n" % str(runs.TRAINERS / "stuck.py")
    )
    run = start("train", runs.config(tmp_path, str(tmp_path / "launcher.py"), watchdog=STALL, restart={"max": 1}))
    assert run.wait() == 0, run.text()
    assert not run.events("hang")


def test_a_frozen_trainer_does_not_hang(start, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("freezing takes rights")
    run = start("train", stuck(tmp_path, "none", "--steps", 100), env={"BITCTL_ISOLATION": "cgroup"})
    run.wait_step(20)
    healthy.freeze(run, True)
    frozen = time.time()
    time.sleep(6)
    thawed = time.time()
    healthy.freeze(run, False)
    assert run.wait() == 0, run.text()
    assert not run.events("hang") and len(run.events("spawned")) == 1
    assert not [row for row in run.events("suspected") if frozen < row["t"] < thawed]


def test_output_is_the_sign_of_life_of_a_script_that_reports_nothing(start, tmp_path):
    (tmp_path / "talks.py").write_text("import time\nfor i in range(4):\n    print(i, flush=True)\n    time.sleep(1.5)\ntime.sleep(600)\n")
    config = runs.config(tmp_path, str(tmp_path / "talks.py"), watchdog=STALL, restart={"max": 1})
    run = start("train", config)
    assert run.wait() == 124, run.text()
    assert (run.path / "logs" / "attempt-1.log").read_text() == "0\n1\n2\n3\n"


def test_a_silent_script_without_a_declared_stall_is_left_alone(start, tmp_path):
    (tmp_path / "quiet.py").write_text("import time\ntime.sleep(6)\n")
    run = start("train", runs.config(tmp_path, str(tmp_path / "quiet.py")))
    assert run.wait() == 0
    assert not run.events("suspected")


def test_py_spy_looks_into_what_is_not_connected(start, tmp_path):
    (tmp_path / "quiet.py").write_text("import time\ntime.sleep(600)\n")
    spy = tmp_path / "bin" / "py-spy"
    spy.parent.mkdir()
    spy.write_text("#!/bin/sh\necho \"Process $4: quiet.py line 2\"\n")
    spy.chmod(0o755)
    config = runs.config(tmp_path, str(tmp_path / "quiet.py"), watchdog=STALL, restart={"max": 1})
    run = start("train", config, env={"PATH": "%s:%s" % (spy.parent, os.environ["PATH"])})
    assert run.wait() == 124
    assert any("quiet.py line 2" in row["text"] for row in run.events("stacks")), run.events("stacks")
