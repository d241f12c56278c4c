"""`bitctl status`: what it says, how it ends, and whom it follows."""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time

import pytest
from schema_check import assert_obeys

from bitctl import pulse

ROOT = pathlib.Path(__file__).parents[2]
EXIT = {"ok": 0, "error": 3, "stale": 4, "damaged": 5, "no such run": 6, "timeout": 1, "interrupted": 130}
WAIT = 60  # seconds; far beyond need


@pytest.fixture
def home(tmp_path):
    """A project folder of a user who has no runs yet."""
    project = tmp_path / "project"
    project.mkdir()
    return project


@pytest.fixture
def status(bitctl, home):
    """Runs `bitctl status` in the project folder."""

    def run(*arguments, env=None, **more):
        return subprocess.run([bitctl, "status", *map(str, arguments)], cwd=home, env=environment(home, env),
                              capture_output=True, text=True, timeout=WAIT, **more)

    return run


def environment(home, more=None):
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "BITCTL_LOG_LEVEL")}
    return {**env, "XDG_STATE_HOME": str(home.parent / "state"), "TERM": "xterm", **(more or {})}


def make_run(home, run_id, labels=None):
    folder = home / "runs" / run_id
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"labels": labels or {}}))
    return folder / "training_status.json"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "training_status.json"
    yield file
    if file.exists():
        assert_obeys("pulse.v1", file)


def aged(file, age):
    """The file as if it had been written that many seconds ago."""
    document = pulse.read(file)
    pulse.atomic_write_json(file, {**document, "timestamp": int(time.time()) - age})


# Once.


def test_running(status, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "epoch 2/3, step 150/800")
    result = status(file)
    lines = result.stdout.splitlines()
    assert result.returncode == EXIT["ok"] and result.stderr == ""
    assert lines[:2] == ["Profile: Unknown", "Dataset: Unknown"]
    assert lines[3:6] == ["Epoch 1.5 / 3 (50.0%)", "Loss: 0.3420", "epoch 2/3, step 150/800"]
    assert re.fullmatch(r"Last update: \d+s ago", lines[6])


def test_done(status, file):
    pulse.write_done_status(file, 3, 3, 0.127, "Training completed successfully")
    result = status(file)
    assert (result.returncode, result.stdout) == (EXIT["ok"], "✅ Training complete! Final loss: 0.1270\n")


def test_error(status, file):
    pulse.write_error_status(file, "CUDA out of memory")
    result = status(file)
    assert (result.returncode, result.stdout) == (EXIT["error"], "❌ CUDA out of memory\n")


def test_idle(status, file):
    pulse.write_idle_status(file)
    result = status(file)
    assert (result.returncode, result.stdout) == (EXIT["ok"], "⏸️ No training in progress\nWaiting to start...\n")


