"""Trainers in C++, through the installed header and library: the same writer, the same files."""

import json
import os
import signal
import subprocess

import pytest
import runs
from safetensors import safe_open

TOOL = runs.ROOT / "tests" / "tools" / "cpp_trainer"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Built as a user would: against an installation, without torch, in C++17."""
    folder = tmp_path_factory.mktemp("cpp")
    prefix, build = folder / "prefix", folder / "build"
    quiet = {"check": True, "capture_output": True}
    subprocess.run(["cmake", "--install", runs.ROOT / "build", "--prefix", prefix, "--component", "trainer"], **quiet)
    subprocess.run(["cmake", "-S", TOOL, "-B", build, "-DCMAKE_PREFIX_PATH=%s" % prefix], **quiet)
    subprocess.run(["cmake", "--build", build], **quiet)
    return build / "cpp_trainer"


def train(start, folder, program, *arguments, **sections):
    folder.mkdir(exist_ok=True)
    sections = {"checkpoints": {"every": 5, "keep_last": 100}, "restart": {"backoff": "10ms", "warm": "off"}, **sections}
    config = {"name": "cpp", "run": {"command": [str(program), *map(str, arguments)]}, **sections}
    (folder / "config.yaml").write_text(json.dumps(config))
    return start("train", folder / "config.yaml", folder=folder)


def files_of(run):
    return [(run.path / "checkpoints" / "step-000000060" / name).read_bytes() for name in ("model.safetensors", "training.safetensors")]


def test_a_killed_one_ends_as_one_that_was_not(start, tmp_path, program):
    whole = train(start, tmp_path / "whole", program, 60)
    killed = train(start, tmp_path / "killed", program, 60)
    killed.wait_event("committed")
    killed.wait_step(12)
    os.kill(killed.trainer(), signal.SIGKILL)
    assert whole.wait() == killed.wait() == 0, killed.text()
    assert killed.events("resumed")[0]["step"] >= 5 and killed.events("resumed")[0]["source"] == "memory"
    assert files_of(whole) == files_of(killed)
    manifest = json.loads((killed.path / "checkpoints" / "step-000000060" / "manifest.json").read_bytes())
    assert set(manifest["metrics"]) == {"weight"}
    with safe_open(killed.path / "model" / "model.safetensors", "np") as model:
        assert model.get_tensor("weights").shape == (1000,)


def test_stop_and_resume_from_the_disk(start, tmp_path, program, bitctl):
    run = train(start, tmp_path, program, 400)
    run.wait_step(8)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    stopped = run.events("committed")[-1]["step"]
    again = start("resume", run.path.name)
    assert again.wait() == 0, again.text()
    assert again.events("resumed")[0] | {"step": stopped, "source": "disk"} == again.events("resumed")[0]


def test_a_checkpoint_that_does_not_fit_ends_the_run(start, tmp_path, program):
    wide, script = tmp_path / "width", tmp_path / "train.sh"
    wide.write_text("1000")
    script.write_text("exec %s 6000 $(cat %s)" % (program, wide))
    run = train(start, tmp_path, "sh", script)
    run.wait_event("committed")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    wide.write_text("999")
    again = start("resume", run.path.name)
    assert again.wait() == 125, again.text()
    assert "does not fit this program: weights has another shape" in again.text()


def test_a_loss_that_is_not_finite_is_rolled_back(start, tmp_path, program):
    run = train(start, tmp_path, program, 60, 1000, "nan", watchdog={"nan": "rollback"}, checkpoints={"every": 1})
    assert run.wait() == 125, "without a position in the data it happens again"
    assert [row["from"] for row in run.events("rolled_back")] == [13, 13]


def test_by_itself_it_just_trains(tmp_path, program):
    done = subprocess.run([program, "5"], env=runs.environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_library_shows_nothing_but_its_header():
    symbols = subprocess.run(["nm", "-DC", "--defined-only", runs.ROOT / "build" / "libbitctl_trainer.so"], capture_output=True, text=True, check=True)
    names = [line.split(" ", 2)[2] for line in symbols.stdout.splitlines()]
    assert names and all(name.startswith("bitctl::trainer::") and "Session" not in name for name in names), names


@pytest.mark.skipif(not (runs.ROOT / "build" / "examples" / "cpp-trainer").exists(), reason="built without libtorch")
def test_the_example_with_libtorch(start, tmp_path):
    """Killed and resumed, optimizer and random generator included, it ends with the very same weights."""
    program = runs.ROOT / "build" / "examples" / "cpp-trainer"
    whole = train(start, tmp_path / "whole", program, 600)
    killed = train(start, tmp_path / "killed", program, 600)
    killed.wait_event("committed")
    os.kill(killed.trainer(), signal.SIGKILL)
    assert whole.wait() == killed.wait() == 0, killed.text()
    assert killed.events("resumed")
    assert (whole.path / "model" / "model.safetensors").read_bytes() == (killed.path / "model" / "model.safetensors").read_bytes()
