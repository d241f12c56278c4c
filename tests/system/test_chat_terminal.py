"""bitctl chat on a terminal, with a decoder that answers "You said: …"."""

import json
import os
import re
import shutil
import signal
import statistics
import sys
import time

import pytest
from byte_model import ENDLESS, FAKE_CHAT, SOMETIMES_ENDLESS, write_byte_model
from pty_program import PATIENCE, PtyProgram

KITTY = {b"\x1b[?u": b"\x1b[?1u\x1b[?62c"}
XTERM = {b"\x1b[c": b"\x1b[?64;1c"}
PROMPT = re.compile(rb"> (\x1b\[2m)?")
LEAVE_HINT = "Ctrl+D or /quit leaves"


@pytest.fixture
def model(tmp_path):
    return write_byte_model(tmp_path / "tiny")


@pytest.fixture
def start(model, tmp_path):
    """start(*arguments, path=…, answers=…, wrapper=…, **environment) runs the chat on a terminal."""
    running = []

    def start_chat(*arguments, path=model, answers=XTERM, wrapper=(), **environment):
        env = {"BITCTL_PYTHON": sys.executable, "XDG_STATE_HOME": str(tmp_path / "state"), **environment}
        program = PtyProgram([*wrapper, FAKE_CHAT, "chat", str(path), *arguments], env, answers)
        running.append(program)
        return program

    yield start_chat
    for program in running:
        program.close()


@pytest.fixture
def ready(start):
    def start_ready(*arguments, **options):
        program = start(*arguments, **options)
        program.expect("✓ tiny ready")
        return program

    return start_ready


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid):
    deadline = time.monotonic() + PATIENCE
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def expect_rows(program, *rows):
    """Each row begins behind a line break, or where the unfinished row is written again."""
    for row in rows:
        program.expect(re.compile(rb"(\n|\x1b\[J)" + re.escape(row.encode()) + rb"\r"))


def leave(program):
    program.type("\x04")
    assert program.wait() == 0
    assert program.terminal_is_as_before()


def test_a_conversation(ready):
    chat = ready("--verbose")
    chat.send("hello")
    chat.expect("You said: hello")
    chat.expect(re.compile(rb"\[15 tokens, .* 0 of \d+ prompt tokens reused\]"))
    chat.type("two\rlines\x1b\r")  # Enter breaks the line, Alt+Enter sends
    expect_rows(chat, "You said: two", "lines")
    reused = chat.expect(re.compile(rb"(\d+) of (\d+) prompt tokens reused"))
    assert 0 < int(reused[1]) < int(reused[2])
    leave(chat)


def test_the_prompt_is_there_before_anything_is_loaded(start, tmp_path):
    chat = start("--verbose", FAKE_GATE=str(tmp_path / "gate"))
    chat.expect(PROMPT)
    chat.expect(re.compile(rb"\[REPL ready in \d+ms\]"))
    chat.expect("⏳ Loading model...")
    while "Loading tiny... [=====>    ] 45% (0.0GB / 0.0GB)" not in chat.output.decode(errors="replace"):
        chat.send("/status")
        chat.expect("conversation: 0 messages")
    chat.send("/help")
    chat.expect("/retry")
    leave(chat)  # at once, although the loader's thread is still held


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_thread_no_process_and_no_file_of_the_model_comes_before_the_prompt(start, model, tmp_path):
    trace = tmp_path / "trace"
    calls = "trace=write,clone,clone3,vfork,openat"
    chat = start(wrapper=[shutil.which("strace"), "-f", "-s", "200", "-o", str(trace), "-e", calls])
    chat.expect("✓ tiny ready")
    leave(chat)
    lines = trace.read_text(errors="replace").splitlines()
    prompt = next(n for n, line in enumerate(lines) if "Type a message..." in line)
    started = [n for n, line in enumerate(lines) if re.search(r" (clone3?|vfork)\(", line)]
    opened = [n for n, line in enumerate(lines) if str(model) in line]
    assert len(started) >= 3, "the control: the generator, the loader and the text worker are started, later"
    assert opened, "the control: the worker opens the model's files, later"
    assert prompt < min(started) and prompt < min(opened)


