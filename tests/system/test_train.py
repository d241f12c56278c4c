"""`bitctl train`: what a trainer does is what PULSE, the events and the exit code say."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
import runs
from jsonschema import ValidationError
from runs import wait_for
from schema_check import assert_run_obeys


def message(run):
    return run.pulse()["message"]


def test_a_bare_script_is_supervised_by_its_exit_alone(start, tmp_path):
    (tmp_path / "train.py").write_text("print('hello')")
    run = start("train", "--", "python3", "train.py")
    assert run.wait() == 0
    assert run.pulse()["status"] == "done"
    assert run.path.name.startswith("train-")
    assert (run.path / "logs" / "attempt-1.log").read_text() == "hello\n"


def test_the_smallest_config(start, tmp_path):
    (tmp_path / "train.py").write_text("import sys; print(sys.argv[1:])")
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\n")
    run = start("train", "config.yaml", "--", "--lr", "1e-4")
    assert run.wait() == 0
    assert (run.path / "logs" / "attempt-1.log").read_text() == "['--lr', '1e-4']\n"


@pytest.mark.parametrize("kind, code", [("exit42", 42), ("exit1", 1), ("signal9", 137), ("signal11", 139), ("exit75", 75)])
def test_exit_codes_pass_through(start, tmp_path, kind, code):
    run = start("train", "--no-restart", runs.config(tmp_path, "hostile.py", [kind]))
    assert run.wait() == code
    pulse = run.pulse()
    assert pulse["status"] == ("idle" if code == 75 else "error")
    if kind == "signal9":
        assert pulse["message"] == "killed by SIGKILL"
    if kind == "exit42":
        assert pulse["message"] == "exit code 42"


def test_a_program_that_cannot_be_started(start, tmp_path):
    for command, code, reason in (["no-such-program"], 127, "not found"), ([str(tmp_path / "plain")], 126, "cannot execute"):
        (tmp_path / "plain").write_text("no program")
        run = start("train", "--name", "n%d" % code, "--", *command)
        assert run.wait() == code
        assert reason in message(run)


def test_an_exception_is_named_and_the_same_one_twice_ends_the_run(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["raise"], restart={"backoff": "10ms"}))
    assert run.wait() == 1
    assert len(run.events("spawned")) == 2
    assert "exit code 1 at step 3: ValueError: the loss function is missing" in message(run)
    assert "the same failure twice" in message(run)
    assert "hostile.py" in run.events("error")[0]["frame"]


def test_out_of_memory_keeps_epoch_and_loss(start, tmp_path):
    run = start("train", "--no-restart", runs.config(tmp_path, "hostile.py", ["memory"]))
    assert run.wait() == 1
    pulse = run.pulse()
    assert (pulse["status"], pulse["epoch"], pulse["total_epochs"], pulse["loss"]) == ("error", 0.5, 2.0, 0.75)
    assert "MemoryError" in pulse["message"]


def test_three_attempts_without_a_checkpoint_end_the_run(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["signal9"], restart={"backoff": "10ms"}))
    assert run.wait() == 137
    assert len(run.events("spawned")) == 3
    assert message(run) == "killed by SIGKILL (3 attempts without a new checkpoint)"


def test_pulse_is_the_fold_of_the_events(start, tmp_path, bitctl):
    run = start("train", runs.config(tmp_path, "small.py", [60, "--pause", 0.02], checkpoints={"every": 20}))
    assert run.wait() == 0
    folded = subprocess.run(
        [str(runs.ROOT / "build" / "tests" / "fold_events"), run.path / "events.jsonl"], capture_output=True, text=True, check=True
    )
    assert folded.stdout == (run.path / "training_status.json").read_text()
    check = subprocess.run([bitctl, "pulse", "check", run.path / "training_status.json"])
    assert check.returncode == 0


DAMAGE = {
    "training_status.json": ('"epoch"', '"epochs"'),
    "run.json": ('"argv"', '"args"'),
    "events.jsonl": ('"kind":"spawned","pid"', '"kind":"spawned","p"'),
    "config.yaml": ("keep_last:", "keep_lust:"),
    "checkpoints/step-000000040/manifest.json": ('"step"', '"stop"'),
}


def test_every_file_fits_its_schema_and_a_changed_name_does_not(start, tmp_path):
    """The fixture `start` does this to every run of every test; here is its control."""
    run = start("train", runs.config(tmp_path, "small.py", [40], checkpoints={"every": 20}))
    assert run.wait() == 0
    assert_run_obeys(run.path)
    for name, (good, bad) in DAMAGE.items():
        path = run.path / name
        text = path.read_text()
        assert good in text
        path.write_text(text.replace(good, bad, 1))
        with pytest.raises(ValidationError):
            assert_run_obeys(run.path)
            pytest.fail(name)
        path.write_text(text)


def test_progress_rows_come_at_most_once_a_second(start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [150, "--pause", 0.02]))
    assert run.wait() == 0
    rows = run.events("progress")
    assert rows[-1]["step"] == 150
    gaps = [b["t"] - a["t"] for a, b in zip(rows, rows[1:])]
    # The last row is written at the end, however soon that comes.
    assert all(gap >= 0.99 for gap in gaps[:-1]), gaps


def test_a_trainer_that_knows_only_bitctl_pulse_is_followed(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["pulse"]))
    wait_for(lambda: run.pulse()["epoch"] >= 2, "the second epoch")
    assert run.pulse()["message"] == "epoch 2/3" and run.pulse()["status"] == "running"
    assert run.wait() == 0
    assert run.pulse()["status"] == "done" and run.pulse()["loss"] == 0.25


def test_a_trainer_with_a_pulse_file_of_its_own_is_followed(start, tmp_path):
    config = runs.config(
        tmp_path, "hostile.py", ["own_pulse"], workdir=str(tmp_path), progress={"source": "pulse", "file": "own_status.json"}
    )
    run = start("train", config)
    wait_for(lambda: run.pulse()["epoch"] >= 2, "the second epoch")
    own = json.loads((tmp_path / "own_status.json").read_text())
    assert abs(run.pulse()["timestamp"] - own["timestamp"]) <= 2
    assert run.wait() == 0
    assert run.pulse()["status"] == "done" and run.pulse()["loss"] == 0.25


def test_nan_is_told_and_never_written(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["nan"]))
    wait_for(lambda: "NaN" in message(run), "the NaN in PULSE")
    assert re.fullmatch(r"loss is NaN at step \d+", message(run))
    assert run.pulse()["loss"] == 1.5
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75


def test_nan_stops_the_run_where_the_config_says_so(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["nan"], watchdog={"nan": "stop"}))
    assert run.wait() == 125
    assert message(run) == "loss is NaN at step 5"
    assert len(run.events("spawned")) == 1


def test_the_trainer_is_born_with_nothing_but_its_log(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["fds"]))
    assert run.wait() == 0
    log = (run.path / "logs" / "attempt-1.log").read_text()
    assert "fds [0, 1, 2]" in log
    assert "stdin /dev/null" in log
    assert "session True mask 0000000000000000" in log


def test_the_log_holds_every_byte_and_blocks_nobody(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["chatty"]))
    run.wait_event("spawned")
    run.process.send_signal(signal.SIGSTOP)
    run.wait_log("finished")  # beside a stopped supervisor
    run.process.send_signal(signal.SIGCONT)
    assert run.wait() == 0
    assert (run.path / "logs" / "attempt-1.log").stat().st_size == 2000 * 4096 * 12 + len("\nfinished\n")


def test_a_second_train_of_the_same_name_is_refused_at_once(start, tmp_path, bitctl):
    config = runs.config(tmp_path, "hostile.py", ["deaf"])
    run = start("train", config)
    run.wait_event("spawned")
    begun = time.monotonic()
    second = subprocess.run([bitctl, "train", config], capture_output=True, text=True, env=runs.environment(tmp_path))
    assert second.returncode == 125
    assert second.stderr.startswith("bitctl: Training already in progress: ")
    assert "pid %d (started 2" % run.process.pid in second.stderr and "bitctl train" in second.stderr
    assert time.monotonic() - begun < 20, "refused, not waited for"
    resumed = subprocess.run([bitctl, "resume", run.path], capture_output=True, text=True, env=runs.environment(tmp_path))
    assert resumed.returncode == 125 and "Training already in progress" in resumed.stderr
    sibling = start("train", config, "--name", "sibling")
    wait_for(lambda: runs.events_of(next((tmp_path / "runs").glob("sibling-*"), "/none"), "spawned"), "the sibling")
    for each in (run, sibling):
        each.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stop requested" in each.text(), "the first request")  # two at once are one to the kernel
        each.process.send_signal(signal.SIGTERM)
        assert each.wait() == 75


def test_dry_run_starts_nothing(bitctl, tmp_path):
    config = runs.config(tmp_path, "small.py", [10])
    done = subprocess.run([bitctl, "train", "--dry-run", config], capture_output=True, text=True, env=runs.environment(tmp_path))
    assert done.returncode == 0 and "small.py" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_wrong_config_is_one_line_an_error_and_makes_nothing(bitctl, tmp_path):
    (tmp_path / "config.yaml").write_text("run:\n  script: train.py\ncheckpoint: {every: 5}\n")
    done = subprocess.run([bitctl, "train", "config.yaml"], capture_output=True, text=True, cwd=tmp_path, env=runs.environment(tmp_path))
    assert done.returncode == 125
    assert "config.yaml:3:1" in done.stderr and "did you mean 'checkpoints'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_secrets_stay_out_of_every_file(start, tmp_path):
    (tmp_path / "train.py").write_text("import os; assert os.environ['HUB_TOKEN'] == 'canary-1234'")
    (tmp_path / "config.yaml").write_text("name: secret\nrun:\n  script: train.py\n  env: {HUB_TOKEN: '${HUB_TOKEN}'}\n")
    run = start("train", "config.yaml", env={"HUB_TOKEN": "canary-1234"})
    assert run.wait() == 0
    for path in run.path.rglob("*"):
        if path.is_file():
            assert b"canary-1234" not in path.read_bytes(), path
    assert "canary-1234" not in run.text()


def test_a_secret_on_the_command_line_stays_out_of_every_file(start, tmp_path):
    (tmp_path / "train.py").write_text("import os; assert os.environ['HUB_TOKEN'] == 'canary-1234'")
    (tmp_path / "config.yaml").write_text("name: secret\nrun: {script: train.py}\n")
    run = start("train", "config.yaml", "--set", "run.env.HUB_TOKEN=canary-1234")
    assert run.wait() == 0
    for path in (tmp_path / "runs").rglob("*"):
        if path.is_file():
            assert b"canary-1234" not in path.read_bytes(), path


def test_output_that_nobody_reads_stalls_nothing(bitctl, tmp_path):
    """A terminal stopped by Ctrl-S, a pager that nobody scrolls."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    command = [bitctl, "train", "--", "python3", "-c", "raise SystemExit(2)"]
    try:
        done = subprocess.run(command, cwd=tmp_path, env=runs.environment(tmp_path), stdout=writer, stderr=writer, timeout=runs.DEADLINE)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 2
    assert json.loads((tmp_path / "runs" / "latest" / "training_status.json").read_text())["status"] == "error"


