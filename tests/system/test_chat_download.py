"""bitctl chat org/name: the download on a terminal and in a pipe, from a hub of our own that behaves badly."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from byte_model import FAKE_CHAT, write_byte_model
from hub_server import INFO, Breaks, HubServer, Stalls, Status
from pty_program import PATIENCE, PtyProgram

WEIGHTS = random.Random(2).randbytes(2_000_000)
XTERM = {b"\x1b[c": b"\x1b[?64;1c"}


@pytest.fixture
def hub(tmp_path):
    folder = write_byte_model(tmp_path / "made")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    with HubServer({"org/tiny": {path.name: path.read_bytes() for path in folder.iterdir()}}) as server:
        yield server


@pytest.fixture
def environment(hub, tmp_path):
    return {"BITCTL_PYTHON": sys.executable, "XDG_STATE_HOME": str(tmp_path / "state"), "HF_HUB_DOWNLOAD_TIMEOUT": "600",
            **hub.environment(tmp_path / "cache")}


@pytest.fixture
def start(environment):
    running = []

    def start_chat(path="org/tiny", *arguments, **more):
        program = PtyProgram([FAKE_CHAT, "chat", str(path), *arguments], {**environment, **more}, XTERM)
        running.append(program)
        return program

    yield start_chat
    for program in running:
        program.close()


def chat(environment, *arguments, stdin="", **more):
    return subprocess.run([FAKE_CHAT, "chat", *arguments], input=stdin, env={**os.environ, **environment, **more},
                          capture_output=True, text=True, timeout=300)


def weights_in(tmp_path):
    return [path.read_bytes() for path in (tmp_path / "cache").rglob("model.safetensors")]


def wait_until_gone(pids):
    deadline = time.monotonic() + PATIENCE
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.01)


def half_come(stall, terminal, tmp_path):
    """The file that holds what the stalled download has brought so far, once that is nearly all that was sent."""
    assert stall.reached.wait(PATIENCE)
    [partial] = (tmp_path / "cache").rglob("*.incomplete")
    while partial.stat().st_size < 900_000:
        terminal.rest(0.05)
    return partial


def test_a_model_that_is_not_here_is_downloaded_and_answers(hub, environment, tmp_path):
    done = chat(environment, "org/tiny", "-p", "hello")
    assert (done.returncode, done.stdout) == (0, "You said: hello\n"), done.stderr
    assert weights_in(tmp_path) == [WEIGHTS]
    said = done.stderr.splitlines()
    assert [line for line in said if line.startswith("⏳ Downloading")][-4:] == [
        "⏳ Downloading org/tiny (1/4): config.json", "⏳ Downloading org/tiny (2/4): tokenizer.json",
        "⏳ Downloading org/tiny (3/4): tokenizer_config.json", "⏳ Downloading org/tiny (4/4): model.safetensors"]
    assert said[-1] == "✓ org/tiny ready"
    requests = len(hub.requests)
    assert chat(environment, "org/tiny", "-p", "again").stdout == "You said: again\n"
    assert len(hub.requests) == requests, "what is here is not asked for"


def test_the_terminal_shows_it_and_a_prompt_waits_for_it(hub, start):
    stall = Stalls(at=1_000_000)
    hub.faults["GET", "model.safetensors"] = [stall]
    terminal = start()
    terminal.expect("⏳ Downloading org/tiny (first time only)...")
    terminal.expect(re.compile(rb"\[======>   \] 50% \(0.0GB / 0.0GB\).*, 4/4 model.safetensors"))
    assert stall.reached.wait(PATIENCE)
    terminal.send("hello")
    terminal.expect("⏳ Downloading org/tiny (4/4): model.safetensors")
    terminal.send("/status")
    terminal.expect("Downloading org/tiny (4/4): model.safetensors [======>   ] 50% (0.0GB / 0.0GB)")
    stall.until.set()
    terminal.expect("⏳ Loading model...")
    terminal.expect("✓ org/tiny ready")
    terminal.expect("You said: hello")


def test_ctrl_c_cancels_and_retry_goes_on_where_it_was(hub, start, tmp_path):
    stall = Stalls(at=1_000_000)
    hub.faults["GET", "model.safetensors"] = [stall]
    terminal = start()
    partial = half_come(stall, terminal, tmp_path)
    workers = terminal.children()
    terminal.type("\x03")
    terminal.expect("✗ Failed: cancelled; what has come is kept")
    terminal.expect("/retry loads it again")
    wait_until_gone(workers[1:])  # the text worker lives
    kept = partial.stat().st_size
    terminal.send("/retry")
    terminal.expect("✓ org/tiny ready")
    assert weights_in(tmp_path) == [WEIGHTS]
    asked = [request.headers.get("Range") for request in hub.gets("model.safetensors")]
    assert asked == [None, f"bytes={kept}-"], "the first half is not fetched again"


def test_a_killed_chat_leaves_no_worker_and_the_next_one_goes_on(hub, start, tmp_path):
    stall = Stalls(at=1_000_000)
    hub.faults["GET", "model.safetensors"] = [stall]
    terminal = start()
    partial = half_come(stall, terminal, tmp_path)
    workers = terminal.children()
    assert len(workers) == 2
    terminal.kill(signal.SIGKILL)
    terminal.wait()
    wait_until_gone(workers)
    kept = partial.stat().st_size
    start().expect("✓ org/tiny ready")
    assert weights_in(tmp_path) == [WEIGHTS]
    assert hub.gets("model.safetensors")[-1].headers["Range"] == f"bytes={kept}-"


@pytest.mark.parametrize("leave", ["\x04", "/quit\n"])
def test_leaving_is_immediate_and_leaves_nothing_behind(hub, start, leave):
    stall = Stalls(at=1_000_000)
    hub.faults["GET", "model.safetensors"] = [stall]
    terminal = start()
    assert stall.reached.wait(PATIENCE)
    workers = terminal.children()
    terminal.type(leave)
    assert terminal.wait() == 0 and terminal.terminal_is_as_before()
    wait_until_gone(workers)


def test_while_another_model_is_downloaded_the_old_one_answers(hub, start, tmp_path):
    stall = Stalls(at=1_000_000)
    hub.faults["GET", "model.safetensors"] = [stall]
    terminal = start(tmp_path / "made")
    terminal.expect("✓ made ready")
    terminal.send("/model org/tiny")
    terminal.expect("⏳ Downloading org/tiny (first time only)...")
    half_come(stall, terminal, tmp_path)
    terminal.send("meanwhile")
    terminal.expect("You said: meanwhile")
    terminal.type("\x03")
    terminal.expect("✗ org/tiny: cancelled; what has come is kept; /retry goes on with it")
    terminal.send("still")
    terminal.expect("You said: still")
    terminal.send("/retry")
    terminal.expect("✓ org/tiny ready")
    terminal.send("now")
    terminal.expect("You said: now")
    assert weights_in(tmp_path) == [WEIGHTS] and hub.gets("model.safetensors")[-1].headers.get("Range")


def test_ctrl_c_ends_a_load_at_once_and_retry_takes_it_up(start, tmp_path):
    chat = start(tmp_path / "made", FAKE_GATE=str(tmp_path / "gate"))
    chat.expect("⏳ Loading model...")
    chat.send("hello")
    chat.expect("⏳ Loading made...")
    chat.type("\x03")
    chat.expect("1 waiting prompt dropped")
    chat.type("\x03")
    chat.expect("✗ Failed: cancelled")
    chat.send("/retry")
    chat.expect("⏳ Loading model...")
    (tmp_path / "gate").touch()
    chat.expect("✓ made ready")
    chat.send("hello")
    chat.expect("You said: hello")


def test_a_model_that_nobody_has_changes_nothing(start, tmp_path):
    terminal = start(tmp_path / "made")
    terminal.expect("✓ made ready")
    terminal.send("/model org/nothing")
    terminal.expect("✗ org/nothing: no model org/nothing at http://127.0.0.1:")
    terminal.send("still")
    terminal.expect("You said: still")


def test_a_failed_download_is_one_line_and_retry_takes_it_up(hub, start):
    hub.faults["GET", INFO] = [Status(403)]
    terminal = start()
    terminal.expect(f"✗ Failed: {hub.url}/org/tiny is not open to you (403): ask for access there; set HF_TOKEN")
    terminal.send("/retry")
    terminal.expect("✓ org/tiny ready")


def test_why_it_waits_is_said(hub, start):
    hub.faults["GET", "model.safetensors"] = [Breaks(at=1_000_000)]
    terminal = start()
    terminal.expect("; next try in 1 s")
    terminal.expect("✓ org/tiny ready")


@pytest.mark.parametrize("how", [{"arguments": ["--offline"]}, {"HF_HUB_OFFLINE": "1"}])
def test_offline_asks_nobody(hub, environment, how):
    done = chat(environment, "org/tiny", "-p", "hello", *how.pop("arguments", []), **how)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "bitctl: ⚠ Offline mode - model not available"
    assert hub.requests == []


def test_a_mistyped_path_is_no_name_of_a_model(hub, environment, tmp_path):
    (tmp_path / "runs").mkdir()
    done = subprocess.run([FAKE_CHAT, "chat", "runs/mistyped", "-p", "x"], env={**os.environ, **environment}, cwd=tmp_path,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "runs/mistyped: no such file, folder or run" in done.stderr
    assert hub.requests == []


def test_two_chats_fetch_it_once(hub, start, tmp_path):
    stall = Stalls(at=1_000_000)
    hub.faults["GET", "model.safetensors"] = [stall]
    one, two = start(), start()
    assert stall.reached.wait(PATIENCE)
    one.expect("4/4 model.safetensors")
    two.expect("4/4 model.safetensors")
    stall.until.set()
    one.expect("✓ org/tiny ready")
    two.expect("✓ org/tiny ready")
    assert hub.sent["model.safetensors"] == len(WEIGHTS) and weights_in(tmp_path) == [WEIGHTS]


def test_events_for_machines(environment):
    done = chat(environment, "org/tiny", "--jsonl", stdin='{"role": "user", "content": "hello"}\n')
    events = [json.loads(line) for line in done.stdout.splitlines()]
    downloads = [event for event in events if event["event"] == "download"]
    assert downloads[-1] == {"event": "download", "model": "org/tiny", "file": "model.safetensors", "index": 4, "count": 4,
                             "bytes": downloads[-1]["bytes"], "total": downloads[-1]["total"]}
    states = [event["state"] for event in events if event["event"] == "state"]
    assert states == ["downloading", "loading", "ready"] and events[-1]["content"] == "You said: hello"
