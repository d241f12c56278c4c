"""A hub on 127.0.0.1: what huggingface_hub asks for, and everything that can go wrong on the way.

    with HubServer({"org/tiny": {"config.json": b"{}", …}}) as hub:
        hub.faults["GET", "model.safetensors"] = [Breaks(at=1000), Status(500)]     # one a request, then none
        … HF_ENDPOINT=hub.url …
        hub.sent["model.safetensors"]       # bytes of bodies
        hub.requests                        # Request(method, path, headers)
"""

import collections
import dataclasses
import hashlib
import http.server
import json
import re
import socket
import threading
import urllib.parse

COMMIT = "c0ffee" + "0" * 34
INFO = "info"  # the name under which faults of the model's description stand
Request = collections.namedtuple("Request", "method path headers")


@dataclasses.dataclass
class Status:
    """An answer that is none."""

    code: int
    headers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Breaks:
    """The connection ends behind so many bytes of the body; told: not even Content-Length says that more was due."""

    at: int
    told: bool = False


@dataclasses.dataclass
class Stalls:
    """Nothing comes behind so many bytes of the body, until the event is set."""

    at: int
    until: threading.Event = dataclasses.field(default_factory=threading.Event)
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)


@dataclasses.dataclass
class Lies:
    """Another byte stands at that place."""

    at: int


@dataclasses.dataclass
class IgnoresRange:
    """The whole body with 200, whatever was asked for."""


class HubServer:
    def __init__(self, models, token=None):
        self.models = models
        self.token = token  # asked for, where it is set
        self.faults = {}
        self.requests = []
        self.waits = []
        self.ended = threading.Event()
        self.sent = collections.Counter()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self, cache):
        return {"HF_ENDPOINT": self.url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "",
                "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1" if self.token is None else "0",
                "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def gets(self, file):
        return [request for request in self.requests if request.method == "GET" and request.path.endswith("/" + file)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = urllib.parse.urlsplit(self.path).path
        self.hub.requests.append(Request(self.command, path, dict(self.headers)))
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (info or file)[1] if info or file else None
        fault = self.next_fault(INFO if info else file[3] if file else None)
        if isinstance(fault, Status):
            return self.refuse(fault.code, fault.headers)
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(401, {"X-Error-Code": "GatedRepo"})
        if name not in self.hub.models:
            return self.refuse(404, {"X-Error-Code": "RepoNotFound"})
        files = self.hub.models[name]
        if info:
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
        if file[2] not in (COMMIT, "main") or file[3] not in files:
            return self.refuse(404, {"X-Error-Code": "EntryNotFound"})
        return self.send(files[file[3]], file[3], fault)

    def next_fault(self, file):
        faults = self.hub.faults.get((self.command, file))
        return faults.pop(0) if faults else None

    def refuse(self, code, headers):
        self.send_response(code)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def send(self, body, file=None, fault=None):
        digest = hashlib.sha256(body).hexdigest()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = 0 if asked is None or isinstance(fault, IgnoresRange) else int(asked[1])
        if begin > 0 and begin >= len(body):
            return self.refuse(416, {})
        self.send_response(206 if begin > 0 else 200)
        if begin > 0:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if isinstance(fault, Breaks) and fault.told:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(fault, Lies):
            body = body[: fault.at] + bytes([body[fault.at] ^ 1]) + body[fault.at + 1 :]
        end = fault.at if isinstance(fault, (Breaks, Stalls)) else len(body)
        self.write(body[begin:end], file)
        if isinstance(fault, Stalls):
            fault.reached.set()
            while not self.hub.ended.is_set() and not fault.until.wait(0.02):
                pass
            self.write(body[end:], file)
        if isinstance(fault, Breaks):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def write(self, content, file):
        try:
            for at in range(0, len(content), 65536):
                piece = content[at : at + 65536]
                self.wfile.write(piece)
                self.hub.sent[file] += len(piece)
        except OSError:  # the client has gone
            self.close_connection = True