def test_the_last_words_of_a_dead_trainer_count(start, tmp_path):
    """The supervisor slept while the trainer reported its end and died."""
    (tmp_path / "train.py").write_text(
        "import bitctl, pathlib, time\n"
        "run = bitctl.init()\n"
        "run.progress(step=1, total_steps=9)\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "for step in range(2, 6): run.progress(step=step, total_steps=9); time.sleep(0.06)\n"
        "run.finish()\n"
    )
    run = start("train", "--", "python3", "train.py")
    run.wait_event("progress")
    run.process.send_signal(signal.SIGSTOP)
    trainer = run.trainer()
    (tmp_path / "go").write_text("")
    wait_for(lambda: not runs.alive(trainer), "the trainer's end")
    run.process.send_signal(signal.SIGCONT)
    assert run.wait() == 0, run.text()
    assert run.pulse()["status"] == "done"
    assert run.events("progress")[-1]["step"] == 5


def test_a_time_limit_is_no_second_ctrl_c(start, tmp_path):
    (tmp_path / "train.py").write_text(
        "import bitctl, time\nrun = bitctl.init()\nrun.restore()\n"
        "for step in range(1, 4): run.progress(step=step); run.checkpoint(step); time.sleep(4)\n"
    )
    (tmp_path / "config.yaml").write_text("name: test\nrun: {script: train.py}\nlimits: {time: 2s}\n")
    run = start("train", "config.yaml")
    run.wait_event("progress")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    assert [row["by"] for row in run.events("stop_requested")] == ["SIGINT"]
    assert run.events("exited")[0]["code"] == 75, "it left by itself, at the boundary"


