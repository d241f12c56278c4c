"""One save, traced and broken from outside by strace: what tests/fault/test_saves.py samples and scripts/soak does in full."""

import json
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "build" / "tests" / "checkpoint_tool"
# Every call by which a file, a name or a size changes, so that one that goes past the recorder is seen too.
CHANGES = (
    "openat creat write pwrite64 writev pwritev pwritev2 sendfile copy_file_range fallocate ftruncate truncate fsync fdatasync sync_file_range "
    "mkdir mkdirat link linkat symlink rename renameat renameat2 unlink unlinkat rmdir"
).split()
INJECTED = "openat close write pwrite64 fallocate ftruncate fsync mkdir link rename renameat2 unlink rmdir flock".split()
FAULTS = {
    "kill": "signal=KILL",
    "EIO": "error=EIO",
    "ENOSPC": "error=ENOSPC",
    "EINTR": "error=EINTR",
    # The kernel says that it took some and takes none: it lies, and what is accepted later must be right all the same.
    "short": "retval=100",
}


def why_not():
    """Why strace cannot be used here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        return "ptrace is not allowed here"
    return None


def save(folder, step, fill, *options, strace=()):
    """CompletedProcess of a save by the release build."""
    return subprocess.run([*strace, TOOL, "save", folder, str(step), fill, *options], capture_output=True, text=True, timeout=120)


def load(folder):
    """What the next writer finds: {"step", "fill", "bad"}. Every kind of load must agree on it."""
    result = subprocess.run([TOOL, "load", folder], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    if found["step"]:
        from safetensors import safe_open

        for name in ("model.safetensors", "training.safetensors"):
            with safe_open(pathlib.Path(folder) / ("step-%09d" % found["step"]) / name, "numpy") as file:
                for key in file.keys():
                    assert set(file.get_tensor(key).tobytes()) == {ord(found["fill"])}, (name, key)
    return found


def whole_calls(text):
    """(pid, name, arguments, result) of each call in an `strace -f` log, at the place where it returned."""
    begun = {}
    for line in text.splitlines():
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest[: -len("<unfinished ...>")].rstrip()
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
        if resumed:
            rest = begun.pop(pid) + resumed.group(1)
        call = re.match(r"(\w+)\((.*)\)\s+= (-?\w+)", rest)
        if call:
            yield pid, call.group(1), call.group(2), call.group(3)


def changes(trace, folder):
    """The log of an `strace -f -y -s 0` in the recorder's words, lock files left out."""
    folder, lines, written = str(folder), [], {}

    def short(path):
        return path[len(folder) :].lstrip("/")

    for _, name, arguments, result in whole_calls(trace):
        if int(result, 0) < 0:
            continue
        paths = [p for p in re.findall(r'[<"]([^<>"]*)[>"]', arguments) if p == folder or p.startswith(folder + "/")]
        if not paths or paths[0].endswith(".lock"):
            continue
        numbers = arguments.split(", ")
        at = short(paths[0])
        if name == "openat":
            line = "create %s" % at if "O_CREAT" in arguments else None
        elif name == "pwrite64":
            line = "write %s %s %s" % (at, numbers[-1], result)
        elif name == "write":
            line = "write %s %d %s" % (at, written.get(at, 0), result)
            written[at] = written.get(at, 0) + int(result)
        elif name == "ftruncate":
            line = "size %s %s" % (at, numbers[-1])
        elif name == "fallocate":
            line = "size_at_least %s %s" % (at, numbers[-1])
        elif name in ("renameat2", "rename", "link"):
            what = "exchange" if "RENAME_EXCHANGE" in arguments else name.replace("at2", "")
            line = "%s %s %s" % (what, at, short(paths[1]))
        else:
            line = "%s %s" % (name, at)
        if line:
            lines.append(line)
    return lines


def by_file(lines):
    """What happened to each name, in order; writes that stand together sorted, since two workers may share a file."""
    files = {}
    for line in lines:
        kind, path = line.split(" ")[:2]
        in_file = kind in ("create", "write", "size", "size_at_least") or (kind == "fsync" and path.endswith((".safetensors", ".json")))
        calls = files.setdefault(path if in_file else "names", [])
        calls.append(line)
        at = len(calls) - 1
        while kind == "write" and at > 0 and calls[at - 1].startswith("write ") and calls[at - 1] > calls[at]:
            calls[at - 1], calls[at] = calls[at], calls[at - 1]
            at -= 1
    return files


def places(folder, *save_arguments):
    """(call, n) for every call of one save in `folder`, as strace's inject counts them: by thread."""
    log = pathlib.Path(folder).parent / "places.strace"
    result = save(folder, *save_arguments, strace=["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", "trace=" + ",".join(INJECTED)])
    assert result.returncode == 0, result.stderr
    counts, found = {}, set()
    for pid, name, arguments, _ in whole_calls(log.read_text()):
        counts[pid, name] = counts.get((pid, name), 0) + 1
        if str(folder) in arguments:
            found.add((name, counts[pid, name]))
    return sorted(found)


def broken_save(base, call, nth, fault):
    """One save into a folder that holds a good step 1, broken at that place: (acknowledged, what is wrong afterwards)."""
    folder = pathlib.Path(base) / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assert save(folder, 1, "a").returncode == 0
    inject = "inject=%s:%s:when=%d" % (call, FAULTS[fault], nth)
    # The call must be traced, too, or nothing is injected.
    result = save(folder, 2, "b", strace=["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", inject])
    acknowledged = "acknowledged 2" in result.stdout
    problems = []
    found = load(folder)
    if found["step"] == 0 or found["fill"] != {1: "a", 2: "b"}[found["step"]]:
        problems.append("found %s" % found)
    if acknowledged and found["step"] != 2 and fault != "short":
        problems.append("acknowledged and lost: %s" % found)
    if fault != "kill" and not acknowledged and result.returncode == 0:
        problems.append("neither acknowledged nor refused")
    again = save(folder, 2, "c")
    if again.returncode != 0 or load(folder) != {"step": 2, "fill": "c", "bad": []}:
        problems.append("the next save: %s %s" % (again.stderr, load(folder)))
    left = sorted(p.name for p in folder.iterdir() if p.name.startswith((".tmp-", ".trash-", ".old-")))
    if left:
        problems.append("left behind: %s" % left)
    return acknowledged, problems
