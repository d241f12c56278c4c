"""A user's systemd where there is none: a `systemd-run` that puts a command into a cgroup of its own, as --scope does."""

import contextlib
import os
import pathlib
import threading
import uuid

import runs

SCRIPT = """#!/bin/sh
# systemd-run --user --scope --quiet --collect -p Delegate=yes -- COMMAND …
while [ "$1" != -- ]; do shift; done
shift
exec 3<>%(answers)s
echo $$ >%(requests)s
read -r answer <&3
exec 3>&-
exec "$@"
"""


def mount():
    """The folder where cgroup v2 is mounted; empty where it is not."""
    for line in open("/proc/self/mountinfo"):
        if " - cgroup2 " in line:
            return line.split()[4]
    return ""


def can_use_cgroups():
    return os.geteuid() == 0 and mount() != ""


def removed(scope):
    """Tries to remove a cgroup and what is below it; true when it is gone."""
    for folder, _, _ in os.walk(scope, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not scope.exists()


@contextlib.contextmanager
def installed(folder, uid=0):
    """The folder of the fake, for PATH. The scopes it makes belong to `uid`; what is left of them goes in the end."""
    folder = pathlib.Path(folder) / "systemd"
    folder.mkdir()
    pipes = {"requests": folder / "requests", "answers": folder / "answers"}
    for pipe in pipes.values():
        os.mkfifo(pipe)
        os.chown(pipe, uid, -1)
    script = folder / "systemd-run"
    script.write_text(SCRIPT % pipes)
    script.chmod(0o755)
    made = []
    # Both ends of each: no reader or writer less is an end of file.
    requests, answers = (os.fdopen(os.open(pipe, os.O_RDWR), "r+b", buffering=0) for pipe in pipes.values())

    def serve():
        while (pid := requests.readline().strip()) != b"end":
            scope = pathlib.Path(mount()) / ("bitctl-fake-scope-" + uuid.uuid4().hex[:8])
            scope.mkdir()
            made.append(scope)
            for path in (scope, scope / "cgroup.procs", scope / "cgroup.subtree_control", scope / "cgroup.threads"):
                os.chown(path, uid, -1)
            (scope / "cgroup.procs").write_text(pid.decode())
            answers.write(b"done\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield str(folder)
    finally:
        requests.write(b"end\n")
        thread.join()
        for scope in made:
            # A writer may still be in there.
            runs.wait_for(lambda: removed(scope), "the end of " + scope.name, 30)
