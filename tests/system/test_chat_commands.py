"""The slash commands of bitctl chat, on a terminal, with a decoder that answers "You said: …"."""

import json
import os
import re
import shutil

import pytest
from byte_model import write_byte_model
from schema_check import document_of, validator
from test_chat_terminal import model, start  # noqa: F401


@pytest.fixture
def chat(start):
    program = start("--verbose")
    program.expect("✓ tiny ready")
    return program


def say(chat, text):
    """Sends a prompt and waits for the end of its answer."""
    chat.send(text)
    chat.expect(f"You said: {text}")
    chat.expect("prompt tokens reused]")


def leave(chat):
    chat.type("\x04")
    assert chat.wait() == 0


def transcripts(tmp_path):
    """The transcripts' records, in the order in which they were begun; each obeys its schema."""
    found = []
    for path in sorted((tmp_path / "state" / "bitctl" / "chats").glob("*.jsonl")):
        assert path.stat().st_mode & 0o777 == 0o600
        found.append([document_of(line, path) for line in path.read_text().splitlines()])
        for record in found[-1]:
            validator("transcript.v1").validate(record)
    return found


def said(records):
    return [record["content"] for record in records if record["type"] == "message"]


def test_undo_edit_and_regen(chat, tmp_path):
    chat.send("/regen")
    chat.expect("there is no answer yet")
    chat.send("/undo")
    chat.expect("there is nothing to take back")
    say(chat, "one")
    say(chat, "two")
    chat.send("/regen")
    chat.expect("You said: two")
    chat.expect("prompt tokens reused]")
    chat.send("/undo")
    chat.expect("taken back: two")
    chat.send("/edit")
    chat.expect("> one")
    chat.type(" more\n")
    chat.expect("You said: one more")
    chat.expect("prompt tokens reused]")
    chat.send("/show prompt")
    chat.expect("one more<|im_end|>")
    assert "two" not in chat.rest()
    leave(chat)
    [records] = transcripts(tmp_path)
    assert said(records) == ["one", "You said: one", *["two", "You said: two"] * 2, "one more", "You said: one more"]
    assert [record["messages"] for record in records if record["type"] == "undo"] == [2, 2, 2]


def test_the_same_seed_regenerates_the_same_answer_and_another_seed_another(start, tmp_path):
    chat = start("--verbose", "--temperature", "5", "--seed", "1", "--max-new-tokens", "30")
    chat.expect("✓ tiny ready")
    for command in ("hello", "/regen", "/seed 2", "/regen", "/seed 1", "/regen"):
        chat.send(command)
        chat.expect("from the next answer on: temperature 5, seed" if "seed" in command else "tokens reused]")
    leave(chat)
    [records] = transcripts(tmp_path)
    first, again, other, back = said(records)[1::2]
    assert first == again == back != other


def test_set_and_show(chat):
    chat.send("/set temperature=0.7 top_p=0.9 seed=3")
    chat.expect("no parameter seed")
    chat.send("/set temperature=0.7 top_p=0.9")
    chat.expect("from the next answer on: temperature 0.7, top_p 0.9, seed ")
    chat.send("/show")
    chat.expect(re.compile(rb"top_p +0\.9 +chosen here"))
    chat.send("/set top_p=default temperature=0")
    chat.expect("from the next answer on: greedy")
    chat.send("/show template")
    chat.expect("{% for message in messages %}")
    chat.send("/show everything")
    chat.expect("/show params, prompt or template; not everything")
    chat.send("/stats")
    chat.expect("there is no answer yet")
    say(chat, "hello")
    chat.send("/stats")
    chat.expect("answers in this chat: 1, of 15 tokens")
    leave(chat)


