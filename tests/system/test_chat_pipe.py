"""bitctl chat without a terminal: stdin is the prompt, stdout the answer, the rest is on stderr."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from byte_model import FAKE_CHAT, write_byte_model



@pytest.fixture
def model(tmp_path):
    return write_byte_model(tmp_path / "tiny")


def chat(*arguments, stdin="", **environment):
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, **environment}
    return subprocess.run(
        [FAKE_CHAT, "chat", *map(str, arguments)], input=stdin, env=env, capture_output=True, text=True, timeout=300
    )


def test_stdin_is_the_prompt_and_stdout_the_answer(model):
    done = chat(model, stdin="two\nlines, 漢字 👍\n")
    assert (done.returncode, done.stdout) == (0, "You said: two\nlines, 漢字 👍\n")
    assert done.stderr.splitlines()[-1] == "✓ tiny ready"
    assert "\x1b" not in done.stdout + done.stderr


def test_an_answer_as_an_option(model):
    assert chat(model, "-p", "hello").stdout == "You said: hello\n"
    assert chat(model, "-p", "sum this up:", stdin="a text").stdout == "You said: sum this up:\na text\n"
    assert chat(model / "model.safetensors", "-p", "file").stdout == "You said: file\n"


def test_an_answer_has_a_limit(model):
    assert chat(model, "-p", "hello", "--max-new-tokens", "3", FAKE_ENDLESS="1").stdout == "You\n"


def test_sampling_repeats_with_its_seed(model):
    assert chat(model, "-p", "hello", "--temperature", "0.01", "--seed", "1").stdout == "You said: hello\n"
    wild = [chat(model, "-p", "x", "--temperature", "5", "--seed", seed, "--max-new-tokens", "40").stdout
            for seed in ("1", "1", "2")]
    assert wild[0] == wild[1] != wild[2]


@pytest.mark.parametrize("argument", [["--temperature", "-1"], ["--top-p", "1.5"], ["--max-new-tokens", "0"],
                                      ["--lock-timeout", "soon"], ["--colour"]])
def test_wrong_arguments(model, argument):
    done = chat(model, "-p", "x", *argument)
    assert (done.returncode, done.stdout) == (2, "")
    assert argument[0] in done.stderr


def test_no_prompt_is_a_wrong_use(model):
    done = chat(model, stdin=" \n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no prompt" in done.stderr


def test_a_failed_load_is_one_line_and_code_1(tmp_path):
    done = chat(tmp_path / "nowhere", stdin="x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"bitctl: ✗ Failed: {tmp_path}/nowhere: no such file, folder or run"


def test_offline_without_the_model(tmp_path):
    done = chat(tmp_path / "nowhere", "--offline", stdin="x")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "bitctl: ⚠ Offline mode - model not available"


def test_no_wait_fails_with_model_not_ready(model):
    done = chat(model, "-p", "x", "--no-wait")
    assert (done.returncode, done.stdout) == (1, "")
    assert "model_not_ready" in done.stderr


def test_a_missing_python_and_a_missing_package(model, tmp_path):
    done = chat(model, "-p", "x", BITCTL_PYTHON="/no/python")
    assert done.returncode == 1 and "BITCTL_PYTHON=/no/python: no such program" in done.stderr
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizers.py").write_text("raise ModuleNotFoundError(name='tokenizers')")
    done = chat(model, "-p", "x", PYTHONPATH=str(tmp_path / "broken"))
    assert done.returncode == 1
    assert f"the Python package tokenizers is missing: {sys.executable} -m pip install tokenizers" in done.stderr


def test_modules_of_the_current_folder_are_not_taken_for_the_workers(model, tmp_path, monkeypatch):
    (tmp_path / "tokenizers.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "bitctl").mkdir()
    monkeypatch.chdir(tmp_path)
    assert chat(model, "-p", "hello").stdout == "You said: hello\n"


def test_a_failing_decoder(model):
    done = chat(model, "-p", "boom")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "bitctl: the fake decoder was told to fail"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("where", ["reading", "loading", "answering"])
def test_signals_end_it(model, tmp_path, number, code, where):
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, "FAKE_ENDLESS": "1", "FAKE_TOKEN_MS": "1",
           "FAKE_GATE": str(tmp_path / "gate") if where == "loading" else ""}
    argv = [FAKE_CHAT, "chat", str(model), *([] if where == "reading" else ["-p", "x"])]
    stdin = subprocess.PIPE if where == "reading" else subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    if where == "loading":
        while "Loading" not in process.stderr.readline().decode():
            pass
    elif where == "answering":
        assert process.stdout.read(9) == b"You said:"
    else:
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        while not open(children).read():  # it has set itself up once its worker runs
            time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == code


def test_a_reader_that_goes_away_ends_it_quietly(model):
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, "FAKE_ENDLESS": "1"}
    done = subprocess.run(f"'{FAKE_CHAT}' chat '{model}' -p x --max-new-tokens 1000000 | head -c 5", shell=True, env=env,
                          capture_output=True, timeout=300)
    assert done.stdout == b"You s"
    assert b"rror" not in done.stderr


def test_on_a_terminal_the_answer_of_p_is_made_visible(model):
    master, slave = pty.openpty()
    env = {**os.environ, "BITCTL_PYTHON": sys.executable}
    subprocess.run([FAKE_CHAT, "chat", str(model), "-p", "\x1b]52;c;eA==\x07"], stdin=subprocess.DEVNULL, stdout=slave,
                   stderr=subprocess.DEVNULL, env=env, timeout=300, check=True)
    os.close(slave)
    assert os.read(master, 4096) == b"You said: ^[]52;c;eA==^G\r\n"
    os.close(master)


def test_the_same_prompt_through_a_pipe_is_not_changed(model):
    assert chat(model, "-p", "\x1b[31mred").stdout == "You said: \x1b[31mred\n"
