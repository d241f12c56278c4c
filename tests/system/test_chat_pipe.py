"""bitctl chat without a terminal: stdin is the prompt, stdout the answer, the rest is on stderr."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest
from byte_model import ENDLESS, FAKE_CHAT, write_byte_model


@pytest.fixture
def model(tmp_path):
    return write_byte_model(tmp_path / "tiny")


def configure(model, text):
    (model / "generation_config.json").write_text(text)


def wait_until_gone(pid):
    deadline = time.monotonic() + 120
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, "the text worker lives on"
        time.sleep(0.01)


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


def test_no_more_is_read_than_is_soon_asked(model, tmp_path):
    command = [FAKE_CHAT, "chat", str(model), "--lines"]
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, "FAKE_GATE": str(tmp_path / "open")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        os.set_blocking(process.stdin.fileno(), False)
        taken, quiet_since = 0, time.monotonic()
        while time.monotonic() - quiet_since < 0.5 and taken < 10_000_000:
            try:
                taken += os.write(process.stdin.fileno(), b"hello, hello, hello\n" * 50)
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert 100 * 20 < taken < 1_000_000, "what is not read waits in the pipe"
        (tmp_path / "open").touch()
        for _ in range(150):  # more than it had read
            assert process.stdout.readline() == b"You said: hello, hello, hello\n"
        process.kill()


def test_an_answer_as_an_option(model):
    assert chat(model, "-p", "hello").stdout == "You said: hello\n"
    assert chat(model, "-p", "sum this up:", stdin="a text").stdout == "You said: sum this up:\na text\n"
    assert chat(model / "model.safetensors", "-p", "file").stdout == "You said: file\n"
    assert chat("-p", "named", "--model", model).stdout == "You said: named\n"


def test_an_answer_has_a_limit(model):
    assert chat(model, "-p", "hello", "--max-new-tokens", "3", FAKE_ENDLESS="1").stdout == "You\n"


def test_sampling_repeats_with_its_seed(model):
    assert chat(model, "-p", "hello", "--temperature", "0.01", "--seed", "1").stdout == "You said: hello\n"
    wild = [chat(model, "-p", "x", "--temperature", "5", "--seed", seed, "--max-new-tokens", "40").stdout
            for seed in ("1", "1", "2")]
    assert wild[0] == wild[1] != wild[2]


def test_top_p_and_seed_sample_where_the_model_does_not_say(model):
    def said(*arguments):
        return chat(model, "-p", "x", "--max-new-tokens", "40", *arguments).stdout

    assert said("--seed", "1") == said("--seed", "1", "--temperature", "1") != said()
    assert said("--seed", "1", "--temperature", "0") == said(), "what the user says counts"
    assert said("--top-p", "0.9", "--seed", "1") == said("--top-p", "0.9", "--seed", "1", "--temperature", "1")
    configure(model, '{"do_sample": true, "temperature": 0.01}')
    assert said("--seed", "1") == said("--temperature", "0")


@pytest.mark.parametrize("settings", ['"top_k": 1e30', '"top_k": -1', '"top_k": 1.5', '"top_k": 9223372036854775808',
                                      '"max_new_tokens": 1e30', '"max_new_tokens": -1', '"max_new_tokens": 0',
                                      '"max_new_tokens": 18446744073709551615', '"top_k": "many"', '"top_k": 0'])
@pytest.mark.parametrize("samples", ['"do_sample": true, "temperature": 0.01', '"do_sample": false', '"top_p": 7'])
def test_a_model_s_settings_that_are_no_numbers_of_tokens_count_as_absent(model, settings, samples):
    configure(model, "{%s, %s}" % (samples, settings))
    done = chat(model, "-p", "hello")
    assert (done.returncode, done.stdout) == (0, "You said: hello\n")


def test_a_setting_that_is_no_number_at_all_fails_the_load(model):
    configure(model, '{"temperature": NaN}')
    done = chat(model, "-p", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "bitctl: ✗ Failed: generation_config.json: temperature is not a finite number"
    )


def test_a_fifo_among_the_model_s_files_fails_the_load(model):
    os.mkfifo(model / "generation_config.json")
    done = chat(model, "-p", "hello")
    assert done.returncode == 1 and done.stderr.endswith("generation_config.json: not a regular file\n")


def test_a_text_worker_that_computes_for_ever_ends_with_the_chat(tmp_path):
    model = write_byte_model(tmp_path / "endless", ENDLESS)
    env = {**os.environ, "BITCTL_PYTHON": sys.executable}
    process = subprocess.Popen([FAKE_CHAT, "chat", str(model), "-p", "x"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    while not (worker := open(children).read().split()):
        time.sleep(0.01)
    while int(open(f"/proc/{worker[0]}/stat").read().rpartition(")")[2].split()[11]) < 150:
        time.sleep(0.01)  # it has computed for 1.5 s, so it has begun
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    wait_until_gone(worker[0])


def test_the_context_can_be_made_shorter(model):
    done = chat(model, "-p", "hello", "--max-context", "16")
    assert done.returncode == 1
    assert "tokens and the model takes 16" in done.stderr


@pytest.mark.parametrize("argument", [["--temperature", "-1"], ["--temperature", "nan"], ["--temperature", "hot"],
                                      ["--top-p", "1.5"], ["--top-p", "nan"], ["--max-new-tokens", "0"],
                                      ["--max-context", "0"], ["--lock-timeout", "soon"],
                                      ["--lock-timeout", "9" * 400 + "s"], ["--colour"]])
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
    assert done.stderr.splitlines()[-2:] == [f"{tmp_path}/nowhere: no such file, folder or run",
                                             "bitctl: ⚠ Offline mode - model not available"]


def test_weights_larger_than_the_memory_are_told_with_the_numbers(model):
    os.truncate(model / "model.safetensors", 1 << 43)  # a hole, which takes no disk
    done = chat(model, "-p", "x")
    assert (done.returncode, done.stdout) == (0, "You said: x\n")
    assert "⚠ the weights take 8.0 TiB and " in done.stderr
    done = chat(model, "-p", "x", "--no-mmap")
    assert done.returncode == 1 and "without --no-mmap they stay in the file" in done.stderr
    os.truncate(model / "model.safetensors", 0)
    assert "the weights take" not in chat(model, "-p", "x").stderr


def test_a_name_of_the_hugging_face_cache(model, tmp_path):
    cache = tmp_path / "hub" / "models--org--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("c0ffee")
    (cache / "snapshots" / "c0ffee").mkdir(parents=True)
    for file in model.iterdir():
        (cache / "snapshots" / "c0ffee" / file.name).symlink_to(file)
    done = chat("org/tiny", "-p", "x", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert (done.returncode, done.stdout) == (0, "You said: x\n")
    assert "✓ org/tiny ready" in done.stderr
    done = chat("org/other", "-p", "x", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        f"org/other: no such file, folder or run; not in the Hugging Face cache {tmp_path}/hub",
        "bitctl: ⚠ Offline mode - model not available"]


def test_the_newest_finished_run_is_meant_where_nothing_is_named(model, tmp_path, monkeypatch):
    for name, place in (("a-20260101-000000", "model"), ("b-20260102-000000", "model"),
                        ("c-20260103-000000", "checkpoints/step-000000007")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
        shutil.copytree(model, tmp_path / "runs" / name / place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert "✓ b-20260102-000000 ready" in chat("-p", "x").stderr
    assert "✓ c-20260103-000000 (step 7) ready" in chat("c-", "-p", "x", "--step", "7").stderr
    done = chat("c-", "-p", "x", "--step", "8")
    assert done.returncode == 1 and "no checkpoint of step 8; there are 7" in done.stderr
    for name in ("a-20260101-000000", "b-20260102-000000"):
        shutil.rmtree(tmp_path / "runs" / name / "model")
    assert "✓ c-20260103-000000 (step 7) ready" in chat("-p", "x").stderr


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
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert where != "answering" or out.endswith(b"\n"), "the line that was begun is ended"


def test_a_reader_that_goes_away_ends_it_quietly(model):
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, "FAKE_ENDLESS": "1"}
    done = subprocess.run(f"'{FAKE_CHAT}' chat '{model}' -p x --max-new-tokens 1000000 | head -c 5", shell=True, env=env,
                          capture_output=True, timeout=300)
    assert done.stdout == b"You s"
    assert b"rror" not in done.stderr


def test_an_answer_that_does_not_arrive_is_told(model):
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, "FAKE_ENDLESS": "1"}
    with open("/dev/full", "w") as full:
        done = subprocess.run([FAKE_CHAT, "chat", str(model), "-p", "x"], stdin=subprocess.DEVNULL, stdout=full,
                              stderr=subprocess.PIPE, env=env, text=True, timeout=300)
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1] == "bitctl: cannot write stdout: No space left on device"


@pytest.fixture
def with_open_stdin():
    """Runs the chat with a stdin that stays open until the test closes it."""
    processes = []

    def start(*arguments):
        env = {**os.environ, "BITCTL_PYTHON": sys.executable}
        processes.append(subprocess.Popen([FAKE_CHAT, "chat", *map(str, arguments)], stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_p_says_that_it_waits_for_the_end_of_its_input(model, with_open_stdin):
    process = with_open_stdin(model, "-p", "sum this up:")
    assert process.stderr.readline() == "reading standard input, until its end…\n"
    process.stdin.write("a slow ")
    process.stdin.flush()
    time.sleep(0.1)
    out, _ = process.communicate("text", timeout=120)
    assert (process.returncode, out) == (0, "You said: sum this up:\na slow text\n")


def test_a_failed_load_is_told_while_the_input_is_still_open(tmp_path, with_open_stdin):
    for options in (["-p", "x"], []):
        process = with_open_stdin(tmp_path / "nowhere", *options)
        assert process.wait(timeout=120) == 1
        assert "no such file, folder or run" in process.stderr.read()


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


def test_each_line_is_a_turn_of_one_conversation(model):
    done = chat(model, "--lines", "--verbose", stdin="one\n\ntwo words\r\n/quit\nlast")
    assert done.returncode == 0
    assert done.stdout == "You said: one\nYou said: two words\nYou said: /quit\nYou said: last\n"
    reused = [int(line.split(", ")[-1].split(" of ")[0]) for line in done.stderr.splitlines() if "reused" in line]
    assert reused[0] == 0 < reused[1] < reused[2] < reused[3], "the control: each turn goes on from those before"


def test_a_turn_that_fails_is_code_1_and_the_others_are_answered(model):
    done = chat(model, "--lines", stdin="one\nboom\ntwo\n")
    assert (done.returncode, done.stdout) == (1, "You said: one\n\nYou said: two\n")
    assert "bitctl: the fake decoder was told to fail" in done.stderr.splitlines()


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_messages_in_and_events_out(model):
    messages = [{"role": "system", "content": "brief"}, {"role": "user", "content": "a\nb 漢字"},
                {"role": "user", "content": "c"}]
    done = chat(model, "--jsonl", stdin="\n".join(map(json.dumps, messages)))
    assert done.returncode == 0 and done.stderr == ""
    all_events = events(done)
    assert [event["state"] for event in all_events if event["event"] == "state"] == ["loading", "ready"]
    assert [event["reason"] for event in all_events if event["event"] == "queued"] == ["model_not_ready"]
    answers = [event for event in all_events if event["event"] == "answer"]
    assert [answer["content"] for answer in answers] == ["You said: a\nb 漢字", "You said: c"]
    assert [answer["stop"] for answer in answers] == ["end_of_turn"] * 2
    assert answers[1]["reused_tokens"] > len("brief") + answers[0]["new_tokens"]
    first = all_events[:all_events.index(answers[0])]
    assert "".join(event["text"] for event in first if event["event"] == "text") == answers[0]["content"]


@pytest.mark.parametrize("line, reason", [("hello", "byte 0: "), ('{"role": "user"}', "not a message"), ("[]", "not a message"),
                                          ('{"role": "tool", "content": "x"}', "not a message"),
                                          ('{"role": "user", "content": 1}', "not a message"),
                                          ('{"role": "user", "content": "x", "seed": 1}', "not a message")])
def test_a_line_that_is_no_message(model, line, reason):
    done = chat(model, "--jsonl", stdin='{"role": "system", "content": ""}\n' + line + "\n")
    assert done.returncode == 2
    assert done.stderr.startswith("bitctl: line 2: " + reason) and done.stderr.count("\n") == 1


def test_a_failure_is_an_event_too(model, tmp_path):
    done = chat(model, "--jsonl", "--no-wait", stdin='{"role": "user", "content": "x"}\n', FAKE_GATE=str(tmp_path / "gate"))
    assert done.returncode == 1
    assert [event["reason"] for event in events(done) if event["event"] == "refused"] == ["model_not_ready"]
    done = chat(model, "--jsonl", stdin='{"role": "user", "content": "boom"}\n')
    assert done.returncode == 1
    assert [(event["stop"], event["reason"]) for event in events(done) if event["event"] == "answer"] == [
        ("error", "the fake decoder was told to fail")]
    done = chat(tmp_path / "nowhere", "--jsonl", stdin='{"role": "user", "content": "x"}\n')
    assert done.returncode == 1
    assert [event["state"] for event in events(done) if event["event"] == "state"] == ["failed"]


def test_one_way_to_give_the_prompt(model):
    for arguments in (["--lines", "-p", "x"], ["--jsonl", "-p", "x"], ["--lines", "--jsonl"]):
        assert chat(model, *arguments).returncode == 2


def test_an_answer_goes_on_with_the_conversation_that_was_begun_last(model, tmp_path):
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    done = chat(model, "-p", "x", "--continue", **state)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"bitctl: no conversation to go on with in {tmp_path}/state/bitctl/chats"
    assert chat(model, "-p", "x", **state).returncode == 0
    assert not (tmp_path / "state").exists(), "what a script asks is not kept"
    (tmp_path / "state" / "bitctl" / "chats").mkdir(parents=True)
    (tmp_path / "state" / "bitctl" / "chats" / "20260101-000000.jsonl").write_text(
        '{"type": "message", "role": "user", "content": "a"}\n{"type": "message", "role": "assistant", "content": "b"}\n')
    short = chat(model, "-p", "x", "--verbose")
    more = chat(model, "-p", "x", "--continue", "--verbose", **state)
    prompt_tokens = [int(done.stderr.split(" prompt tokens")[0].split()[-1]) for done in (short, more)]
    assert prompt_tokens[0] < prompt_tokens[1] and more.stdout == "You said: x\n"


def test_a_full_context_leaves_the_oldest_out_or_stops_and_says_so(model):
    prompts = "".join(f"prompt number {n}\n" for n in range(8))
    done = chat(model, "--lines", "--max-context", "400", "--max-new-tokens", "50", stdin=prompts)
    assert done.returncode == 0
    assert done.stdout == "".join(f"You said: prompt number {n}\n" for n in range(8))
    assert "% of the context is used (" in done.stderr
    assert "⚠ the context is full: the oldest 2 messages are left out from here on" in done.stderr
    done = chat(model, "--lines", "--max-context", "400", "--max-new-tokens", "50", "--context", "stop", stdin=prompts)
    assert done.returncode == 1
    assert "left out" not in done.stderr and "tokens and the model takes 400; /clear begins a new one" in done.stderr
    done = chat(model, "--lines", "--max-context", "40000", "--max-new-tokens", "50", stdin=prompts)
    assert "context" not in done.stderr, "the control"