def test_commands_work_while_the_model_loads_and_never_reach_it(start, tmp_path):
    chat = start("--verbose", FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading model...")
    for command, answer in (("/help", "/regen"), ("/set top_k=3", "top_k 3"), ("/seed 5", "seed 5"),
                            ("/show prompt", "nothing has been said yet"), ("/regen", "there is no answer yet"),
                            ("/save", "nothing has been said yet"), ("/latest", "not of a run"),
                            ("/system be brief", "system prompt set"), ("/nonsense", "unknown command /nonsense"),
                            ("/model", "/model needs an argument: /model PATH")):
        chat.send(command)
        chat.expect(answer)
    (tmp_path / "gate").touch()
    chat.expect("✓ tiny ready")
    assert "You said" not in chat.rest()
    leave(chat)


def test_another_model_without_a_restart(chat, tmp_path):
    write_byte_model(tmp_path / "other")
    say(chat, "one")
    chat.send("/model " + str(tmp_path / "nowhere"))
    chat.expect("nowhere: no such file, folder or run; nothing has changed")
    say(chat, "two")
    chat.send("/model " + str(tmp_path / "other"))
    chat.send("three")
    chat.expect("✓ other ready")
    chat.expect("You said: three")
    chat.expect("prompt tokens reused]")
    leave(chat)
    [records] = transcripts(tmp_path)
    assert [record["model"] for record in records if "model" in record] == ["tiny", "other"]
    assert len(said(records)) == 6


def test_another_model_asked_for_while_one_loads(start, tmp_path):
    write_byte_model(tmp_path / "other")
    gate = tmp_path / "gate"
    chat = start("--verbose", FAKE_GATE=str(gate))
    chat.expect("⏳ Loading model...")
    chat.send("/model " + str(tmp_path / "other"))
    chat.expect("⏳ behind the load that is going on")
    chat.send("hello")
    chat.expect("⏳ Loading tiny...")
    gate.touch()
    chat.expect("✓ other ready")
    chat.expect("You said: hello")
    chat.expect("prompt tokens reused]")
    leave(chat)
    [records] = transcripts(tmp_path)
    assert [record["model"] for record in records if "model" in record] == ["other"]


def test_a_model_that_does_not_load_leaves_the_prompt_alive(chat, tmp_path, model):
    broken = write_byte_model(tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    chat.send(f"/model {broken}")
    chat.expect("✗ Failed: ")
    chat.send(f"/model {model}")
    chat.expect("✓ tiny ready")
    say(chat, "hello")
    leave(chat)


def test_the_answer_in_progress_ends_before_the_next_model_comes(start, tmp_path):
    write_byte_model(tmp_path / "other")
    chat = start("--verbose", "--max-new-tokens", "300", FAKE_ENDLESS="1", FAKE_TOKEN_MS="3")
    chat.expect("✓ tiny ready")
    chat.send("x")
    chat.expect("You said: x - You said: x")
    chat.send("/model " + str(tmp_path / "other"))
    chat.send("y")
    chat.expect("[stopped after 300 tokens]")
    chat.expect("✓ other ready")
    chat.expect("You said: y - You said: y")
    chat.type("\x03")
    chat.expect("[interrupted]")
    leave(chat)


def test_the_newest_step_of_a_run_in_training(start, model, tmp_path):
    run = tmp_path / "run"
    steps = run / "checkpoints"
    shutil.copytree(model, steps / "step-000000010")
    chat = start("--verbose", path=run)
    chat.expect("✓ run (step 10) ready")
    chat.send("/latest")
    chat.expect("run (step 10) is the newest already; nothing has changed")
    shutil.copytree(model, steps / "step-000000020")
    chat.send("/latest")
    chat.expect("✓ run (step 20) ready")
    say(chat, "hello")
    chat.send("/status")
    chat.expect("✓ run (step 20) ready")
    leave(chat)


def test_two_steps_side_by_side(start, model, tmp_path):
    for step in (10, 20):
        shutil.copytree(model, tmp_path / "run" / "checkpoints" / f"step-{step:09}")
    chat = start("--verbose", path=tmp_path / "run")
    chat.expect("✓ run (step 20) ready")
    chat.send("/compare 10 20")
    chat.expect("there is no prompt to compare by yet")
    say(chat, "hello")
    chat.send("/compare 10 20")
    chat.expect("both answer the last prompt")
    chat.expect(re.compile(rb"run \(step 10\) +\| run \(step 20\)"))
    chat.expect(re.compile(rb"You said: hello +\| You said: hello"))
    chat.send("/compare 10 " + str(tmp_path / "nowhere"))
    chat.expect(re.compile(rb"run \(step 10\) +\| /"))
    chat.expect("You said: hello")
    chat.expect("✗ Failed: ")
    chat.send("/status")
    chat.expect("conversation: 2 messages")
    leave(chat)


def test_a_comparison_can_be_stopped_and_left(start, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    chat = start("--verbose", "--max-new-tokens", "20", FAKE_ENDLESS="1", FAKE_TOKEN_MS="3", FAKE_GATE=str(gate))
    chat.expect("✓ tiny ready")
    chat.send("x")
    chat.expect("[stopped after 20 tokens]")
    gate.unlink()
    chat.send(f"/compare {tmp_path}/tiny {tmp_path}/tiny")
    chat.expect("both answer the last prompt")
    chat.type("\x03")
    gate.touch()
    chat.expect("[interrupted]")
    gate.unlink()
    chat.send(f"/compare {tmp_path}/tiny {tmp_path}/tiny")
    chat.expect("both answer the last prompt")
    leave(chat)  # at once, although a load is held


def test_read_puts_a_file_into_the_prompt_and_sends_nothing(chat, tmp_path):
    (tmp_path / "notes").write_bytes(b"line one\r\nline\x1b[201~\n two\x07")
    chat.send("/read " + str(tmp_path / "notes"))
    chat.expect("line one")
    assert "You said" not in chat.rest()
    chat.type("?\n")
    chat.expect("You said: line one")
    chat.expect("line[201~")
    chat.expect(" two?")
    chat.send("/read " + str(tmp_path / "none"))
    chat.expect("none")
    leave(chat)


def test_save_load_and_clear(chat, tmp_path):
    saved = tmp_path / "saved.jsonl"
    chat.send("/load " + str(saved))
    chat.expect("saved.jsonl")
    say(chat, "one")
    chat.send(f"/save {saved}")
    chat.expect("2 messages saved in ")
    chat.send("/clear")
    chat.expect("a new conversation")
    say(chat, "two")
    chat.send(f"/load {saved}")
    chat.expect("2 messages loaded from ")
    chat.send("/save")
    chat.expect("nothing has been said yet; from the first answer on it is kept")
    say(chat, "three")
    chat.send("/save")
    chat.expect("kept in ")
    leave(chat)
    assert [said(records) for records in transcripts(tmp_path)] == [
        ["one", "You said: one"], ["two", "You said: two"], ["one", "You said: one", "three", "You said: three"]]
    assert said(map(json.loads, saved.read_text().splitlines())) == ["one", "You said: one"]


def test_prompts_are_at_hand_in_the_next_chat(chat, start):
    chat.type("two\rlines\n")
    chat.expect("prompt tokens reused]")
    say(chat, "newest")
    leave(chat)
    chat = start("--verbose")
    chat.expect("✓ tiny ready")
    chat.type("\x1b[A\x1b[A")
    chat.expect("lines")
    chat.type("\x03")
    chat.expect("Type a message...")
    chat.type("\x12new")
    chat.expect('prompts with "new": Ctrl+R older, Enter takes it, Ctrl+C leaves')
    chat.type("\r!\n")
    chat.expect("You said: newest!")
    chat.expect("prompt tokens reused]")
    leave(chat)


def test_ctrl_g_edits_the_prompt_in_an_editor(start, tmp_path):
    editor = tmp_path / "an editor"
    editor.write_text("#!/bin/sh\n[ -t 1 ] && cat \"$1\" && stat -c %a \"$1\" >'" + str(tmp_path / "mode") + "'\n"
                      "printf 'more\\nlines\\n' >>\"$1\"\n[ ! -e '" + str(tmp_path / "refuse") + "' ]\n")
    editor.chmod(0o755)
    chat = start("--verbose", VISUAL=f"'{editor}'", TMPDIR=str(tmp_path))
    chat.expect("✓ tiny ready")
    chat.type("hello \x07")
    chat.expect("> hello more")
    chat.expect("lines")
    chat.send("")
    chat.expect("You said: hello more")
    chat.expect("prompt tokens reused]")
    assert (tmp_path / "mode").read_text() == "600\n"
    (tmp_path / "refuse").touch()
    chat.type("again\x07")
    chat.expect("failed; the prompt is as it was")
    chat.expect("> again")
    chat.send("")
    chat.expect("You said: again")
    chat.expect("prompt tokens reused]")
    assert not list(tmp_path.glob("bitctl-prompt-*")), "the text is gone"
    assert chat.output.count(b"\x1b[>4;2m") == 3, "what the terminal was asked for is asked for again"
    leave(chat)


def test_submit_enter(start):
    chat = start("--submit", "enter", "--verbose")
    chat.expect("Type a message... (Enter to send)")
    chat.expect("✓ tiny ready")
    chat.type("one\x1b\rtwo\r")
    chat.expect("You said: one")
    chat.expect("two")
    chat.expect("prompt tokens reused]")
    chat.type("/help\r")
    chat.expect("Enter sends; Ctrl+Enter, Alt+Enter and Ctrl+J break the line.")
    leave(chat)


def test_continue_takes_up_the_newest_conversation(chat, start, tmp_path):
    say(chat, "one")
    second = start("--continue")
    second.expect("held by pid")
    second.expect("✓ tiny ready")
    leave(second)
    leave(chat)
    chat = start("--continue", "--verbose")
    chat.expect("✓ tiny ready")
    chat.send("/status")
    chat.expect("conversation: 2 messages")
    say(chat, "two")
    os.kill(chat.pid, 9)
    chat.wait()
    [records] = transcripts(tmp_path)
    assert said(records) == ["one", "You said: one", "two", "You said: two"], "killed, and nothing is lost"


def test_continue_without_a_conversation_says_so(start, tmp_path):
    chat = start("--continue")
    chat.expect("no conversation to go on with in ")
    chat.expect("✓ tiny ready")
    leave(chat)
