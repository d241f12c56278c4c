"""The writer: what it refuses, what it does on a full disk, and who waits for whom."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest
import runs
from runs import wait_for

LIAR = """
import time, torch, bitctl
from bitctl import _tensors
entry_text = _tensors.entry_text
def lie(*piece):
    return entry_text(*piece).replace('"shape":[4,4]', '"shape":[4,5]')
_tensors.entry_text = lie
model = torch.nn.Linear(4, 4)
run = bitctl.init()
run.restore(model=model)
for step in range(1, 1000):
    run.progress(step=step, total_steps=1000, loss=1.0)
    run.checkpoint(step, force=step % 10 == 0)
    time.sleep(0.02)
"""


def without_engine(tmp_path):
    """An installation that lacks the engine module."""
    folder = tmp_path / "no-engine"
    folder.mkdir()
    for name in ("bitctl", "bitctl-writer", "libbitctl_snapshot.so"):
        shutil.copy2(runs.ROOT / "build" / name, folder / name)
    (folder / "python").symlink_to(runs.ROOT / "python")
    return str(folder / "bitctl")


def stop(run):
    run.process.send_signal(signal.SIGINT)
    return run.wait()


@pytest.mark.parametrize("with_engine", [True, False])
def test_a_header_that_lies_is_refused_in_the_engines_own_words(tmp_path, bitctl, engine, with_engine):
    (tmp_path / "train.py").write_text(LIAR)
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\n")
    run = runs.Run(bitctl if with_engine else without_engine(tmp_path), tmp_path, "train", "config.yaml")
    try:
        reason = run.wait_event("persist_failed")["reason"]
        assert ("torch: tensor" in reason) == with_engine, reason
        assert "weight" in reason
        assert not list((run.path / "checkpoints").glob("step-*")), "it must not be committed"
        assert run.process.poll() is None, "and training goes on"
        ready = run.events("writer_ready")[0]
        assert ready["tensor_check"].startswith("torch 2.13") if with_engine else ready["tensor_check"] == "none"
    finally:
        run.end()


def test_without_the_engine_checkpoints_are_still_committed_and_say_so(tmp_path, engine):
    run = runs.Run(without_engine(tmp_path), tmp_path, "train", runs.config(tmp_path, "small.py", [20], checkpoints={"every": 5}))
    try:
        assert run.wait() == 0
        manifest = json.loads((run.path / "checkpoints" / "step-000000020" / "manifest.json").read_text())
        assert manifest["tensor_check"] == "none"
    finally:
        run.end()


def test_a_tensor_with_nan_is_legal_and_named(start, tmp_path, engine):
    (tmp_path / "train.py").write_text(
        "import torch, bitctl\nmodel = torch.nn.Linear(3, 3)\nrun = bitctl.init()\nrun.restore(model=model)\n"
        "with torch.no_grad(): model.bias[1] = float('nan')\n"
        "run.progress(step=1, total_steps=1, loss=float('nan'))\nrun.finish()\n"
    )
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\n")
    run = start("train", "config.yaml")
    assert run.wait() == 0
    manifest = json.loads(next((run.path / "checkpoints").glob("step-*/manifest.json")).read_text())
    assert manifest["non_finite"] == ["model.safetensors:bias"]


def mounted(tmp_path, size, kind):
    """A small file system of its own: a loop device with ext4, or tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=%dm" % size, "tmpfs", folder]
    else:
        image = tmp_path / "disk.img"
        with open(image, "wb") as file:
            file.truncate(size << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        command = ["mount", "-o", "loop", image, folder]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("cannot mount %s here" % kind)
    return folder


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_disk_keeps_the_snapshot_in_memory_and_the_training_running(start, tmp_path, kind):
    disk = mounted(tmp_path, 48, kind)
    try:
        config = runs.config(
            disk, "small.py", [4000, "--pause", 0.02, "--grow", 4], checkpoints={"every": 20, "keep_last": 1}, output={"dir": str(disk / "runs")}
        )
        (tmp_path / "runs").symlink_to(disk / "runs")
        run = start("train", config)
        run.wait_event("committed")
        ballast = disk / "ballast"
        with open(ballast, "wb") as file:
            try:
                while True:
                    file.write(b"x" * (1 << 20))
                    file.flush()
            except OSError:
                pass
        run.wait_event("persist_failed")
        failed = run.events("persist_failed")[-1]
        assert failed["errno"] == 28 and failed["final"] is False
        step = run.events("progress")[-1]["step"]
        wait_for(lambda: run.events("progress")[-1]["step"] > step or kind == "tmpfs", "training that goes on")
        assert runs.alive(run.trainer())
        if kind == "ext4":  # where PULSE lies on the full disk itself, it can stay behind
            wait_for(lambda: "is not on disk yet" in run.pulse()["message"], "the truth in PULSE")
        # At once; a moment long the next try has one of its own.
        wait_for(lambda: not list((run.path / "checkpoints").glob(".tmp-*/*.safetensors")), "the end of what cannot be finished")
        committed = len(run.events("committed"))
        ballast.unlink()
        wait_for(lambda: len(run.events("committed")) > committed, "the next commit")
        wait_for(lambda: "is not on disk yet" not in run.pulse()["message"], "a message without the trouble")
        assert stop(run) == 75
    finally:
        run.end()
        subprocess.run(["umount", "-l", disk])


def test_what_a_dying_disk_has_acknowledged_is_there_after_a_reboot(tmp_path, bitctl):
    """A file system of 64 MiB on a store of 24: writes fail, the journal aborts, and no step is acknowledged that is lost."""
    store = mounted(tmp_path, 24, "tmpfs")
    disk = tmp_path / "thin"
    disk.mkdir()
    image = store / "disk.img"
    mount = ["mount", "-o", "loop", image, disk]
    mounts = [store]
    try:
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("cannot mount a loop device here")
        mounts.append(disk)
        tool = subprocess.Popen([runs.ROOT / "build" / "tests" / "checkpoint_bench", disk, "4", "6"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert tool.stdout.readline() == "ready\n"
        answers = {}
        for step in range(1, 13):
            print("save", step, file=tool.stdin, flush=True)
            answers[step] = json.loads(tool.stdout.readline())
        tool.stdin.close()
        tool.wait()
        acknowledged = {step for step, answer in answers.items() if "error" not in answer}
        assert 2 <= len(acknowledged) < 10, answers
        subprocess.run(["umount", disk], check=True)
        mounts.pop()
        subprocess.run(["mount", "-o", "remount,size=80m", store], check=True)  # the store works again
        subprocess.run(["e2fsck", "-p", image], capture_output=True)
        subprocess.run(mount, check=True)
        mounts.append(disk)
        for step in acknowledged:
            verified = subprocess.run([bitctl, "checkpoints", "verify", "--deep", disk / ("step-%09d" % step)], capture_output=True, text=True)
            assert verified.returncode == 0, verified.stdout + verified.stderr
    finally:
        for folder in reversed(mounts):
            subprocess.run(["umount", "-l", folder])


def test_an_open_chat_or_reader_delays_no_save(start, tmp_path):
    """A shared lock that is never let go holds a commit up for two seconds, no longer, and is named."""
    run = start("train", runs.config(tmp_path, "small.py", [4000, "--pause", 0.02], checkpoints={"every": 50}))
    run.wait_event("committed")
    reader = subprocess.Popen(
        [runs.python(), "-c", "import fcntl, sys, time\nf = open(sys.argv[1])\nfcntl.flock(f, fcntl.LOCK_SH)\nprint('held', flush=True)\ntime.sleep(600)", run.path / "checkpoints" / ".lock"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        reader.stdout.readline()
        event = run.wait_event("reader_in_the_way")
        assert "pid %d" % reader.pid in event["reader"]
        committed = run.wait_event("committed", step=event["step"])
        assert 2000 <= committed["ms"] < 60000
    finally:
        reader.kill()
        reader.wait()
    assert stop(run) == 75


def test_a_diverged_model_with_a_thousand_tensors_is_known_to_be_saved(start, tmp_path):
    """What the writer reports must fit into a message, however many tensors hold a NaN."""
    (tmp_path / "train.py").write_text(
        "import bitctl, torch\n"
        "name = 'a_name_of_a_parameter_as_long_as_they_are_in_deep_models_'\n"
        "model = torch.nn.ParameterDict({name + str(i): torch.nn.Parameter(torch.full((1,), torch.nan)) for i in range(1200)})\n"
        "run = bitctl.init()\n"
        "run.restore(model=model)\n"
        "run.progress(step=1, total_steps=1)\n"
        "run.finish()\n"
    )
    run = start("train", "--", runs.python(), "train.py")
    assert run.wait() == 0, run.text()
    assert run.events("committed")[-1]["non_finite"] == 1200
    manifest = json.loads((run.path / "checkpoints" / "step-000000001" / "manifest.json").read_text())
    assert len(manifest["non_finite"]) == 1200


def test_a_writer_that_always_dies_ends_the_run_with_a_reason(start, tmp_path):
    """A training whose work nobody saves is not kept alive; the fourth death still is no reason to end it."""
    run = start("train", runs.config(tmp_path, "small.py", [100000, "--pause", 0.02], checkpoints={"every": 1000000}))
    run.wait_event("progress")
    for deaths in range(1, 6):
        assert run.process.poll() is None, run.text()
        os.kill(run.writer(), signal.SIGKILL)
        wait_for(lambda: len(run.events("writer_died")) == deaths, "death %d" % deaths)
    assert run.wait() == 125
    assert run.pulse()["status"] == "error"
    assert "died 5 times without saving anything" in run.pulse()["message"]
    assert runs.marked(run.path) == []


def test_two_writers_never_save_at_once(start, tmp_path):
    """Somebody else holds .writer.lock: the save waits for it, training goes on, and the snapshot is not lost."""
    import fcntl

    run = start("train", runs.config(tmp_path, "small.py", [4000, "--pause", 0.02], checkpoints={"every": 20}))
    run.wait_event("committed")
    with open(run.path / "checkpoints" / ".writer.lock", "r+") as lock:
        wait_for(lambda: try_lock(fcntl, lock), "the writer's lock")
        before = len(run.events("committed"))
        step = run.events("progress")[-1]["step"]
        run.wait_step(step + 60)
        assert len(run.events("committed")) == before
    wait_for(lambda: len(run.events("committed")) > before, "a commit after the lock was let go")
    assert stop(run) == 75


def test_a_writer_that_is_stuck_is_said_and_the_training_goes_on(start, tmp_path):
    """As one that waits for a disk which does not answer; a minute, by our own clock."""
    run = start("train", runs.config(tmp_path, "small.py", [100000, "--pause", 0.02], checkpoints={"every": 20}))
    run.wait_event("committed")
    writer = run.writer()
    os.kill(writer, signal.SIGSTOP)
    wait_for(lambda: "is not on disk yet: nothing was saved for 1m" in run.pulse()["message"], "the news")
    assert len(run.events("persist_failed")) == 1
    run.wait_step(run.events("progress")[-1]["step"] + 20)
    os.kill(writer, signal.SIGCONT)
    wait_for(lambda: "is not on disk yet" not in run.pulse()["message"], "a message without the trouble")
    assert stop(run) == 75


def try_lock(fcntl, file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def test_the_files_open_in_transformers(start, tmp_path, engine):
    """What finish() leaves is a folder that from_pretrained reads."""
    import torch
    import transformers

    (tmp_path / "train.py").write_text(
        "import torch, bitctl\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "torch.manual_seed(3)\n"
        "model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,"
        " num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))\n"
        "run = bitctl.init()\nrun.restore(model=model)\nrun.progress(step=1, total_steps=1, loss=1.0)\nrun.finish()\n"
        "torch.save(model.state_dict(), 'weights.pt')\n"
    )
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\n")
    run = start("train", "config.yaml")
    assert run.wait() == 0, run.text()
    folder = run.path / "model"
    assert {p.name for p in folder.iterdir()} >= {"model.safetensors", "config.json", "generation_config.json"}
    model, info = transformers.LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = torch.load(tmp_path / "weights.pt")
    state = model.state_dict()
    assert all(state[k].equal(v) for k, v in expected.items())
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    step = run.path / "checkpoints" / "step-000000001"
    assert os.stat(folder / "model.safetensors").st_ino == os.stat(step / "model.safetensors").st_ino, "hard links"
    assert oct(os.stat(folder / "model.safetensors").st_mode & 0o777) == "0o644", "readable by others, as the umask says"


def test_verify_and_ls(start, tmp_path, bitctl):
    run = start("train", runs.config(tmp_path, "small.py", [30], checkpoints={"every": 10}))
    assert run.wait() == 0
    env = runs.environment(tmp_path)

    def command(*arguments):
        return subprocess.run([bitctl, "checkpoints", *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, env=env)

    listed = command("ls", "--json", run.path.name)
    # A snapshot that is due while its memory is still being made is taken some steps later.
    steps = [json.loads(line)["step"] for line in listed.stdout.splitlines()]
    assert steps == sorted((int(path.name[5:]) for path in (run.path / "checkpoints").glob("step-*")), reverse=True)
    assert len(steps) >= 2 and steps[0] == 30
    assert command("verify").returncode == 0
    folder = run.path / "checkpoints" / ("step-%09d" % steps[1])
    model = folder / "model.safetensors"
    assert command("verify", model).returncode == 0
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    assert command("verify", run.path).returncode == 0, "sizes and manifests alone are as they were"
    broken = command("verify", "--deep", run.path)
    assert broken.returncode == 1 and "does not match its digest" in broken.stdout and broken.stdout.count(": good") == len(steps) - 1
    assert command("verify", "--deep", folder).returncode == 1
    assert command("verify", model).returncode == 0, "the header of a lone file is still good"
    model.write_bytes(data[:-3])
    assert command("verify", model).returncode == 1
    assert command("verify", tmp_path / "nowhere.safetensors").returncode == 6
    pathlib.Path(tmp_path / "text.safetensors").write_text("hello")
    assert command("verify", tmp_path / "text.safetensors").returncode == 1