@pytest.mark.parametrize("arguments", [[], ["none.json"], ["nowhere/training_status.json"]])
def test_no_training_at_all_is_no_error(status, arguments):
    result = status(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (EXIT["ok"], "⏸️ No training in progress\n", "")


def test_stale(status, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    aged(file, 70)
    before = file.read_bytes(), file.stat()
    result = status(file)
    assert (result.returncode, result.stdout) == (EXIT["stale"], "❌ Process unresponsive (stale pulse)\n")
    assert result.stderr == "bitctl: warning: Training status is stale (>60s), converting to error\n"
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (before[0], before[1].st_mtime_ns), "never written back"
    aged(file, 55)
    assert status(file).returncode == EXIT["ok"]


def test_a_clock_ahead_of_ours(status, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    aged(file, -3600)
    result = status(file)
    assert result.returncode == EXIT["ok"]
    assert "Last update: 0s ago\n" in result.stdout


def test_the_message_of_a_trainer_steers_no_terminal(status, file):
    pulse.write_error_status(file, "\x1b]0;owned\x07\x1b[2J\u202e\u009b31m\r\nfaked")
    assert status(file).stdout == "❌ ^[]0;owned^G^[[2J⟦U+202E⟧⟦U+009B⟧31m^M^Jfaked\n"
    assert status(file, "--json").stdout.isascii()


def test_json(status, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "über")
    result = status(file, "--json")
    assert json.loads(result.stdout) == {"event": "training_status_update", "status": pulse.read(file)}
    assert list(json.loads(result.stdout)["status"]) == list(pulse.FIELDS)
    assert json.loads(status("--json").stdout)["status"]["message"] == "No training in progress"


def text(file):
    file.write_text("no JSON at all\n")


def binary(file):
    file.write_bytes(bytes(range(256)) * 16)


def empty(file):
    file.write_text("")


def cut(file):
    file.write_text('{"status":"running","epoch":1.')


def nan(file):
    file.write_text('{"status":"running","epoch":1,"total_epochs":3,"loss":NaN,"message":"","timestamp":1}')


def old_schema(file):
    file.write_text('{"state":"queued","profile":"default","last_error":null}')


def fifo(file):
    os.mkfifo(file)


def folder(file):
    file.mkdir()


def large(file):
    text(file)
    os.truncate(file, 100_000_000)


def link(file):
    file.symlink_to("/etc/hostname")


@pytest.mark.parametrize("damage", [text, binary, empty, cut, nan, old_schema, fifo, folder, large, link])
@pytest.mark.parametrize("as_run", [False, True])
def test_damaged(status, home, damage, as_run):
    path = make_run(home, "demo-20261121-145703")
    damage(path)
    result = status(*(["demo"] if as_run else [path]), "--json")
    assert (result.returncode, result.stdout) == (EXIT["damaged"], "")
    how = "read" if damage in (fifo, folder, large, link) else "parse"
    assert re.match(rf"bitctl: warning: Failed to {how} training status: {re.escape(str(path))}: ", result.stderr)
    assert (": byte " in result.stderr) == (how == "parse")
    assert result.stderr.count("\n") == 1


def test_the_log_says_what_it_did(status, file):
    pulse.write_done_status(file, 3, 3, 0.1, "m")
    result = status(file, env={"BITCTL_LOG_LEVEL": "info"})
    assert result.stderr.splitlines() == [
        "bitctl: info: Emitting training status: done (epoch 3/3)",
        "bitctl: info: Training finished with status: done",
    ]


def test_verbose_says_each_status_as_it_was_read(status, file):
    pulse.write_done_status(file, 3, 3, 0.1, "\x1b[2J")
    result = status(file, "--verbose")
    lines = result.stderr.splitlines()
    assert lines[0] == "bitctl: info: Emitting training status: done (epoch 3/3)"
    label, _, told = lines[1].partition(": {")
    assert label == "bitctl: debug: [TrainingPanel] Status update"
    assert json.loads("{" + told) == pulse.read(file)
    assert "[TrainingPanel]" not in status(file).stderr


def test_unknown_keys_warn(status, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_text('{"status":"idle","epoch":0,"total_epochs":0,"loss":0,"message":"","timestamp":1,"progress":5}')
    result = status(path)
    assert result.returncode == EXIT["ok"]
    assert result.stderr == "bitctl: warning: Keys that PULSE v1 does not know are ignored: progress\n"


# Which run.


def test_a_run_by_its_id_its_beginning_or_its_folder(status, home):
    first = make_run(home, "demo-20261121-145703", {"profile": "lora", "dataset": "chitchat"})
    second = make_run(home, "other-20261122-000000")
    pulse.write_running_status(first, 1, 3, 0.5, "first")
    pulse.write_running_status(second, 1, 3, 0.5, "second")
    for name in ("demo-20261121-145703", "de", "runs/demo-20261121-145703", first.parent, first):
        result = status(name)
        assert "first\n" in result.stdout
        assert result.stdout.startswith("Profile: lora\nDataset: chitchat\n")
    assert "second\n" in status().stdout
    (home / "runs" / "latest").symlink_to("demo-20261121-145703")
    assert "first\n" in status().stdout


def test_a_run_that_is_not_there_or_not_the_only_one(status, home):
    make_run(home, "demo-20261121-145703")
    make_run(home, "demo-20261122-145703")
    result = status("nosuch")
    assert result.returncode == EXIT["no such run"]
    assert f"no run \"nosuch\": looked in {home}/runs and {home.parent}/state/bitctl/runs" in result.stderr
    result = status("demo")
    assert result.returncode == EXIT["no such run"]
    assert "demo-20261122-145703, demo-20261121-145703" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody at all")
def test_a_user_without_a_home(bitctl):
    env = {"PATH": os.environ["PATH"]}
    result = subprocess.run([bitctl, "status"], cwd="/", env=env, user=54321, capture_output=True, text=True)
    assert result.returncode == 125
    assert "Failed to get app data dir: this user has no home folder; set HOME or XDG_STATE_HOME" in result.stderr


def test_wrong_arguments(status):
    for arguments in (["a", "b"], ["--interval", "fast"], ["--interval", "0"], ["--timeout", "-1"], ["--nonsense"],
                      ["--interval", "9" * 400]):
        assert status(*arguments).returncode == 2, arguments


def test_a_full_disk_behind_stdout_is_told(bitctl, home, file):
    pulse.write_idle_status(file)
    with open("/dev/full", "w") as full:
        result = subprocess.run([bitctl, "status", file], stdout=full, stderr=subprocess.PIPE, text=True,
                                env=environment(home))
    assert result.returncode == 125
    assert "Failed to emit status: cannot write stdout: No space left on device" in result.stderr


# Following.


class Follow:
    """A `bitctl status --follow` in flight, its stdout a pipe."""

    def __init__(self, bitctl, home, *arguments, **more):
        self.process = subprocess.Popen([bitctl, "status", "--follow", *map(str, arguments)], cwd=home,
                                        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, **more)

    def line(self):
        """The next line; fails rather than waits for ever."""
        assert select.select([self.process.stdout], [], [], WAIT)[0], "nothing was told"
        return self.process.stdout.readline()

    def status(self):
        event = json.loads(self.line())
        assert set(event) == {"event", "status"} and event["event"] == "training_status_update"
        return event["status"]

    def end(self):
        """Exit code, the rest of stdout, stderr."""
        out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out, err


@pytest.fixture
def follow(bitctl, home):
    follows = []

    def start(*arguments, **more):
        follows.append(Follow(bitctl, home, *arguments, **more))
        return follows[-1]

    yield start
    for one in follows:
        one.process.kill()
        one.process.communicate()


TRAINER = """
    import sys
    from bitctl.pulse import Pulse
    with Pulse(sys.argv[1], 3) as run:
        for step in range(1, 4):
            assert sys.stdin.readline()
            run._written_at = 0  # every step, not one a second
            run.update(step, 1 / step, f"epoch {step}/3")
        if "fail" in sys.argv:
            raise MemoryError("CUDA out of memory")
"""


def start_trainer(file, *arguments):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(TRAINER), file, *arguments], text=True,
                            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            env={**os.environ, "PYTHONPATH": str(ROOT / "python")})


@pytest.mark.parametrize("fails", [False, True])
def test_a_whole_training(follow, file, fails):
    reader = follow(file, "--json")
    trainer = start_trainer(file, *(["fail"] if fails else []))
    assert reader.status()["message"] == "Starting…"
    for step in range(1, 4):
        print(step, file=trainer.stdin, flush=True)
        if step < 3:
            assert reader.status()["epoch"] == step
    code, out, _ = reader.end()
    last = json.loads(out.splitlines()[-1])["status"]
    assert trainer.wait(WAIT) == (1 if fails else 0)
    trainer.stdin.close()
    if fails:
        assert (code, last["status"], last["message"]) == (EXIT["error"], "error", "MemoryError: CUDA out of memory")
    else:
        assert (code, last["status"], last["epoch"]) == (EXIT["ok"], "done", 3)
    assert last["loss"] == 1 / 3


def test_lines_off_a_terminal(follow, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "epoch 2/3")
    reader = follow(file)
    assert reader.line().startswith("Epoch 1.5 / 3 (50.0%) · Loss: 0.3420 · epoch 2/3 · Last update: ")
    pulse.write_idle_status(file, "stopped at step 480 (resumable)")
    assert reader.end() == (EXIT["ok"], "⏸️ No training in progress: stopped at step 480 (resumable)\n", "")


def test_an_end_that_is_there_already(follow, file):
    pulse.write_done_status(file, 3, 3, 0.1, "m")
    assert follow(file).end()[0] == EXIT["ok"]
    pulse.write_error_status(file, "broken")
    assert follow(file).end()[0] == EXIT["error"]


def test_a_process_that_falls_silent(follow, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    aged(file, 59)
    reader = follow(file, "--json", "--interval", "0.1")
    assert reader.status()["status"] == "running"
    code, out, err = reader.end()
    last = json.loads(out)["status"]
    assert code == EXIT["stale"]
    assert (last["status"], last["message"]) == ("error", "Process unresponsive (stale pulse)")
    assert "Training status is stale (>60s), converting to error" in err


def test_a_file_that_is_lost_is_still_aged(follow, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    aged(file, 57)
    reader = follow(file, "--json", "--interval", "0.1")
    assert reader.status()["status"] == "running"
    file.unlink()
    code, _, err = reader.end()
    assert code == EXIT["stale"]
    assert "Training status file unreadable, using cached status: running" in err


def test_a_run_that_does_not_exist_yet(screen, home):
    terminal = screen("--interval", "0.05", columns=200)
    terminal.until(f"waiting for {home}/runs/latest/training_status.json\r\n")
    path = make_run(home, "demo-20261121-145703", {"profile": "lora"})
    (home / "runs" / "latest").symlink_to(path.parent.name)
    pulse.write_running_status(path, 1, 3, 0.1, "m")
    terminal.until("Profile: lora")
    pulse.write_done_status(path, 3, 3, 0.1, "m")
    assert terminal.process.wait(WAIT) == EXIT["ok"]


def test_patience_has_an_end(follow, file):
    code, out, err = follow(file, "--timeout", "0.2").end()
    assert (code, out) == (EXIT["timeout"], "")
    assert "the training has not ended within 0.2s" in err


def test_ctrl_c(follow, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    reader = follow(file)
    reader.line()
    reader.process.send_signal(signal.SIGINT)
    assert reader.end() == (EXIT["interrupted"], "", "")


def test_a_reader_that_goes_away(follow, file):
    """As in `bitctl status --follow | head -1`: noticed though there is nothing to tell, and no error."""
    reader = follow(file, "--interval", "3600")
    reader.process.stdout.close()
    assert reader.process.wait(WAIT) == EXIT["ok"]
    assert reader.process.stderr.read() == ""


def test_many_readers(follow, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    readers = [follow(file, "--json") for _ in range(8)]
    for reader in readers:
        assert reader.status()["status"] == "running"
    pulse.write_done_status(file, 3, 3, 0.1, "m")
    for reader in readers:
        code, out, err = reader.end()
        assert (code, json.loads(out)["status"]["status"], err) == (EXIT["ok"], "done", "")


# On a terminal.


class Screen:
    """A `bitctl status --follow` whose stdout and stderr are a terminal."""

    def __init__(self, bitctl, home, *arguments, env=None, columns=60):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen([bitctl, "status", "--follow", *map(str, arguments)], cwd=home, stdin=slave,
                                        stdout=slave, stderr=slave, env=environment(home, env), start_new_session=True)
        os.close(slave)
        self.text = ""

    def until(self, wanted):
        """Reads until `wanted` has appeared after what was read before; gives what was read."""
        got, deadline = "", time.monotonic() + WAIT
        while wanted not in got:
            assert time.monotonic() < deadline, f"{wanted!r} never came: {got!r}"
            if select.select([self.master], [], [], 1)[0]:
                got += os.read(self.master, 65536).decode()
        self.text += got
        return got

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def screen(bitctl, home):
    screens = []

    def start(*arguments, **more):
        screens.append(Screen(bitctl, home, *arguments, **more))
        return screens[-1]

    yield start
    for one in screens:
        one.close()


def test_the_panel_is_drawn_over_itself(screen, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "epoch 2/3")
    terminal = screen(file)
    assert "\x1b[32m█" in terminal.until("s ago\r\n")
    pulse.write_running_status(file, 2.25, 3, 0.2, "日本" * 40)
    drawn = terminal.until("Epoch 2.25 / 3 (75.0%)") + terminal.until("s ago\r\n")
    assert "\x1b[7A\r\x1b[J" in drawn
    assert "日本" * 14 + "日…\r\n" in drawn, "cut to the width of the window"
    pulse.write_done_status(file, 3, 3, 0.1, "m")
    terminal.until("✅ Training complete! Final loss: 0.1000")
    assert terminal.process.wait(WAIT) == EXIT["ok"]


def test_the_age_grows_by_itself(screen, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    terminal = screen(file, "--interval", "3600")
    terminal.until("Last update: 0s ago")
    terminal.until("Last update: 1s ago")
    terminal.until("Last update: 2s ago")


def test_no_color(screen, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    terminal = screen(file, env={"NO_COLOR": "1"})
    terminal.until("s ago")
    pulse.write_error_status(file, "broken")
    terminal.until("❌ broken")
    assert re.findall(r"\x1b\[\d+m", terminal.text) == []
    assert terminal.process.wait(WAIT) == EXIT["error"]


def test_a_dumb_terminal_gets_lines(screen, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    terminal = screen(file, env={"TERM": "dumb"})
    terminal.until("Epoch 1.5 / 3 (50.0%) · Loss: 0.3420 · m · Last update: ")
    assert "\x1b" not in terminal.text


def test_it_says_what_it_waits_for(screen, file):
    terminal = screen(file, "--interval", "0.1", columns=200)
    terminal.until(f"waiting for {file}\r\n")
    pulse.write_done_status(file, 3, 3, 0.1, "m")
    terminal.until("✅ Training complete!")


def test_a_warning_does_not_run_into_the_panel(screen, file):
    pulse.write_running_status(file, 1.5, 3, 0.342, "m")
    aged(file, 50)
    terminal = screen(file, "--interval", "0.1", columns=200)
    terminal.until("s ago\r\n")
    good = file.read_bytes()
    file.write_text("{")
    got = terminal.until("using cached status: running\r\n")
    file.write_bytes(good)
    assert "\x1b[7A\r\x1b[Jbitctl: warning: Failed to parse training status: " in got
    terminal.until("Profile: Unknown")
