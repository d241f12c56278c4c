"""`bitctl attach`: the view of a run that is in progress, and what Ctrl-C asks there."""

import os
import signal
import subprocess
import sys

import pytest
import runs
from pty_program import PtyProgram
from runs import wait_for

CTRL_C = "\x03"


@pytest.fixture
def told(start, tmp_path):
    """A run in the background that reports steps until the file `word` tells it how to end."""
    config = runs.config(tmp_path, "told.py", [tmp_path / "word"])
    run = start("train", "-d", "--no-restart", config)
    assert run.wait() == 0, run.text()
    run.word = tmp_path / "word"
    run.wait_step(3)
    return run


@pytest.fixture
def attach(bitctl, told, tmp_path):
    """`bitctl attach` on a terminal."""
    terminal = PtyProgram([bitctl, "attach", str(told.path)], env=runs.environment(tmp_path), columns=120)
    yield terminal
    terminal.close()


def ask(terminal):
    terminal.expect("Last update: ")
    terminal.type(CTRL_C)
    terminal.expect("stop (s), detach (d), go on (any other key)?")


def in_progress(run):
    return runs.alive(run.supervisor())


@pytest.mark.parametrize("word, code, last", [("0", 75, "resume: bitctl resume test-"), ("42", 42, "why:   bitctl why test-"),
                                              ("raise ValueError('no loss')", 1, "ValueError: no loss"),
                                              ("os.kill(os.getpid(), 11)", 139, "killed by SIGSEGV")])
def test_off_a_terminal_lines_until_the_end_and_the_code_of_train(told, start, word, code, last):
    attached = start("attach", told.path)
    wait_for(lambda: "attached to %s" % told.path in attached.output.read_text(), "the first line")
    wait_for(lambda: " step " in attached.output.read_text(), "a line of progress")
    told.word.write_text(word)
    assert attached.wait() == code
    assert last in attached.output.read_text()
    assert "\x1b" not in attached.output.read_text()


def test_a_model_with_its_config_is_one_to_talk_to(start, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "train.py").write_text(
        "import bitctl, torch\nrun = bitctl.init()\nmodel = torch.nn.Linear(1, 1)\n"
        "run.restore(model=model, side={'config.json': 'config.json'})\nrun.progress(step=1)\nrun.finish()\n"
    )
    run = start("train", "--", sys.executable, "train.py")
    assert run.wait() == 0, run.text()
    assert "talk:  bitctl chat %s" % run.path.name in run.output.read_text()


def test_of_a_run_that_is_done(start, tmp_path):
    run = start("train", "-d", runs.config(tmp_path, "small.py", [120, "--pause", 0.02]))
    assert run.wait() == 0
    attached = start("attach", run.path)
    assert attached.wait() == 0, attached.output.read_text()
    assert "model: %s/model\n" % run.path in attached.output.read_text()
    assert "talk:" not in attached.output.read_text(), "weights alone are no one to talk to"
    late = start("attach", run.path)
    assert late.wait() == 1
    assert "is not in progress: finished in " in late.output.read_text()
    assert late.output.read_text().count("\n") == 1


def test_the_panel_is_rebuilt_and_grows(attach, told):
    attach.expect("attached to ")
    attach.expect("Epoch ")
    attach.expect("Loss: ")
    told.word.write_text("42")
    assert attach.wait() == 42
    assert attach.terminal_is_as_before()


def test_detach(attach, told):
    ask(attach)
    attach.type("d")
    attach.expect("detached; it goes on: bitctl attach test-")
    assert attach.wait() == 0
    assert in_progress(told) and attach.terminal_is_as_before()


def test_ctrl_c_again_detaches(attach, told):
    ask(attach)
    attach.type(CTRL_C)
    assert attach.wait() == 0
    assert in_progress(told) and attach.terminal_is_as_before()


def test_any_other_key_goes_on(attach, told):
    attach.type("s")  # before it was asked: no answer
    ask(attach)
    attach.type("x")
    attach.expect("it goes on")
    assert attach.terminal_is_as_before()
    assert in_progress(told) and not told.events("stop_requested")
    ask(attach)
    attach.type("d")
    assert attach.wait() == 0


def test_stop(attach, told):
    ask(attach)
    attach.type("s")
    attach.expect("resume: bitctl resume test-")
    assert attach.wait() == 75
    assert told.events("stop_requested")[0]["by"] == "bitctl stop" and attach.terminal_is_as_before()
    assert not in_progress(told)


def test_a_closed_terminal_stops_nothing(attach, told):
    ask(attach)
    attach.kill(signal.SIGHUP)
    assert attach.wait() == 0
    assert in_progress(told)


def test_off_a_terminal_ctrl_c_ends_the_view_alone(told, start):
    attached = start("attach", told.path)
    wait_for(lambda: "attached to " in attached.output.read_text(), "the first line")
    attached.process.send_signal(signal.SIGINT)
    assert attached.wait() == 130
    assert in_progress(told)


def test_a_reader_that_goes_away_ends_the_view(told, bitctl, tmp_path):
    reader, writer = os.pipe()
    attached = subprocess.Popen([bitctl, "attach", told.path], stdout=writer, stdin=subprocess.DEVNULL, env=runs.environment(tmp_path))
    os.close(writer)
    os.close(reader)
    assert attached.wait(runs.DEADLINE) == 0
    assert in_progress(told)


def test_the_supervisors_death_is_told(told, start):
    attached = start("attach", told.path)
    wait_for(lambda: "attached to " in attached.output.read_text(), "the first line")
    os.kill(told.supervisor(), signal.SIGKILL)
    assert attached.wait() == 125
    assert "bitctl itself was killed at step" in attached.output.read_text()
