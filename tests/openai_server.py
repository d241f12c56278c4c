"""An OpenAI-compatible endpoint on 127.0.0.1 that answers "Remote: <the last prompt>", or goes wrong as it is told.

    with OpenAiServer() as remote:
        remote.next = [Refuses(429, {"Retry-After": "7"}), Sends(b"data: …")]    # one an answer, then it behaves
        … --remote remote.url …
        remote.requests     # Request(method, path, headers, body)
"""

import collections
import dataclasses
import http.server
import json
import threading

Request = collections.namedtuple("Request", "method path headers body")


@dataclasses.dataclass
class Refuses:
    code: int
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""


@dataclasses.dataclass
class Sends:
    """These pieces, each flushed; then the connection ends."""

    pieces: list
    kind: str = "text/event-stream"


@dataclasses.dataclass
class Stalls:
    """So many of the pieces of its answer, then nothing until the event is set."""

    after: int = 0
    until: threading.Event = dataclasses.field(default_factory=threading.Event)
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)


def event(text=None, finish=None):
    delta = {} if text is None else {"content": text}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


def stream_of(text):
    """One event a character, as models have it."""
    return [event(""), *(event(character) for character in text), event(finish="stop"), b"data: [DONE]\n\n"]


class OpenAiServer:
    def __init__(self, key=None):
        self.key = key
        self.next = []
        self.requests = []
        self.gone = threading.Event()  # a client went before its answer's end
        self.ended = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"remote": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    remote = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.remote.requests.append(Request("GET", self.path, dict(self.headers), None))
        self.refuse(Refuses(200, {"Content-Type": "application/json"}, b'{"data": [{"id": "first"}, {"id": "second"}]}'))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.remote.requests.append(Request("POST", self.path, dict(self.headers), body))
        fault = self.remote.next.pop(0) if self.remote.next else None
        if isinstance(fault, Refuses):
            return self.refuse(fault)
        if self.remote.key and self.headers.get("Authorization") != f"Bearer {self.remote.key}":
            return self.refuse(Refuses(401, {}, b'{"error": {"message": "who are you?"}}'))
        pieces = fault.pieces if isinstance(fault, Sends) else stream_of(f"Remote: {body['messages'][-1]['content']}")
        self.send_response(200)
        self.send_header("Content-Type", fault.kind if isinstance(fault, Sends) else "text/event-stream; charset=utf-8")
        self.end_headers()
        for n, piece in enumerate(pieces):
            if isinstance(fault, Stalls) and n == fault.after:
                fault.reached.set()
                self.wait_for(fault.until)
            self.write(piece)

    def wait_for(self, event):
        """Also the end of the client is seen, which closes its side."""
        self.connection.settimeout(0.02)
        while not event.is_set() and not self.remote.ended.is_set():
            try:
                if not self.connection.recv(1):
                    return self.remote.gone.set()
            except TimeoutError:
                continue
            except OSError:
                return self.remote.gone.set()
        self.connection.settimeout(None)

    def write(self, piece):
        try:
            self.wfile.write(piece)
        except OSError:
            self.remote.gone.set()

    def refuse(self, fault):
        self.send_response(fault.code)
        for key, value in {"Content-Length": str(len(fault.body)), **fault.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(fault.body)