def test_a_run_folder_behind_a_link_has_one_spelling(start, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    run = start("train", "--", "python3", "-c", "import os; print(os.environ['BITCTL_RUN_DIR'])")
    assert run.wait() == 0
    assert (run.path / "logs" / "attempt-1.log").read_text().strip() == str(run.path)


def test_the_terminal_may_go_away(start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [40, "--pause", 0.05]))
    run.wait_event("progress")
    run.process.send_signal(signal.SIGHUP)
    assert run.wait() == 0


def test_status_finds_the_run_from_anywhere(start, tmp_path, bitctl):
    run = start("train", runs.config(tmp_path, "hostile.py", ["exit0"]))
    assert run.wait() == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = runs.environment(tmp_path)
    for arguments in (["status"], ["status", run.path.name], ["status", run.path.name[:8]], ["status", run.path]):
        done = subprocess.run([bitctl, *map(str, arguments)], capture_output=True, text=True, cwd=elsewhere, env=env)
        assert done.returncode == 0 and "Training complete" in done.stdout, arguments
    listed = subprocess.run([bitctl, "ls", "--all", "--json"], capture_output=True, text=True, cwd=elsewhere, env=env)
    assert json.loads(listed.stdout)["state"] == "done"


def test_logs_follow_across_attempts(start, tmp_path, bitctl):
    run = start("train", runs.config(tmp_path, "small.py", [60, "--pause", 0.05], checkpoints={"every": 5}))
    run.wait_step(10)
    follow = subprocess.Popen([bitctl, "logs", "-f", run.path], stdout=subprocess.PIPE, text=True, env=runs.environment(tmp_path))
    os.kill(run.trainer(), signal.SIGKILL)
    assert run.wait() == 0
    text, _ = follow.communicate(timeout=runs.DEADLINE)
    assert follow.returncode == 0
    assert "== attempt 2 ==" in text
