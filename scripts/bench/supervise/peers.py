"""The other supervisors, and workers to be killed under all of them alike.

torchrun comes with .venv; supervisord, s6 and runit are Debian's packages, unpacked (not installed: nothing is started on
this machine) into build/bench/.
"""

import os
import pathlib
import select
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "system"))
import runs  # noqa: E402

PYTHON = str(ROOT / ".venv" / "bin" / "python")
BITCTL = str(ROOT / "build" / "bitctl")
HOME = ROOT / "build" / "bench"
PACKAGES = "supervisor python3-pkg-resources python3-setuptools s6 libs6-2.11 libskarnet2.13 libexecline2.9 runit".split()
HELPERS = 4  # processes that each worker starts in sessions of their own, as data loaders and servers are

PYTHON_WORKER = """
import os, subprocess, sys, time
fifo = os.open(sys.argv[1], os.O_WRONLY)
os.write(fifo, b"%%d\\n" %% os.getpid())
helpers = [subprocess.Popen(["sleep", "600"], start_new_session=True).pid for _ in range(%d)]
os.write(fifo, (" ".join(map(str, helpers)) + "\\n").encode())
time.sleep(600)
""" % HELPERS

C_WORKER = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char** argv) {
  char line[256];
  int fifo = open(argv[argc - 1], O_WRONLY), used = snprintf(line, sizeof line, "%%d\\n", getpid());
  if (write(fifo, line, used) != used) return 1;
  used = 0;
  for (int i = 0; i < %d; ++i) {
    int pid = fork();
    if (pid == 0) { setsid(); execlp("sleep", "sleep", "600", (char*)0); _exit(127); }
    used += snprintf(line + used, sizeof line - used, " %%d", pid);
  }
  line[used++] = '\\n';
  if (write(fifo, line, used) != used) return 1;
  sleep(600);
}
""" % HELPERS

# waitpid and spawn, in a loop: no supervisor can be faster.
C_FLOOR = """
#define _GNU_SOURCE
#include <spawn.h>
#include <sys/wait.h>
extern char** environ;
int main(int argc, char** argv) {
  for (pid_t pid; posix_spawnp(&pid, argv[1], 0, 0, argv + 1, environ) == 0;) waitpid(pid, 0, 0);
}
"""


def install():
    """Unpacks the peers once; the environment in which their programs run."""
    root = HOME / "root"
    if not (root / "usr" / "bin" / "s6-supervise").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=HOME, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for package in HOME.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
    for name, source in (("worker", C_WORKER), ("floor", C_FLOOR)):
        (HOME / (name + ".c")).write_text(source)
        subprocess.run(["cc", "-O2", "-o", HOME / name, HOME / (name + ".c")], check=True)
    (HOME / "worker.py").write_text(PYTHON_WORKER)
    libraries = [root / "usr/lib", root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu"]
    return dict(
        os.environ, LD_LIBRARY_PATH=":".join(map(str, libraries)), PATH="%s:%s" % (root / "usr" / "bin", os.environ["PATH"]),
        PYTHONPATH=str(root / "usr/lib/python3/dist-packages"),
    )  # fmt: skip


def worker(kind):
    """The command of the worker; the FIFO that it reports to is still to come."""
    return [str(HOME / "worker")] if kind == "c" else [PYTHON, str(HOME / "worker.py")]


def service_folder(folder, command):
    """What s6-supervise and runsv run."""
    folder.mkdir()
    script = folder / "run"
    script.write_text("#!/bin/sh\nexec %s\n" % " ".join(command))
    script.chmod(0o755)
    return str(folder)


def command_of(name, folder, fifo, kind):
    """How `name` is told to keep the worker alive."""
    work = [*worker(kind), fifo]
    if name.startswith("floor"):
        return [str(HOME / "floor"), *work]
    if name.startswith("bitctl"):
        (folder / (name + ".yaml")).write_text(
            "name: %s\nrun: {command: [%s]}\nrestart: {max: 1000, backoff: 0s, backoff_max: 0s, never_on: []}\nstop: {grace: 1s}\n"
            % (name, ", ".join(work))
        )
        return [BITCTL, "train", str(folder / (name + ".yaml"))]
    if name == "torchrun":
        flags = ["--nproc-per-node=1", "--max-restarts=100000"] + (["--no-python"] if kind == "c" else [])
        return [PYTHON, "-m", "torch.distributed.run", *flags, *(work[1:] if kind != "c" else work)]
    if name == "supervisord":
        (folder / "supervisord.conf").write_text(
            "[supervisord]\nnodaemon=true\npidfile=%(folder)s/supervisord.pid\nlogfile=%(folder)s/supervisord.log\n"
            "[program:worker]\ncommand=%(command)s\nautorestart=true\nstopasgroup=true\nkillasgroup=true\nstartsecs=0\nstartretries=1000000\n"
            % {"folder": folder, "command": " ".join(work)}
        )
        return ["/usr/bin/env", "python3", str(HOME / "root/usr/bin/supervisord"), "-c", str(folder / "supervisord.conf")]
    if name == "s6":
        return ["s6-supervise", service_folder(folder / "s6", work)]
    if name == "runit":
        return ["runsv", service_folder(folder / "runit", work)]
    raise ValueError(name)


class Process:
    """One whose cost is taken."""

    def __init__(self, name, pid):
        self.name, self.pid = name, pid

    def cpu_seconds(self):
        """Of all its threads, from the scheduler's own count."""
        tasks = pathlib.Path("/proc/%d/task" % self.pid).glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def megabytes(self):
        status = pathlib.Path("/proc/%d/status" % self.pid).read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Side:
    """One supervisor with its worker."""

    def __init__(self, folder, name, kind, env):
        self.name, self.helpers, self.times = name, [], []
        path = folder / (name + ".fifo")
        os.mkfifo(path)
        self.fifo = os.open(path, os.O_RDWR)
        env = dict(env, XDG_STATE_HOME=str(folder / "state"), VIRTUAL_ENV=str(ROOT / ".venv"), OMP_NUM_THREADS="1")
        if name.startswith(("bitctl", "torchrun", "floor")):
            env.pop("LD_LIBRARY_PATH")
            env.pop("PYTHONPATH")
        if name == "bitctl-sweep":
            env["BITCTL_ISOLATION"] = "sweep"
        output = open(folder / (name + ".log"), "wb")
        self.launcher = subprocess.Popen(command_of(name, folder, str(path), kind), cwd=folder, env=env, stdout=output, stderr=output)
        self.pid = 0
        try:
            self.hear()
        except BaseException:
            self.end()
            raise

    def hear(self):
        ready, _, _ = select.select([self.fifo], [], [], 120)
        assert ready, "%s: no worker in two minutes" % self.name
        self.heard = time.perf_counter()
        text = os.read(self.fifo, 4096)
        while text.count(b"\n") < 2:
            text += os.read(self.fifo, 4096)
        first, second = text.decode().splitlines()
        self.pid = int(first)
        self.helpers += map(int, second.split())

    def strike(self):
        """Milliseconds from kill -9 to the successor's first line."""
        begun = time.perf_counter()
        os.kill(self.pid, signal.SIGKILL)
        self.hear()
        return (self.heard - begun) * 1e3

    def process(self):
        return Process(self.name, self.launcher.pid)

    def leaked(self):
        """Helpers of dead leaders that run on; the last leader is alive."""
        return sum(runs.alive(pid) for pid in self.helpers[:-HELPERS])

    def end(self):
        self.launcher.send_signal(signal.SIGTERM)
        try:
            self.launcher.wait(10)
        except subprocess.TimeoutExpired:
            self.launcher.kill()
            self.launcher.wait()
        for pid in filter(None, (self.pid, *self.helpers)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def percentile(times, share):
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
