"""Healthy runs that look ill, each as a run of the real program; none of them may be taken for a hang.

scripts/soak --healthy runs them all side by side; tests/fault/test_healthy.py the quick ones.
"""

import os
import pathlib
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "system"))
import runs  # noqa: E402

# The wall clock of every process that is given it, moved by what the file says.
CLOCK_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int64_t offset(void) {
  static int64_t* shared;
  if (!shared) shared = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY | O_CLOEXEC), 0);
  return *shared;
}
int clock_gettime(clockid_t clock, struct timespec* t) {
  int result = syscall(SYS_clock_gettime, clock, t);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) t->tv_sec += offset();
  return result;
}
int gettimeofday(struct timeval* t, void* zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""


class Clock:
    """A wall clock that can be moved."""

    def __init__(self, folder):
        (folder / "clock.c").write_text(CLOCK_SHIM)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", folder / "clock.so", folder / "clock.c"], check=True)
        self.file = folder / "clock.offset"
        self.move(0)
        self.env = {"LD_PRELOAD": str(folder / "clock.so"), "CLOCK_OFFSET_FILE": str(self.file)}

    def move(self, seconds):
        with open(self.file, "r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("<q", seconds))


def freeze(run, frozen):
    """cgroup.freeze of the trainer's leaf."""
    mount = next(line.split()[4] for line in open("/proc/self/mountinfo") if " - cgroup2 " in line)
    leaf = next(line[3:].strip() for line in open("/proc/%d/cgroup" % run.trainer()) if line.startswith("0::"))
    (pathlib.Path(mount + leaf) / "cgroup.freeze").write_text("1" if frozen else "0")


def start(bitctl, folder, *arguments, watchdog=None, env=None):
    """`bitctl train` of trainers/stuck.py with these arguments; never restarted, so that a wrong verdict shows."""
    folder.mkdir(exist_ok=True)
    config = runs.config(folder, "stuck.py", arguments, watchdog=watchdog or {}, restart={"max": 1})
    return runs.Run(bitctl, folder, "train", config, env=env)


def verdicts(run):
    """Rows that a healthy run must not have."""
    return [row for row in run.events() if row["kind"] in ("hang", "violation", "failed") or (row["kind"] == "exited" and row.get("signal"))]


def neighbours():
    """Four busy processes for each CPU."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * os.cpu_count())]
