"""A save by the release build, killed and failed at its system calls; the recorder of the crash model against strace."""

import random
import subprocess

import pytest
import saves

pytestmark = pytest.mark.skipif(saves.why_not() is not None, reason=str(saves.why_not()))
TRACE = ["strace", "-f", "-y", "-qq", "-s", "0", "-e", "trace=" + ",".join(saves.CHANGES)]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "checkpoints"
    path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["first", "retention", "exchange", "bad folder", "linked"])
def test_the_recorder_saw_every_call_that_strace_saw(tmp_path, folder, kind):
    """What the crash states are made of is what the program does."""
    before = {"first": 0, "retention": 3, "exchange": 2, "bad folder": 2, "linked": 1}[kind]
    options = ["--frozen"] if kind == "linked" else []
    for step in range(1, before + 1):
        assert saves.save(folder, step, "a", "--keep", "9", *options).returncode == 0
    if kind == "bad folder":
        (folder / "step-000000002" / "model.safetensors").write_bytes(b"torn")
    step = before if kind in ("exchange", "bad folder") else before + 1
    log, trace = tmp_path / "recorded", tmp_path / "traced"
    result = saves.save(folder, step, "b", "--keep", "2", "--record", log, *options, strace=[*TRACE, "-o", trace])
    assert result.returncode == 0, result.stderr
    recorded = saves.by_file(log.read_text().splitlines())
    traced = saves.by_file(saves.changes(trace.read_text(), folder))
    assert recorded == traced
    names = " ".join(recorded["names"])
    assert {"first": "rename", "retention": "rmdir .trash-", "exchange": "exchange", "bad folder": ".bad-", "linked": "link step-"}[kind] in names, "the control: %s" % names


def test_a_call_past_the_recorder_would_be_seen(tmp_path, folder):
    """The control of the one above: strace's own log, with one line taken out of it."""
    trace = tmp_path / "traced"
    assert saves.save(folder, 1, "b", strace=[*TRACE, "-o", trace]).returncode == 0
    lines = saves.changes(trace.read_text(), folder)
    assert len(lines) > 15
    for at in range(len(lines)):
        assert saves.by_file(lines) != saves.by_file(lines[:at] + lines[at + 1 :])


def test_whatever_breaks_at_whichever_call_no_checkpoint_is_lost(tmp_path, folder):
    """A sample with a fixed seed; scripts/soak --saves does every call and fault."""
    assert saves.save(folder, 1, "a").returncode == 0
    every = [(call, nth, fault) for call, nth in saves.places(folder, 2, "b") for fault in saves.FAULTS]
    assert len(every) > 100
    # The calls that decide, always.
    chosen = [place for place in every if place[0] in ("fsync", "renameat2") and place[2] in ("kill", "EIO")]
    acknowledged = []
    for call, nth, fault in chosen + random.Random(1).sample(every, 15):
        told, problems = saves.broken_save(tmp_path / "broken", call, nth, fault)
        assert problems == [], "%s %d: %s" % (call, nth, fault)
        acknowledged.append(told)
    assert True in acknowledged and False in acknowledged, "the control: some come before it, some after"


def test_a_run_is_durable_before_its_first_checkpoint(tmp_path, bitctl):
    """A step is worth nothing below a folder whose own name the disk does not know."""
    trace = tmp_path / "traced"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [*TRACE, "-o", trace, bitctl, "train", "--", "/bin/true"]
    subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=120)
    lines = saves.changes(trace.read_text(), tmp_path)
    run = next((tmp_path / "runs").glob("[!.]*-[0-9]*")).name
    for made, above in (("runs", ""), ("runs/" + run, "runs"), ("runs/%s/checkpoints" % run, "runs/" + run)):
        assert "fsync " + above in lines[lines.index("mkdir " + made) :], made
