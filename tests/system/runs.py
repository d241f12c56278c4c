"""Starting runs of the real program and looking at what they leave behind."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
TRAINERS = pathlib.Path(__file__).parent / "trainers"
DEADLINE = 120  # seconds: for a machine that is busy with something else


def wait_for(condition, what, deadline=DEADLINE):
    """The first true value of condition(); fails the test with `what` after the deadline."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited %d s for %s" % (deadline, what)
        time.sleep(0.01)


def state(pid):
    """Its letter in /proc, X where it is gone."""
    try:
        stat = pathlib.Path("/proc/%d/stat" % pid).read_text()
    except OSError:
        return "X"
    return stat[stat.rindex(")") + 2]


def alive(pid):
    """True for a process that runs; a zombie does not."""
    return state(pid) not in "ZX"


def marked(run_dir):
    """The pids that carry the run's marker."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"BITCTL_RUN_DIR=" + str(run_dir).encode() in environ and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def children_named(parent, name):
    """The pids of a process's children of that name."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        if stat[stat.index("(") + 1 : stat.rindex(")")] == name and int(stat[stat.rindex(")") + 2 :].split()[1]) == parent:
            found.append(int(entry.name))
    return found


class Run:
    """One `bitctl train` (or resume) in the background."""

    def __init__(self, bitctl, folder, *arguments, env=None, stdin=subprocess.DEVNULL):
        self.bitctl, self.folder = bitctl, pathlib.Path(folder)
        self.output = self.folder / ("bitctl-%d.out" % time.monotonic_ns())
        # A shell starts what it puts into the background with SIGINT ignored, and that is inherited.
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [bitctl, *map(str, arguments)], cwd=folder, env=environment(self.folder, env), stdin=stdin, stdout=output,
                stderr=subprocess.STDOUT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    @property
    def path(self):
        return wait_for(lambda: (self.folder / "runs" / "latest").resolve() if (self.folder / "runs" / "latest").exists() else None, "the run folder")

    def folders(self):
        """Every run's folder beside this one's."""
        return [path for path in (self.folder / "runs").glob("*-*") if path.is_dir()]

    def events(self, kind=None):
        return events_of(self.path, kind)

    def wait_event(self, kind, deadline=DEADLINE, **fields):
        def found():
            rows = [r for r in self.events(kind) if all(r.get(k) == v for k, v in fields.items())]
            if not rows and self.is_over():
                raise AssertionError("bitctl ended (%s) before %s %s:\n%s" % (self.process.returncode, kind, fields, self.text()))
            return rows

        return wait_for(found, "event %s %s" % (kind, fields), deadline)[-1]

    def wait_step(self, step):
        def reached():
            rows = self.events("progress")
            if self.is_over() and not (rows and rows[-1]["step"] >= step):
                raise AssertionError("bitctl ended (%s) before step %d:\n%s" % (self.process.returncode, step, self.text()))
            return rows and rows[-1]["step"] >= step

        wait_for(reached, "step %d" % step)

    def trainer(self):
        return self.wait_event("spawned")["pid"]  # a spawn comes before its own record

    def writer(self):
        return wait_for(lambda: children_named(self.process.pid, "bitctl-writer"), "the writer")[0]

    def wait(self, deadline=DEADLINE):
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError("bitctl did not end:\n" + self.text())

    def text(self):
        text = self.output.read_text(errors="replace")
        for log in sorted((self.folder / "runs").glob("latest/logs/*.log")):
            text += "\n--- %s\n%s" % (log.name, log.read_text(errors="replace")[-3000:])
        return text

    def wait_log(self, text, attempt=1):
        """Until the attempt has written it."""
        path = self.path / "logs" / ("attempt-%d.log" % attempt)
        wait_for(lambda: path.exists() and text.encode() in path.read_bytes()[-4096:], "%r in %s" % (text, path.name))

    def pulse(self):
        path = self.path / "training_status.json"
        wait_for(path.exists, "the first PULSE")
        return json.loads(path.read_text())

    def is_over(self):
        """Neither the command nor a supervisor that it left in the background is at work."""
        return self.process.poll() is not None and not any(map(is_that_process, self.events("supervising")[-1:]))

    def supervisor(self):
        """The pid of the one that holds the run, or did."""
        return wait_for(lambda: self.events("supervising"), "a supervisor")[-1]["pid"]

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(AssertionError):  # two at once are one to the kernel
                wait_for(lambda: self.process.poll() is not None or "stop requested" in self.text(), "the first request", 5)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for path in self.folders():
            end_detached(path)
        # Of a test that failed, too.
        for path in self.folders():
            for pid in marked(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def is_that_process(row):
    """Whether the supervisor of this row lives."""
    try:
        stat = pathlib.Path("/proc/%d/stat" % row["pid"]).read_text()
    except OSError:
        return False
    return alive(row["pid"]) and int(stat[stat.rindex(")") + 2 :].split()[19]) == row["start_ticks"]


def end_detached(run_dir):
    """Ends a supervisor that nobody waits for."""
    for row in events_of(run_dir, "supervising")[-1:]:
        if is_that_process(row):
            for _ in range(2):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(row["pid"], signal.SIGTERM)
            wait_for(lambda: not is_that_process(row), "the end of supervisor %d" % row["pid"], 60)


def environment(folder, more=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith("BITCTL_") or k == "BITCTL_ISOLATION"}
    env.update(
        VIRTUAL_ENV=str(ROOT / ".venv"), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"),
        XDG_CACHE_HOME=str(folder / "cache"),
    )  # fmt: skip
    env.pop("XDG_RUNTIME_DIR", None)
    env.update(more or {})
    return env


def events_of(run_dir, kind=None):
    try:
        lines = (pathlib.Path(run_dir) / "events.jsonl").read_text().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            pass  # the last one, still being written
    return [r for r in rows if kind is None or r["kind"] == kind]


def config(folder, script, args=(), **sections):
    """Writes a config.yaml (JSON is YAML) for one of the trainers and returns its path.

    Without a spare, unless it is asked for: one costs some seconds of work in every run.
    """
    content = {
        "version": 1, "name": "test", "run": {"script": str(TRAINERS / script), "args": [str(a) for a in args]},
        "restart": {"warm": "off"},
    }  # fmt: skip
    for name, value in sections.items():
        content.setdefault(name, {}).update(value) if isinstance(value, dict) else content.__setitem__(name, value)
    path = pathlib.Path(folder) / "config.yaml"
    path.write_text(json.dumps(content, indent=1))
    return path


def python():
    return str(ROOT / ".venv" / "bin" / "python") if (ROOT / ".venv").exists() else sys.executable
