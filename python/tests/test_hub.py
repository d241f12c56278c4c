"""A model comes whole from the hub, or a line says why not; what has come is never fetched twice."""

import hashlib
import json
import os
import random
import shutil
import socket
import threading

import pytest
from bitctl import hub
from hub_server import COMMIT, INFO, Breaks, HubServer, IgnoresRange, Lies, Stalls, Status
from huggingface_hub import constants, snapshot_download

WEIGHTS = random.Random(1).randbytes(3_000_000)
TINY = {
    "README.md": b"# tiny",
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"other",
    "pytorch_model.bin": b"never",
    "tokenizer.json": b'{"a": 1}',
    "tokenizer_config.json": b"{}",
}
FETCHED = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]


@pytest.fixture
def server(monkeypatch):
    with HubServer({"org/tiny": dict(TINY)}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(hub.time, "sleep", server.waits.append)
        monkeypatch.setattr(hub, "get_token", lambda: None)
        yield server


def download(cache, name="org/tiny"):
    """What the user hears of it: (the parts, the last reply)."""
    parts = []
    replies = []
    request = json.dumps({"id": 1, "op": "download", "name": name, "cache": str(cache)})
    hub.serve([request], replies.append)
    *parts, last = replies
    assert all(part.pop("more") and part.pop("id") == 1 for part in parts) and last.pop("id") == 1
    return parts, last


def notes(parts):
    return [part["note"] for part in parts if "note" in part]


def snapshot(cache, name="org/tiny"):
    folder = cache / f"models--{name.replace('/', '--')}"
    commit = (folder / "refs" / "main").read_text()
    return {str(path.relative_to(folder / "snapshots" / commit)): path.read_bytes()
            for path in (folder / "snapshots" / commit).rglob("*") if path.is_file()}


def partial(cache):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    return cache / "models--org--tiny" / "blobs" / f"{digest}.incomplete"


def test_only_what_a_chat_reads_is_fetched(server, tmp_path):
    parts, last = download(tmp_path)
    assert last == {}
    assert snapshot(tmp_path) == {file: TINY[file] for file in FETCHED}
    begins = list(dict.fromkeys((part["file"], part["index"], part["count"]) for part in parts))
    assert begins == [(file, n, 4) for n, file in enumerate(FETCHED, 1)]
    size = sum(len(TINY[file]) for file in FETCHED)
    assert {part["total"] for part in parts} == {size} and parts[-1]["bytes"] <= size
    assert not list(tmp_path.rglob("*.incomplete")) and (tmp_path / "models--org--tiny/refs/main").read_text() == COMMIT


def test_the_library_finds_it_offline(server, tmp_path, monkeypatch):
    download(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert os.listdir(snapshot_download("org/tiny", cache_dir=tmp_path, local_files_only=True))


def test_a_whole_one_is_not_fetched_again(server, tmp_path):
    download(tmp_path)
    before = len(server.requests)
    assert download(tmp_path)[1] == {}
    assert [request.path for request in server.requests[before:]] == ["/api/models/org/tiny"]


def test_the_parts_are_those_that_the_index_names(server, tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(),
             "model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two", "x.safetensors": b"no"}
    server.models["org/parts"] = files
    parts, last = download(tmp_path, "org/parts")
    assert last == {} and set(snapshot(tmp_path, "org/parts")) == set(files) - {"x.safetensors"}
    assert [part["file"] for part in parts if part["index"] == 5] and parts[-1]["count"] == 5
    del files["model-00002-of-00002.safetensors"]
    shutil.rmtree(tmp_path / "models--org--parts")
    assert download(tmp_path, "org/parts")[1] == {
        "error": "org/parts: model.safetensors.index.json names 'model-00002-of-00002.safetensors', which is not there"}


@pytest.mark.parametrize("place", ["../elsewhere.safetensors", "/etc/passwd", "", 3])
def test_an_index_that_points_elsewhere_is_refused(server, tmp_path, place):
    files = {**TINY, "model.safetensors.index.json": json.dumps({"weight_map": {"a": place}}).encode()}
    del files["model.safetensors"]
    server.models["org/tiny"] = files
    assert "no weight_map that names files" in download(tmp_path)[1]["error"]


@pytest.mark.parametrize("absent, error", [
    ("config.json", "org/tiny has no config.json, which a chat needs"),
    ("tokenizer.json", "org/tiny has no tokenizer.json, which a chat needs"),
    ("model.safetensors", "org/tiny has no model.safetensors and no model.safetensors.index.json, only pytorch_model.bin"),
])
def test_what_no_chat_can_read_is_refused_before_anything_is_fetched(server, tmp_path, absent, error):
    del server.models["org/tiny"][absent]
    assert download(tmp_path)[1] == {"error": error} and not server.sent[absent] and not server.sent["model.safetensors"]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    server.faults["GET", "model.safetensors"] = [Breaks(at=1_000_000), Breaks(at=2_000_000, told=True)]
    parts, last = download(tmp_path)
    assert last == {} and snapshot(tmp_path)["model.safetensors"] == WEIGHTS
    assert server.sent["model.safetensors"] == len(WEIGHTS), "each byte once"
    assert len(notes(parts)) == len(server.waits) == 2 and notes(parts)[0].endswith("; next try in 1 s")


def test_a_killed_download_is_taken_up_where_it_was(server, tmp_path):
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(WEIGHTS[:2_000_000])
    parts, last = download(tmp_path)
    assert last == {} and snapshot(tmp_path)["model.safetensors"] == WEIGHTS
    assert server.sent["model.safetensors"] == 1_000_000
    assert [part["bytes"] for part in parts if part["index"] == 4][1] >= 2_000_000, "what is there counts"


def test_what_was_there_is_not_trusted(server, tmp_path):
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(b"\0" * 2_000_000)
    assert download(tmp_path)[1]["error"] == "model.safetensors is not what the hub says it is (SHA-256), so it was deleted"
    assert download(tmp_path)[1] == {} and snapshot(tmp_path)["model.safetensors"] == WEIGHTS


def test_more_than_there_is_begins_anew(server, tmp_path):
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(WEIGHTS + b"more")
    assert download(tmp_path)[1] == {} and snapshot(tmp_path)["model.safetensors"] == WEIGHTS


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.faults["GET", "model.safetensors"] = [Breaks(at=1_000_000), IgnoresRange()]
    parts, last = download(tmp_path)
    assert last == {} and snapshot(tmp_path)["model.safetensors"] == WEIGHTS
    assert all(part["bytes"] <= part["total"] for part in parts if "bytes" in part)


def test_wrong_bytes_are_found(server, tmp_path):
    server.faults["GET", "model.safetensors"] = [Lies(at=1_234_567)]
    assert "SHA-256" in download(tmp_path)[1]["error"]
    assert not partial(tmp_path).exists() and not (tmp_path / "models--org--tiny" / "refs").exists()


@pytest.mark.parametrize("where", [("GET", INFO), ("HEAD", "tokenizer.json"), ("GET", "model.safetensors")])
@pytest.mark.parametrize("code", [429, 500, 503])
def test_trouble_that_passes_is_waited_for(server, tmp_path, where, code):
    server.faults[where] = [Status(code), Status(code)]
    parts, last = download(tmp_path)
    assert last == {} and server.waits == [1, 2] and f"{code}" in notes(parts)[0]


@pytest.mark.parametrize("code, error", [(429, "has had too many requests (429); HF_TOKEN gives more of them"),
                                         (500, "answers 500, again and again")])
def test_trouble_that_stays_ends_it(server, tmp_path, code, error):
    server.faults["GET", "model.safetensors"] = [Breaks(at=1000)] + [Status(code) for _ in range(9)]
    parts, last = download(tmp_path)
    assert last == {"error": f"{server.url} {error}"} and server.waits == [1, *hub.WAITS[1:]]
    assert partial(tmp_path).read_bytes() == WEIGHTS[:1000], "what has come stays"
    server.faults.clear()
    assert download(tmp_path)[1] == {} and server.sent["model.safetensors"] == len(WEIGHTS)


def test_the_server_s_own_patience_counts(server, tmp_path):
    server.faults["GET", INFO] = [Status(429, {"Retry-After": "7"})]
    assert download(tmp_path)[1] == {} and server.waits == [7]
    server.faults["GET", INFO] = [Status(429, {"Retry-After": "3600"})]
    _, last = download(tmp_path)
    assert last["error"].startswith(f"{server.url} has had too many requests (429); it asks for 3600 s of patience")
    assert server.waits == [7], "nobody waits for an hour unasked"


@pytest.mark.parametrize("code, headers, error", [
    (401, {}, "no model org/tiny at {url}, or it is private or gated (401): set HF_TOKEN"),
    (403, {"X-Error-Code": "GatedRepo"}, "{url}/org/tiny is not open to you (403): ask for access there; set HF_TOKEN"),
    (404, {"X-Error-Code": "RepoNotFound"}, "no model org/tiny at {url} (404); if it is private or gated: set HF_TOKEN"),
    (418, {}, "{url} answers 418"),
])
def test_a_refusal_names_the_remedy(server, tmp_path, code, headers, error):
    server.faults["GET", INFO] = [Status(code, headers)]
    assert download(tmp_path) == ([], {"error": error.format(url=server.url)})


def test_the_token_is_sent_and_a_wrong_one_is_said(server, tmp_path, monkeypatch):
    server.token = "hf_secret"
    monkeypatch.setattr(hub, "get_token", lambda: "hf_wrong")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    error = download(tmp_path)[1]["error"]
    assert error.endswith("(401): the token of HF_TOKEN may not read it") and "hf_wrong" not in error
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download(tmp_path)[1] == {}


def test_a_hub_that_cannot_be_reached_is_said_at_once(server, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    parts, last = download(tmp_path)
    assert parts == [] and server.waits == []
    assert last["error"].startswith(f"cannot reach http://127.0.0.1:{port}: [Errno 111] Connection refused; see the network")
    monkeypatch.setattr(constants, "ENDPOINT", "http://no-such-host.invalid")
    assert download(tmp_path)[1]["error"].startswith("cannot reach http://no-such-host.invalid: ")


def test_a_silent_hub_is_tried_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.faults["GET", "model.safetensors"] = [Stalls(at=1_500_000)]
    parts, last = download(tmp_path)
    assert last == {} and notes(parts) == [f"{server.url} is silent; next try in 1 s"]
    assert snapshot(tmp_path)["model.safetensors"] == WEIGHTS and server.sent["model.safetensors"] == len(WEIGHTS)


def test_offline_is_an_answer_of_its_own(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(tmp_path) == ([], {"offline": True}) and server.requests == []


def test_the_disk_is_looked_at_first(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2_500_000)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage)
    _, last = download(tmp_path / "not" / "there")
    assert last["error"].startswith(f"org/tiny needs 0.0GB more and {tmp_path}/not/there has 0.0GB free; free some, or set")
    assert not server.sent["model.safetensors"]
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(WEIGHTS[:1_000_000])
    assert download(tmp_path)[1] == {}, "what is there need not fit again"


def test_a_full_disk_keeps_what_has_come(server, tmp_path):
    os.makedirs(partial(tmp_path).parent)
    partial(tmp_path).symlink_to("/dev/full")
    assert download(tmp_path)[1] == {"error": "the disk of the cache is full; what has come is kept"}


def test_two_at_once_fetch_it_once(server, tmp_path):
    stall = Stalls(at=1_000_000)
    server.faults["GET", "model.safetensors"] = [stall]
    heard = {}
    first = threading.Thread(target=lambda: heard.update(first=download(tmp_path)))
    first.start()
    assert stall.reached.wait(60)
    second = threading.Thread(target=lambda: heard.update(second=download(tmp_path)))
    second.start()
    while len([request for request in server.requests if request.path.startswith("/api/")]) < 2:
        second.join(0.01)
    stall.until.set()
    first.join(60), second.join(60)
    assert heard["first"][1] == heard["second"][1] == {}
    assert server.sent["model.safetensors"] == len(WEIGHTS) and snapshot(tmp_path)["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("etag", ["../../../../outside", "", "a/b", ".hidden"])
def test_an_etag_that_is_no_name_goes_nowhere(server, tmp_path, monkeypatch, etag):
    real = hub.get_hf_file_metadata
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda *a, **k: type("M", (), {**vars(real(*a, **k)), "etag": etag}))
    assert "no ETag that could be its name" in download(tmp_path / "cache")[1]["error"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["a/b/c", "", "org/..", "org/ä"])
def test_a_name_that_is_none(server, tmp_path, name):
    assert "error" in download(tmp_path, name)[1] and server.requests == []
