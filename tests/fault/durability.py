"""The programs behind docs/durability.md: tests run them short, scripts/soak long. Each prints RESULT name=value …"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
FUZZED = {
    "header": ["safetensors"],
    "manifest": ["safetensors", "checkpoint"],
    "control_page": ["safetensors", "checkpoint", "snapshot"],
}


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


def build_fuzzer(name):
    """The libFuzzer form of tests/fuzz/<name>_fuzz.cc, with address and undefined-behaviour sanitizers."""
    compiler = shutil.which("clang++-14") or shutil.which("clang++")
    assert compiler, "libFuzzer needs clang: apt-get install clang-14 libclang-rt-14-dev"
    folder = BUILD / "fuzz"
    folder.mkdir(exist_ok=True)
    flags = ["-g", "-O1", "-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize-recover=undefined", "-I%s" % (ROOT / "src")]
    sources = [ROOT / "tests" / "fuzz" / ("%s_fuzz.cc" % name)]
    for room in ["base", *FUZZED[name]]:
        sources += sorted((ROOT / "src" / room).glob("*.c*"))
    objects = []
    for source in sources:
        made = folder / (source.parent.name + "-" + source.name + ".o")
        if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
            if source.suffix == ".c":
                command = [compiler.replace("++", ""), *flags]
            else:  # the programs' precompiled header, as text: some sources rely on it
                command = [compiler, "-std=c++20", "-include", str(ROOT / "src" / "pch.h"), *flags]
            subprocess.run([*command, "-c", source, "-o", made], check=True)
        objects.append(made)
    fuzzer = folder / name
    libraries = ["-lfmt", "-lspdlog", "-lxxhash", "-lutf8proc", "-lpthread", "-ldl"]
    subprocess.run([compiler, "-fsanitize=fuzzer,address,undefined", *objects, *libraries, "-o", fuzzer], check=True)
    return fuzzer


def fuzz(name, seconds):
    """(exit code, inputs tried, output): libFuzzer from the corpus; what it finds is kept in build/fuzz."""
    fuzzer = build_fuzzer(name)
    found = BUILD / "fuzz" / (name + "-corpus")
    found.mkdir(exist_ok=True)
    done = subprocess.run(
        [fuzzer, "-max_total_time=%d" % seconds, "-print_final_stats=1", "-max_len=8192", "-artifact_prefix=%s-" % fuzzer, found, ROOT / "tests" / "fuzz" / "corpus" / name],
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