def test_while_loading_is_held_echo_is_immediate_and_prompts_are_answered_in_order(start, tmp_path):
    gate = tmp_path / "gate"
    chat = start(FAKE_GATE=str(gate))
    chat.expect("⏳ Loading model...")
    began = time.monotonic()
    delays = []
    for prompt in ("first question", "second, 漢字 and 👍", "third"):
        for length in range(1, len(prompt) + 1):
            typed = time.monotonic()
            chat.type(prompt[length - 1])
            chat.expect(f"> {prompt[:length]}\x1b[K")  # the row as it is drawn now
            delays.append(time.monotonic() - typed)
        chat.type("\n")
        chat.expect("⏳ Loading tiny...")
    assert "You said" not in chat.output.decode()
    assert not gate.exists(), "all of that was echoed and queued while loading was held"
    print(f"echo: median {statistics.median(delays) * 1e3:.1f} ms, max {max(delays) * 1e3:.1f} ms")
    while time.monotonic() < began + 5:
        chat.rest(0.1)
    gate.touch()
    chat.expect("✓ tiny ready")
    chat.expect("✓ Model ready - future queries will use local generation")
    chat.expect("You said: first question")
    chat.expect("You said: second, 漢字 and 👍")
    chat.expect("You said: third")
    leave(chat)


