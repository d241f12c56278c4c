"""The programs behind docs/durability.md: tests run them short, scripts/soak long. Each prints RESULT name=value …"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
FUZZED = ["header", "manifest", "control_page", "config", "weights", "keys", "worker"]


def result_of(command, **options):
    """(exit code, {name: number} of its RESULT line, everything it printed)."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    line = re.findall(r"^RESULT (.*)$", done.stdout, re.M)
    return done.returncode, {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line[-1] if line else "")}, done.stdout


def crash_states(*options):
    return result_of([BUILD / "tests" / "crash_states", *options])


def kill_storm(kills, seed=1, folder=None):
    where = ["--folder", folder] if folder else []
    return result_of([BUILD / "tests" / "kill_storm", BUILD / "bitctl-writer", "--kills", kills, "--seed", seed, *where])


def lock_storm(acquisitions, *options):
    return result_of([BUILD / "tests" / "lock_storm", "--acquisitions", acquisitions, *options])


def bit_flips(flips, seed=1):
    return result_of([BUILD / "tests" / "bit_flips", "--flips", flips, "--seed", seed])


def build_fuzzers():
    """The libFuzzer forms, with the address and undefined-behaviour sanitizers, in build-fuzz/. Minutes the first time."""
    assert shutil.which("clang++-14"), "libFuzzer needs clang: apt-get install clang-14 libclang-rt-14-dev"
    for command in (["cmake", "--preset", "fuzz"], ["cmake", "--build", "--preset", "fuzz"]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def fuzz(name, seconds):
    """(exit code, inputs tried, output): from the corpus on; what it finds is kept in build-fuzz/."""
    found = ROOT / "build-fuzz" / (name + "-corpus")
    found.mkdir(exist_ok=True)
    done = subprocess.run(
        [ROOT / "build-fuzz" / "tests" / (name + "_fuzz"), "-max_total_time=%d" % seconds, "-print_final_stats=1", "-max_len=8192", "-rss_limit_mb=4096",
         "-artifact_prefix=%s-" % found, found, ROOT / "tests" / "fuzz" / "corpus" / name],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return done.returncode, int(tried.group(1)) if tried else 0, done.stderr


class ThinDisk:
    """ext4 whose backing store is smaller than it says: writes are taken, and lost when they are to be kept. Root."""

    def __init__(self, says=64, has=24):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="bitctl-thin-"))
        self.store, self.disk = self.base / "store", self.base / "disk"
        self.says, self.has = says, has

    def why_not(self):
        """Mounts it; the reason where that cannot be done."""
        if os.geteuid() != 0:
            return "mounting needs root"
        self.store.mkdir()
        self.disk.mkdir()
        image = self.store / "image"
        steps = [
            ["mount", "-t", "tmpfs", "-o", "size=%dm" % self.has, "tmpfs", self.store],
            ["truncate", "-s", "%dm" % self.says, image],
            # No journal: it would turn the first error into a read-only file system, which hides what is tested here.
            ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", image],
            ["mount", "-o", "loop", image, self.disk],
        ]
        for step in steps:
            if subprocess.run(step, capture_output=True).returncode != 0:
                return "cannot do here: %s" % " ".join(map(str, step))
        return None

    def drop_caches(self):
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")

    def close(self):
        for folder in (self.disk, self.store):
            subprocess.run(["umount", "-l", folder], capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)
