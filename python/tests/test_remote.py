"""A remote's answer arrives whole, however its bytes are cut; what goes wrong is one line, and the key stays secret."""

import json
import socket

import pytest
from bitctl import remote
from openai_server import OpenAiServer, Refuses, Sends, Stalls, event, stream_of

ASKED = [{"role": "user", "content": "héllo 漢字 👍"}]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with OpenAiServer() as server:
        yield server


def ask(url, **fields):
    replies = []
    request = {"id": 1, "op": "chat", "url": url, "model": "big", "key_env": "OPENAI_API_KEY", "messages": ASKED,
               "settings": {}, **fields}
    remote.serve([json.dumps(request)], replies.append)
    *parts, last = replies
    assert all(part["more"] and part["id"] == 1 for part in parts) and last.pop("id") == 1
    return "".join(part.get("text", "") for part in parts), last


def test_an_answer(server):
    assert ask(server.url) == ("Remote: héllo 漢字 👍", {"stop": "end_of_turn"})
    [request] = server.requests
    assert request.path == "/v1/chat/completions" and "Authorization" not in request.headers
    assert request.body == {"model": "big", "messages": ASKED, "stream": True}


def test_settings_and_the_first_model(server):
    ask(server.url + "/", model="", settings={"temperature": 0.5, "max_tokens": 7})
    assert [request.path for request in server.requests] == ["/v1/models", "/v1/chat/completions"]
    assert server.requests[1].body == {"model": "first", "messages": ASKED, "stream": True, "temperature": 0.5, "max_tokens": 7}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_cut_of_the_bytes_gives_the_same_text(end):
    text = "é漢👍\n\"x\""
    raw = ": hello\n\nevent: x\n" + f"data: {json.dumps({'choices': [{'delta': {'content': text}}]}, ensure_ascii=False)}\n\n"
    raw += 'data: {"choices":\ndata: [{"delta": {"content": "!"}}]}\n\ndata: [DONE]\n\n'
    raw = raw.replace("\n", end).encode() + (b"" if end != "\r" else b":\n")
    wanted = None
    for cut in range(len(raw) + 1):
        events = remote.Events()
        whole = events.feed(raw[:cut]) + events.feed(raw[cut:])
        wanted = wanted or whole
        assert whole == wanted and len(whole) == 3 and whole[2] == b"[DONE]"
        assert [remote.content_of(event)[0] for event in whole[:2]] == [text, "!"]
    events = remote.Events()
    assert sum((events.feed(raw[n : n + 1]) for n in range(len(raw))), []) == wanted


def test_bytes_one_by_one_through_a_socket(server):
    raw = b"".join(stream_of("é👍"))
    server.next = [Sends([raw[n : n + 1] for n in range(len(raw))])]
    assert ask(server.url) == ("é👍", {"stop": "end_of_turn"})


def test_half_of_a_surrogate_pair_waits_for_the_other(server):
    server.next = [Sends([b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n',
                          b'data: {"choices": [{"delta": {"content": "\\udc4db"}}]}\n\n', event(finish="length")])]
    assert ask(server.url) == ("a👍b", {"stop": "length"})
    server.next = [Sends([b'data: {"choices": [{"delta": {"content": "a\\udc4db"}}]}\n\n', event(finish="stop")])]
    assert ask(server.url) == ("a\ufffdb", {"stop": "end_of_turn"})


def test_one_that_does_not_stream(server):
    server.next = [Sends([b'{"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}'], "application/json")]
    assert ask(server.url) == ("all", {"stop": "end_of_turn"})


@pytest.mark.parametrize("pieces, text, error", [
    ([event("so")], "so", "it breaks off"),
    ([], "", "it breaks off"),
    ([event("so"), b"data: {nonsense\n\n"], "so", "what it sends is no JSON: {nonsense"),
    ([b'data: {"error": {"message": "out of\\nmemory"}}\n\n'], "", "it breaks off: out of memory"),
    ([b"data: " + b"x" * (remote.MAX_EVENT + 1)], "", "it sends a line without an end"),
])
def test_a_broken_stream_is_one_line(server, pieces, text, error):
    server.next = [Sends(pieces)]
    assert ask(server.url) == (text, {"error": error})


@pytest.mark.parametrize("refusal, error", [
    (Refuses(401), "it wants a key (401): set OPENAI_API_KEY"),
    (Refuses(404, {}, b'{"error": {"message": "no model\\nbig"}}'), "it answers 404: no model big"),
    (Refuses(429, {"Retry-After": "7"}), "it has had too many requests (429), try again in 7 s"),
    (Refuses(500, {}, b"<html>"), "it answers 500"),
    (Refuses(302, {"Location": "http://elsewhere/"}), "it points elsewhere (302), which is not followed: http://elsewhere/"),
])
def test_a_refusal_is_one_line(server, refusal, error):
    server.next = [refusal]
    assert ask(server.url) == ("", {"error": error})


def test_the_key_goes_to_the_endpoint_and_nowhere_else(server, monkeypatch):
    server.key = "sk-secret"
    monkeypatch.setenv("MY_KEY", "sk-secret")
    assert ask(server.url, key_env="MY_KEY")[1] == {"stop": "end_of_turn"}
    server.next = [Refuses(401, {}, b'{"error": {"message": "sk-secret is unknown"}}')]
    assert ask(server.url, key_env="MY_KEY")[1] == {"error": "it refuses the key of MY_KEY (401): … is unknown"}


def test_silence_ends_it(server):
    server.next = [Stalls(after=3)]
    assert ask(server.url, silence=0.2) == ("Re", {"error": "it is silent"})


def test_nobody_there(server):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert ask(f"http://127.0.0.1:{port}/v1")[1]["error"].startswith("cannot be reached: [Errno 111] Connection refused")


@pytest.mark.parametrize("url", ["ftp://host/v1", "host/v1", "http:///v1", "http://user:key@host/v1", ""])
def test_what_is_no_endpoint(url):
    assert "--remote takes http(s)://host[:port]/v1" in ask(url)[1]["error"]
