"""The remote's worker: an OpenAI-compatible endpoint answers while the model is not ready.

`bitctl chat --remote URL` runs `python -m bitctl.remote FD` (the protocol is that of bitctl._worker) for one answer, and
kills it to stop that, which closes the connection.

    {"id": 1, "op": "chat", "url": "https://host/v1", "model": "" or a name, "key_env": "OPENAI_API_KEY", "messages": […],
     "settings": {"temperature": …, "top_p": …, "max_tokens": …, "seed": …}, "silence": seconds}
        -> {"id": 1, "more": true, "model": "its name"}, {"id": 1, "more": true, "text": "…"}, …
        -> {"id": 1, "stop": "end_of_turn" or "length"}  |  {"id": 1, "error": "one line"}

The key comes from the environment and goes to that host alone: redirections are not followed.
"""

import http.client
import json
import os
import re
import sys
import urllib.parse

from bitctl._worker import run, serve_job

MAX_EVENT = 1 << 20
MAX_REFUSAL = 1 << 16
MAX_NAME = 200


class RemoteError(Exception):
    """One line for the user."""


class Events:
    """The data of server-sent events out of bytes, however those are cut."""

    def __init__(self):
        self.rest = b""
        self.data = []

    def feed(self, piece):
        """What is whole now."""
        whole = []
        buffer = self.rest + piece
        end = len(buffer) - buffer.endswith(b"\r")  # a line feed may follow
        *lines, last = re.split(rb"\r\n|\n|\r", buffer[:end])
        self.rest = last + buffer[end:]
        if len(self.rest) > MAX_EVENT:
            raise RemoteError("it sends a line without an end")
        for line in lines:
            field, _, value = line.partition(b":")
            if field == b"data":
                self.data.append(value.removeprefix(b" "))
            elif not line and self.data:
                whole.append(b"\n".join(self.data))
                self.data = []
        return whole


class Pairs:
    """Text whose surrogate pairs may be cut in two."""

    def __init__(self):
        self.half = ""

    def feed(self, text):
        text = self.half + text
        self.half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return text[: len(text) - len(self.half)].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def one_line(text):
    return " ".join(str(text).split())[:MAX_NAME]


class Endpoint:
    def __init__(self, url, key_env, silence):
        self.url = urllib.parse.urlsplit(url)
        if self.url.scheme not in ("http", "https") or not self.url.hostname or self.url.username is not None:
            raise RemoteError(f"--remote takes http(s)://host[:port]/v1; the key stands in the environment ({key_env})")
        self.key_env, self.key, self.silence = key_env, os.environ.get(key_env, ""), silence

    def request(self, method, path, body=None):
        """The response, which is a good one."""
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.hostname, self.url.port, timeout=self.silence)
        headers = {"Accept": "text/event-stream, application/json", "User-Agent": "bitctl"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        connection.request(method, self.url.path.rstrip("/") + path, body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RemoteError(self._refusal(response))
        return response

    def _refusal(self, response):
        said = response.read(MAX_REFUSAL)
        try:
            error = json.loads(said)["error"]
            said = error["message"] if isinstance(error, dict) else error
        except (ValueError, LookupError, TypeError):
            said = ""
        said = one_line(said)
        said = f": {said.replace(self.key, '…') if self.key else said}" if said else ""
        code = response.status
        if code in (401, 403):
            return f"it refuses the key of {self.key_env} ({code}){said}" if self.key else f"it wants a key ({code}): set {self.key_env}"
        if code == 429:
            after = response.getheader("Retry-After", "")
            return f"it has had too many requests (429){f', try again in {after} s' if after.isdigit() else ''}{said}"
        if 300 <= code < 400:
            return f"it points elsewhere ({code}), which is not followed: {one_line(response.getheader('Location', ''))}"
        return f"it answers {code}{said}"

    def first_model(self):
        try:
            name = json.loads(self.request("GET", "/models").read(MAX_EVENT))["data"][0]["id"]
        except (ValueError, LookupError, TypeError):
            name = None
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise RemoteError("it names no model; --remote-model NAME does")
        return name


def content_of(event):
    """(text, why it ends or None) of one event."""
    try:
        event = json.loads(event)
    except ValueError:
        raise RemoteError(f"what it sends is no JSON: {one_line(event.decode('utf-8', 'replace'))}") from None
    if isinstance(event, dict) and event.get("error"):
        error = event["error"]
        raise RemoteError(f"it breaks off: {one_line(error.get('message', error) if isinstance(error, dict) else error)}")
    try:
        choice = event["choices"][0]
    except (LookupError, TypeError):
        return "", None  # of the usage, say
    delta = choice.get("delta") or choice.get("message") or {}
    return delta.get("content") or "", choice.get("finish_reason")


def events_in(response):
    """Up to [DONE]; an endpoint that does not stream sends one."""
    if not response.getheader("Content-Type", "").startswith("text/event-stream"):
        yield response.read(MAX_EVENT)
        return
    events = Events()
    while piece := response.read1(65536):
        for event in events.feed(piece):
            if event.strip() == b"[DONE]":
                return
            yield event


def answer(request, part):
    endpoint = Endpoint(request["url"], request["key_env"], request.get("silence", 120))
    model = request["model"] or endpoint.first_model()
    body = {"model": model, "messages": request["messages"], "stream": True, **request["settings"]}
    response = endpoint.request("POST", "/chat/completions", body)
    part(model=model)
    pairs, stop = Pairs(), None
    for event in events_in(response):
        text, reason = content_of(event)
        stop = reason or stop
        if text := pairs.feed(text):
            part(text=text)
    if stop is None:
        raise RemoteError("it breaks off")
    return {"stop": "length" if stop == "length" else "end_of_turn"}


def explain(error):
    if isinstance(error, RemoteError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it is silent"
    if isinstance(error, (http.client.IncompleteRead, ConnectionResetError, http.client.RemoteDisconnected)):
        return "it breaks off"
    if isinstance(error, OSError):
        return f"cannot be reached: {one_line(error)}"
    return f"{type(error).__name__}: {one_line(error)}"


def serve(lines, reply):
    return serve_job(lines, reply, answer, lambda error: {"error": explain(error)})


if __name__ == "__main__":
    sys.exit(run(sys.argv, serve))
