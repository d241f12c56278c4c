"""The download worker: a model of the Hugging Face hub, into the cache that all of its tools share.

`bitctl chat` runs `python -m bitctl.hub FD` (the protocol is that of bitctl._worker) and kills it to cancel.

    {"id": 1, "op": "download", "name": "org/name", "cache": "…/hub"}
        -> {"id": 1, "more": true, "file": "model.safetensors", "index": 4, "count": 4, "bytes": …,
            "total": …, "fetched": …}  (of all files; what was there already counts in bytes, not in fetched)
        -> {"id": 1, "more": true, "note": "one line: why it is waiting"}
        -> {"id": 1}  |  {"id": 1, "error": "one line"}  |  {"id": 1, "offline": true}

Requests, names, tokens, locks and links are huggingface_hub's. Its own downloads begin anew after a kill, so the bytes are
fetched here, into `blobs/<etag>.incomplete`, which the next one goes on with; `refs/main` names a snapshot once it is whole.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time

from bitctl._worker import run, serve_job

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
try:
    import httpx2 as httpx
    from filelock import Timeout as LockTimeout
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status
except ImportError as missing:
    MISSING = missing.name or str(missing)
else:
    MISSING = None

CONFIG_FILES = ("config.json", "tokenizer.json")  # without these there is no chat
TEXT_FILES = (
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

WAITS = (1, 2, 4, 8, 8)  # seconds before each next try: as many and as long as huggingface_hub's own
MAX_WAIT = 60  # for a server that asks for more, nobody waits unasked
RETRIED = (408, 429, 500, 502, 503, 504)
REPORT_EVERY = 0.25
SHA256 = re.compile("[0-9a-f]{64}")
FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class HubError(Exception):
    """One line for the user."""


class Truncated(Exception):
    """Less came than was promised, and nobody said why."""


def files_to_fetch(name, there, parts):
    """In order, of the names that the repository has: what a chat reads, and nothing else."""
    missing = [file for file in CONFIG_FILES if file not in there]
    if missing:
        raise HubError(f"{name} has no {missing[0]}, which a chat needs")
    absent = [part for part in parts if part not in there]
    if absent:
        raise HubError(f"{name}: {INDEX} names {absent[0]!r}, which is not there")
    texts = [file for file in (*CONFIG_FILES, *TEXT_FILES) if file in there]
    if WEIGHTS in there:
        return [*texts, WEIGHTS]
    if INDEX in there:
        return [*texts, INDEX, *parts]
    others = sorted(file for file in there if file.endswith((".bin", ".gguf", ".pt", ".pth", ".safetensors")))
    raise HubError(f"{name} has no {WEIGHTS} and no {INDEX}" + (f", only {', '.join(others[:3])}" if others else ""))


def parts_of(index_path):
    with open(index_path, encoding="utf-8") as file:
        index = json.load(file)
    places = index.get("weight_map") if isinstance(index, dict) else None
    parts = sorted(set(places.values())) if isinstance(places, dict) else []
    if not parts or not all(isinstance(part, str) and FILE_NAME.fullmatch(part) for part in parts):
        raise HubError(f"{index_path}: no weight_map that names files")
    return parts


def gigabytes(size):
    return f"{size / 1e9:.1f}GB"


def status_of(error):
    return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None


def retry_after(error):
    """The seconds that the server asks for; None where it does not say."""
    value = error.response.headers.get("Retry-After", "").strip()
    return int(value) if value.isdigit() else None


def wait_before_retry(error, wait):
    """Seconds; None: it is no use, or not to be waited for."""
    if wait is None:
        return None
    code = status_of(error)
    if code in RETRIED:
        asked = retry_after(error)
        return wait if asked is None else asked if asked <= MAX_WAIT else None
    return wait if isinstance(error, (httpx.TransportError, Truncated)) else None


def explain(error, name):
    """The failure and its remedy, in one line."""
    endpoint, code = constants.ENDPOINT, status_of(error)
    token = "the token of HF_TOKEN may not read it" if get_token() else "set HF_TOKEN"
    if isinstance(error, HubError):
        return str(error)
    if code == 404:
        return f"no model {name} at {endpoint} (404); if it is private or gated: {token}"
    if code == 401:
        return f"no model {name} at {endpoint}, or it is private or gated (401): {token}"
    if code == 403:
        return f"{endpoint}/{name} is not open to you (403): ask for access there; {token}"
    if code == 429:
        asked = retry_after(error)
        when = f"; it asks for {asked} s of patience" if asked is not None else ""
        return f"{endpoint} has had too many requests (429){when}" + ("" if get_token() else "; HF_TOKEN gives more of them")
    if code is not None:
        return f"{endpoint} answers {code}, again and again" if code in RETRIED else f"{endpoint} answers {code}"
    if isinstance(error, httpx.ConnectError):
        return f"cannot reach {endpoint}: {error}; see the network, a proxy, HF_ENDPOINT"
    if isinstance(error, httpx.TimeoutException):
        return f"{endpoint} is silent"
    if isinstance(error, (httpx.TransportError, Truncated)):
        return f"{endpoint} breaks off, again and again: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {error.filename or 'the cache'} is full; what has come is kept"
    if isinstance(error, (HFValidationError, OSError)):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}"


def one_line(error):
    return " ".join(str(error).split())


class Download:
    """One model. `part(**fields)` hears how far it is."""

    def __init__(self, name, cache, part):
        self.name, self.cache, self.part, self.endpoint = name, cache, part, constants.ENDPOINT
        self.folder = os.path.join(cache, repo_folder_name(repo_id=name, repo_type="model"))
        self.reached = False  # before, what cannot be reached is said at once
        self.bytes = self.total = self.fetched = 0
        self.shown = {}
        self.reported = None
        self.ended = threading.Event()

    def run(self):
        # While a read waits for bytes nobody else would tell of those that have come.
        teller = threading.Thread(target=self._tell, daemon=True)
        teller.start()
        try:
            self._run()
        finally:
            self.ended.set()
            teller.join()

    def _tell(self):
        while not self.ended.wait(REPORT_EVERY):
            self._report()

    def _run(self):
        info = self._patiently(lambda: HfApi(self.endpoint).model_info(self.name, files_metadata=True))
        self.reached = True
        self.commit = info.sha
        self.sizes = {file.rfilename: file.size for file in info.siblings or []}
        if not isinstance(self.commit, str) or not FILE_NAME.fullmatch(self.commit):
            raise HubError(f"{self.endpoint} names no commit of {self.name}")
        indexed = WEIGHTS not in self.sizes and INDEX in self.sizes
        parts = parts_of(self._fetch(INDEX)) if indexed else []
        files = files_to_fetch(self.name, self.sizes, parts)
        # A server that does not tell sizes tells no total either.
        sizes = [self.sizes[file] for file in files]
        self.total = 0 if None in sizes else sum(sizes)
        self._check_disk(files)
        self.bytes = 0
        for index, file in enumerate(files, 1):
            self.shown = {"file": file, "index": index, "count": len(files)}
            self._report()
            self._fetch(file)
        self._name_snapshot()

    def _patiently(self, act, came=lambda: False):
        waits = iter(WAITS)
        while True:
            try:
                return act()
            except Exception as error:
                if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
                    error = error.__cause__
                if came():
                    waits = iter(WAITS)
                may_come_back = self.reached or not isinstance(error, httpx.ConnectError)
                wait = wait_before_retry(error, next(waits, None)) if may_come_back else None
                if wait is None:
                    raise error from None
                self.part(note=f"{explain(error, self.name).removesuffix(', again and again')}; next try in {wait} s")
                time.sleep(wait)

    def _report(self):
        far = {**self.shown, "bytes": self.bytes, "total": self.total, "fetched": self.fetched}
        if self.shown and far != self.reported:
            self.reported = far
            self.part(**far)

    def _pointer(self, file):
        return os.path.join(self.folder, "snapshots", self.commit, file)

    def _check_disk(self, files):
        """Partial files are not looked for: they are named by an ETag, which nobody has asked for yet."""
        wanted = sum(self.sizes[file] or 0 for file in files if not os.path.exists(self._pointer(file)))
        blobs = os.path.join(self.folder, "blobs")
        with contextlib.suppress(FileNotFoundError):
            wanted -= sum(entry.stat().st_size for entry in os.scandir(blobs) if entry.name.endswith(".incomplete"))
        place = self.cache
        while not os.path.exists(place):
            place = os.path.dirname(place) or "."
        free = shutil.disk_usage(place).free
        if wanted > free:
            raise HubError(
                f"{self.name} needs {gigabytes(wanted)} more and {self.cache} has {gigabytes(free)} free; "
                "free some, or set HF_HUB_CACHE to a folder on another disk"
            )

    def _fetch(self, file):
        """The file's path in the snapshot, where it is whole."""
        pointer = self._pointer(file)
        if os.path.exists(pointer):
            self.bytes += os.path.getsize(pointer)
            return pointer
        url = hf_hub_url(self.name, file, revision=self.commit, endpoint=self.endpoint)
        metadata = self._patiently(lambda: get_hf_file_metadata(url, endpoint=self.endpoint))
        if not FILE_NAME.fullmatch(metadata.etag or ""):
            raise HubError(f"{self.endpoint} gives {file} no ETag that could be its name in the cache")
        blob = os.path.join(self.folder, "blobs", metadata.etag)
        os.makedirs(os.path.dirname(blob), exist_ok=True)
        with self._locked(metadata.etag, blob):
            if os.path.exists(blob):
                self.bytes += os.path.getsize(blob)
            else:
                self._fetch_blob(url, blob, metadata)
        # The library makes the links: the layout of the cache is its own.
        return self._patiently(
            lambda: hf_hub_download(
                self.name, file, revision=self.commit, cache_dir=self.cache, endpoint=self.endpoint
            )
        )

    @contextlib.contextmanager
    def _locked(self, etag, blob):
        """The lock that huggingface_hub takes. While another process has it, what that one has fetched is shown."""
        path = os.path.join(self.cache, ".locks", os.path.basename(self.folder), f"{etag}.lock")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        before, came = self.bytes, None
        while True:
            lock = WeakFileLock(path, timeout=REPORT_EVERY)
            try:
                lock.__enter__()
            except LockTimeout:
                with contextlib.suppress(FileNotFoundError):
                    size = os.path.getsize(blob + ".incomplete")
                    self.fetched += 0 if came is None else max(size - came, 0)
                    self.bytes, came = before + size, size
                continue
            break
        self.bytes = before
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def _fetch_blob(self, url, blob, metadata):
        partial = blob + ".incomplete"
        with open(partial, "ab") as file:
            at = file.tell()
            self.bytes += at
            self._report()

            def came():
                nonlocal at
                before, at = at, file.tell()
                return at > before

            self._patiently(lambda: self._stream(url, file, metadata.size), came)
        if SHA256.fullmatch(metadata.etag):
            with open(partial, "rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == metadata.etag
            if not same:
                os.unlink(partial)
                raise HubError(f"{os.path.basename(url)} is not what the hub says it is (SHA-256), so it was deleted")
        os.replace(partial, blob)

    def _stream(self, url, file, size):
        at = file.tell()
        if at == size:
            return
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if at > 0:
            headers["Range"] = f"bytes={at}-"
        with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {at}-")
            if at > 0 and (response.status_code == 416 or (response.is_success and not goes_on)):
                self.bytes -= at
                file.seek(0)
                file.truncate()
            if response.status_code == 416:
                raise Truncated("what had come was more than there is")
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                file.write(chunk)
                self.fetched += len(chunk)
                self.bytes += len(chunk)
        if size is not None and file.tell() != size:
            raise Truncated(f"{file.tell()} of {size} bytes came")

    def _name_snapshot(self):
        ref = os.path.join(self.folder, "refs", constants.DEFAULT_REVISION)
        os.makedirs(os.path.dirname(ref), exist_ok=True)
        with open(f"{ref}.{os.getpid()}", "w", encoding="utf-8") as file:
            file.write(self.commit)
        os.replace(file.name, ref)


def serve(lines, reply):
    if MISSING:
        reply({"fatal": f"to download a model: {sys.executable} -m pip install 'huggingface_hub>=2' ({MISSING} is missing)"})
        return 1
    name = ""

    def job(request, part):
        nonlocal name
        name = request["name"]
        Download(name, request["cache"], part).run()
        return {}

    def failure(error):
        return {"offline": True} if isinstance(error, OfflineModeIsEnabled) else {"error": explain(error, name)}

    return serve_job(lines, reply, job, failure)


if __name__ == "__main__":
    sys.exit(run(sys.argv, serve))
