"""bitctl chat --remote: what is asked before the model is ready goes there, visibly, and nothing else does."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from byte_model import FAKE_CHAT, write_byte_model
from openai_server import OpenAiServer, Refuses, Sends, Stalls, event
from pty_program import PATIENCE, PtyProgram

XTERM = {b"\x1b[c": b"\x1b[?64;1c"}


@pytest.fixture
def remote():
    with OpenAiServer() as server:
        yield server


@pytest.fixture
def gate(tmp_path):
    """The model is ready once the file is there."""
    return tmp_path / "gate"


@pytest.fixture
def environment(gate, tmp_path):
    return {"BITCTL_PYTHON": sys.executable, "XDG_STATE_HOME": str(tmp_path / "state"), "FAKE_GATE": str(gate),
            "OPENAI_API_KEY": ""}


@pytest.fixture
def start(environment, tmp_path):
    running = []

    def start_chat(*arguments, **more):
        model = write_byte_model(tmp_path / "tiny")
        running.append(PtyProgram([FAKE_CHAT, "chat", str(model), *arguments], {**environment, **more}, XTERM))
        running[-1].expect("⏳ Loading model...")
        return running[-1]

    yield start_chat
    for program in running:
        program.close()


def posts(remote):
    return [request.body for request in remote.requests if request.method == "POST"]


def test_before_ready_the_remote_answers_and_then_the_model_with_the_same_conversation(remote, start, gate, tmp_path):
    chat = start("--remote", remote.url, "--system", "be brief", "--temperature", "0.01", "--max-new-tokens", "50")
    chat.send("one")
    chat.expect(f"[model_not_ready: first at {remote.url} answers]")
    chat.expect("Remote: one")
    chat.send("two, 漢字 👍")
    chat.expect("Remote: two, 漢字 👍")
    gate.touch()
    chat.expect("✓ tiny ready")
    chat.expect("✓ Model ready - future queries will use local generation")
    chat.send("three")
    chat.expect("You said: three")
    chat.send("/show prompt")
    chat.expect("Remote: two, 漢字 👍<|im_end|>")
    first, second = posts(remote)
    assert first["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}]
    assert second["messages"][1:] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "Remote: one"},
                                      {"role": "user", "content": "two, 漢字 👍"}]
    assert (first["model"], first["temperature"], first["max_tokens"], first["stream"]) == ("first", 0.01, 50, True)
    [kept] = (tmp_path / "state").rglob("chats/*.jsonl")
    models = [record["model"] for record in map(json.loads, kept.read_text().splitlines()) if record["type"] in ("chat", "model")]
    assert models == ["first (remote)", "tiny"]


def test_ctrl_c_closes_the_connection_and_what_was_said_stays(remote, start):
    remote.next = [Stalls(after=8)]
    chat = start("--remote", remote.url)
    chat.send("hello")
    chat.expect("Remote:")
    workers = chat.children()
    chat.type("\x03")
    chat.expect("[interrupted]")
    assert remote.gone.wait(PATIENCE), "the endpoint sees it"
    chat.send("again")
    chat.expect("Remote: again")
    assert posts(remote)[-1]["messages"][1] == {"role": "assistant", "content": "Remote:"}
    assert not set(workers[1:]) & set(chat.children())


@pytest.mark.parametrize("fault, reason", [
    (Refuses(401), "it wants a key (401): set OPENAI_API_KEY"),
    (Refuses(429, {"Retry-After": "9"}), "it has had too many requests (429), try again in 9 s"),
    (Sends([]), "it breaks off"),
])
def test_a_failed_one_waits_for_the_model_and_so_does_what_comes_behind_it(remote, start, gate, fault, reason):
    remote.next = [fault]
    chat = start("--remote", remote.url)
    chat.send("hello")
    chat.expect(f"✗ {remote.url}: {reason}")
    chat.expect("⏳ Loading tiny...")
    chat.send("behind")
    chat.expect("⏳ Loading tiny...")
    gate.touch()
    chat.expect("You said: hello")
    chat.expect("You said: behind")
    assert len(posts(remote)) == 1


def test_one_that_breaks_off_in_the_middle_is_an_error(remote, start):
    remote.next = [Sends([event("so far")])]
    chat = start("--remote", remote.url)
    chat.send("hello")
    chat.expect("so far")
    chat.expect(f"✗ {remote.url}: it breaks off")
    chat.send("next")
    chat.expect("Remote: next")


def test_what_it_says_reaches_the_terminal_visibly(remote, start):
    remote.next = [Sends([event("\x1b]0;owned\x07\u202e"), event(finish="stop")])]
    chat = start("--remote", remote.url)
    chat.send("hello")
    chat.expect("owned")
    assert b"\x1b]0;owned" not in chat.output and "\u202e".encode() not in chat.output


def test_without_a_terminal(remote, environment, tmp_path):
    model = write_byte_model(tmp_path / "tiny")

    def run(*arguments, stdin="", **more):
        return subprocess.run([FAKE_CHAT, "chat", str(model), *arguments], env={**os.environ, **environment, **more},
                              input=stdin, capture_output=True, text=True, timeout=300)

    done = run("-p", "hello", "--remote", remote.url, "--remote-model", "big", BITCTL_LOG_LEVEL="info")
    assert (done.returncode, done.stdout) == (0, "Remote: hello\n")
    assert f"[model_not_ready: big at {remote.url} answers]" in done.stderr
    assert "prompt forwarded reason=model_not_ready" in done.stderr

    line = '{"role": "user", "content": "hello"}\n'
    done = run("--jsonl", "--remote", remote.url, "--remote-key-env", "MY_KEY", stdin=line, MY_KEY="sk-secret")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"event": "forwarded", "reason": "model_not_ready", "model": "first", "url": remote.url} in events
    assert (events[-1]["content"], events[-1]["source"], events[-1]["stop"]) == ("Remote: hello", "remote", "end_of_turn")
    assert remote.requests[-1].headers["Authorization"] == "Bearer sk-secret" and "sk-secret" not in done.stdout + done.stderr

    remote.next = [Refuses(500)]
    done = run("-p", "hello", "--no-wait", "--remote", remote.url)
    assert done.returncode == 1 and "it answers 500" in done.stderr

    for wrong in (["--remote", "host/v1"], ["--remote", remote.url, "--offline"], ["--remote-model", "big"],
                  ["--remote", remote.url, "--remote-key-env", "NOT_SET"]):
        assert run("-p", "x", *wrong).returncode == 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nobody_is_called_who_was_not_named(remote, environment, gate, tmp_path):
    """Also the control: with --remote the same trace holds the connection."""
    model = write_byte_model(tmp_path / "tiny")
    gate.touch()
    connections = []
    for n, arguments in enumerate(([], ["--remote", remote.url])):
        gate.unlink() if n else None
        trace = tmp_path / f"trace{n}"
        done = subprocess.run([shutil.which("strace"), "-f", "-o", str(trace), "-e", "trace=connect,sendto", FAKE_CHAT, "chat",
                               str(model), "-p", "hello", *arguments], env={**os.environ, **environment}, timeout=300,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        connections.append(re.findall(r"connect\(\d+, \{sa_family=AF_INET.*", trace.read_text()))
    assert connections[0] == [] and len(connections[1]) > 0