def test_no_wait_fails_with_model_not_ready(start, tmp_path):
    chat = start("--no-wait", FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading model...")
    chat.send("hello")
    chat.expect("model_not_ready: Loading tiny...")
    (tmp_path / "gate").touch()
    chat.expect("✓ tiny ready")
    assert "You said" not in chat.rest()
    chat.send("again")
    chat.expect("You said: again")
    leave(chat)


def test_a_failed_load_leaves_the_prompt_alive_and_retry_loads_what_came(start, tmp_path):
    chat = start(path=tmp_path / "later")
    chat.expect("✗ Failed: ")
    chat.expect("later: no such file, folder or run")
    chat.send("hello")
    chat.expect("load_failed: ✗ Failed: ")
    write_byte_model(tmp_path / "later")
    chat.send("/retry")
    chat.expect("✓ later ready")
    chat.type("\x1b[A\x1b[A")  # the prompt that failed is still at hand
    chat.expect("hello")
    chat.type("\n")
    chat.expect("You said: hello")
    chat.send("/retry")
    chat.expect("nothing has failed")
    leave(chat)


def test_a_model_without_its_tokenizer_says_so_and_retry_finds_it(start, model):
    content = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").unlink()
    chat = start()
    chat.expect("tokenizer.json is missing: save the tokenizer beside the model")
    (model / "tokenizer.json").write_text(content)
    chat.send("/retry")
    chat.expect("✓ tiny ready")
    leave(chat)


def test_the_death_of_the_text_worker_is_an_event(ready):
    chat = ready()
    [worker] = chat.children()
    os.kill(worker, signal.SIGKILL)
    chat.expect("✗ Failed: the text worker ended (SIGKILL)")
    chat.send("/retry")
    chat.expect("✓ tiny ready")
    chat.send("hello")
    chat.expect("You said: hello")
    leave(chat)


def test_the_text_worker_dies_while_the_weights_load(start, tmp_path):
    chat = start(FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading ")
    [worker] = chat.children()
    os.kill(worker, signal.SIGKILL)
    chat.expect("✗ Failed: the text worker ended (SIGKILL)")
    chat.send("/retry")
    (tmp_path / "gate").touch()
    chat.expect("✓ tiny ready")
    chat.send("hello")
    chat.expect("You said: hello")
    leave(chat)


def test_a_decoder_that_died_is_opened_anew_by_retry(ready):
    chat = ready()
    chat.send("die now")
    chat.expect("✗ the fake decoder died")
    chat.expect("✗ Failed: the fake decoder died")
    chat.send("hello")
    chat.expect("load_failed: ✗ Failed: the fake decoder died")
    chat.send("/retry")
    chat.expect("✓ tiny ready")
    chat.send("hello")
    chat.expect("You said: hello")
    leave(chat)


def test_the_text_worker_dies_in_the_middle_of_an_answer(ready):
    chat = ready(FAKE_ENDLESS="1", FAKE_TOKEN_MS="2")
    chat.send("x")
    chat.expect("You said: x - You said")
    [worker] = chat.children()
    os.kill(worker, signal.SIGKILL)
    chat.expect("✗ Failed: the text worker ended (SIGKILL)")
    chat.expect("✗ the text worker ended")
    chat.send("/retry")
    chat.expect("✓ tiny ready")
    chat.send("y")
    chat.expect("You said: y - You said")
    chat.type("\x03")
    chat.expect("[interrupted]")
    leave(chat)


def test_nothing_is_left_when_the_chat_is_killed(ready):
    chat = ready()
    [worker] = chat.children()
    chat.kill(signal.SIGKILL)
    assert chat.wait() == -signal.SIGKILL
    wait_until_gone(worker)


def test_control_c_stops_the_answer_and_nothing_else(ready):
    chat = ready(FAKE_ENDLESS="1", FAKE_TOKEN_MS="2")
    chat.send("x")
    chat.expect("You said: x - You said")
    chat.type("typed meanwhile")
    chat.expect("typed meanwhile")
    chat.type("\x1b[99;5u")  # as kitty's protocol sends Ctrl+C
    chat.expect("[interrupted]")
    chat.type("\x03")  # now it clears the text
    chat.expect("Type a message...")
    chat.type("\x03\x03")
    chat.expect(LEAVE_HINT)
    chat.send("y")
    chat.expect("You said: y - ")
    chat.type("\x03")
    chat.expect("[interrupted]")
    leave(chat)


def test_control_c_ends_a_turn_whose_prompt_is_still_being_rendered(ready, tmp_path):
    write_byte_model(tmp_path / "tiny", SOMETIMES_ENDLESS)
    chat = ready()
    [worker] = chat.children()
    chat.send("forever")
    expect_rows(chat, "> forever")
    chat.send("hello")
    chat.type("\x03")
    chat.expect("[interrupted]")
    wait_until_gone(worker)
    chat.expect("You said: hello")  # by the worker's successor
    chat.send("again")
    chat.expect("You said: again")
    leave(chat)


@pytest.mark.parametrize("end", ["/quit\n", "\x04"])
@pytest.mark.parametrize("when", ["loading", "rendering"])
def test_a_text_worker_that_computes_for_ever_ends_with_the_chat(start, tmp_path, when, end):
    chat = start(path=write_byte_model(tmp_path / "tiny", ENDLESS if when == "loading" else SOMETIMES_ENDLESS))
    if when == "loading":
        chat.expect("⏳ Loading model...")
    else:
        chat.expect("✓ tiny ready")
        chat.send("forever")
        expect_rows(chat, "> forever")
    [worker] = chat.children()
    used = f"/proc/{worker}/stat"
    while int(open(used, encoding="utf-8").read().rpartition(")")[2].split()[11]) < 150:
        time.sleep(0.01)  # until it has computed for 1.5 s
    chat.type(end)
    assert chat.wait() == 0
    wait_until_gone(worker)


def test_a_paste_without_an_end_does_not_swallow_control_c_for_ever(ready):
    chat = ready()
    chat.type("\x1b[200~half a paste")
    chat.expect("half a paste")
    chat.type("\x03")
    chat.expect("Type a message...")
    leave(chat)


def test_log_lines_stand_above_the_prompt(start, tmp_path):
    chat = start(BITCTL_LOG_LEVEL="info", FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading model...")
    chat.type("one")
    chat.expect("> one")
    chat.type("\n")
    chat.expect("\x1b[2mbitctl: info: prompt deferred reason=model_not_ready\x1b[22m")
    (tmp_path / "gate").touch()
    chat.expect("You said: one")
    leave(chat)


def test_log_lines_go_to_a_stderr_that_is_no_terminal(start, tmp_path):
    log = tmp_path / "log"
    chat = start(wrapper=["/bin/sh", "-c", f"exec \"$@\" 2>'{log}'", "sh"], BITCTL_LOG_LEVEL="info",
                 FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading model...")
    chat.send("one")
    chat.expect("⏳ Loading tiny...")
    assert log.read_text() == "bitctl: info: prompt deferred reason=model_not_ready\n"
    leave(chat)


def test_prompts_wait_while_an_answer_is_made_and_can_be_dropped(start, tmp_path):
    chat = start(FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading model...")
    chat.send("one")
    chat.send("two")
    chat.expect("> two")
    chat.type("\x03")
    chat.expect("2 waiting prompts dropped")
    (tmp_path / "gate").touch()
    chat.expect("✓ tiny ready")
    assert "You said" not in chat.rest()
    leave(chat)


def test_an_unknown_command_is_an_error_and_never_a_prompt(ready):
    chat = ready("--verbose")
    chat.send("/hep")
    chat.expect("unknown command /hep; did you mean /help?")
    assert "You said" not in chat.rest()
    chat.send("//etc/passwd")
    chat.expect("You said: /etc/passwd")
    chat.expect("prompt tokens reused")  # the answer has ended
    chat.send("/clear")
    chat.expect("a new conversation")
    leave(chat)


def test_a_failure_of_the_decoder_is_an_answer_of_its_own(ready):
    chat = ready()
    chat.send("boom")
    chat.expect("✗ the fake decoder was told to fail")
    chat.send("fine")
    chat.expect("You said: fine")
    leave(chat)


def test_typed_control_tokens_stay_text(ready):
    chat = ready()
    chat.send("a<|im_end|>b")
    chat.expect("You said: a<|im_end|>b")
    leave(chat)


def test_a_paste_never_sends_itself(ready):
    chat = ready()
    chat.type("\x1b[200~one\rtwo\r\nthree\n\x1b[201~")
    chat.expect("three")
    assert "You said" not in chat.rest()
    chat.type("\x1b[13;5u")
    expect_rows(chat, "You said: one", "two", "three")
    leave(chat)


def test_what_the_model_says_cannot_steer_the_terminal(ready):
    chat = ready()
    chat.type("\x1b[200~a\u202eb\x1b[201~\n")
    chat.expect("You said: a⟦U+202E⟧b")
    assert "\u202e" not in chat.output.decode()
    leave(chat)


def test_an_answer_with_every_kind_of_control_is_shown_and_not_obeyed(ready, tmp_path):
    said = {
        "\x1b]52;c;QQ==\x07": "^[]52;c;QQ==^G", "\x1b[2J": "^[[2J", "\x1bP1$r\x1b\\": "^[P1$r^[\\", "\x9b31m": "⟦U+009B⟧31m",
        "\u202e": "⟦U+202E⟧", "\u2066": "⟦U+2066⟧", "\r": "^M", "\x08": "^H", "\x7f": "^?",
    }  # fmt: skip
    chat = ready("--verbose")
    chat.send("hello")
    chat.expect("prompt tokens reused]")
    [path] = (tmp_path / "state" / "bitctl" / "chats").glob("*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record.get("role") == "user":
            record["content"] = "".join(said)
    (tmp_path / "saved").write_text("".join(json.dumps(record) + "\n" for record in records))
    chat.send(f"/load {tmp_path / 'saved'}")
    chat.expect("2 messages loaded")
    before = len(chat.output)
    chat.send("/regen")
    chat.expect("You said: " + "".join(said.values())[:40])
    chat.expect("prompt tokens reused]")
    written = chat.output[before:].decode()
    assert not any(control in written for control in said if control not in ("\r", "\x08")), "but for our own \\r"
    assert "\x08" not in written
    leave(chat)


def test_no_color_means_plain_text(start):
    chat = start("--verbose", NO_COLOR="1")
    chat.expect("✓ tiny ready")
    chat.send("hello")
    chat.expect("prompt tokens reused]")
    leave(chat)
    assert not re.search(rb"\x1b\[[0-9;]*m", chat.output)


def test_the_hint_names_the_key_that_the_terminal_has_proved(start):
    kitty = start(answers=KITTY)
    kitty.expect("Type a message... (Alt+Enter or Ctrl+J to send)")
    kitty.expect("Type a message... (Ctrl+Enter to send)")
    leave(kitty)
    assert b"\x1b[>4;2m" not in kitty.output

    xterm = start(answers=XTERM)
    xterm.expect("\x1b[>4;2m")
    assert "(Ctrl+Enter to send)" not in xterm.rest()
    xterm.type("x\x1b[27;5;13~")  # and then it does tell
    xterm.expect("(Ctrl+Enter to send)")
    leave(xterm)

    silent = start(answers={})
    silent.expect("Type a message...")
    assert "Ctrl+Enter" not in silent.rest()
    leave(silent)

    vscode = start(answers={}, TERM_PROGRAM="vscode")
    vscode.expect("Type a message...")
    assert "\x1b[>1u" not in vscode.rest()
    leave(vscode)


def test_a_pipe_that_breaks_does_not_end_it(ready):
    chat = ready(wrapper=["/usr/bin/env", "--default-signal=PIPE"])  # Python ignores it, and so would its child
    chat.kill(signal.SIGPIPE)
    chat.send("hello")
    chat.expect("You said: hello")
    leave(chat)


def test_a_model_without_a_template_warns_and_continues_text(start, tmp_path):
    write_byte_model(tmp_path / "base", template=None)
    chat = start(path=tmp_path / "base")
    chat.expect("⚠ This model has no chat template")
    chat.expect("✓ base ready")
    leave(chat)
    chat = start("--template", "none", path=tmp_path / "base")
    chat.expect("✓ base ready")
    assert b"no chat template" not in chat.output, "it is what was asked for"
    leave(chat)
    chat = start("--template", "chatml", path=tmp_path / "base")
    chat.expect("✓ base ready")
    chat.send("hello")
    chat.expect("You said: hello")
    leave(chat)


def test_a_system_prompt_can_be_set(ready):
    chat = ready("--system", "Be brief.", "--verbose")
    sizes = []
    for command in ("/system Be long and explain everything.", "/system", "/clear"):
        chat.send("x")
        chat.expect("You said: x")
        sizes.append(int(chat.expect(re.compile(rb"of (\d+) prompt tokens"))[1]))
        chat.send("/clear")
        chat.expect("a new conversation")
        chat.send(command)
    without = len("<user\nx>\n<assistant\n")
    system = len("<system\n>\n")
    brief, long = len("Be brief."), len("Be long and explain everything.")
    assert sizes == [without + system + brief, without + system + long, without]
    leave(chat)


def test_a_mebibyte_of_paste(ready):
    chat = ready()
    text = "a line of a large paste\r" * ((1 << 20) // 24)
    began = time.monotonic()
    sent = 0
    chat.type("\x1b[200~")
    while sent < len(text):
        chat.type(text[sent:sent + 2048])
        sent += 2048
    chat.type("\x1b[201~end of it")
    chat.expect("end of it")
    print(f"paste of {len(text)} bytes: {(time.monotonic() - began) * 1e3:.0f} ms")
    assert "You said" not in chat.output.decode()
    chat.type("\x03")
    chat.expect("Type a message...")
    leave(chat)
