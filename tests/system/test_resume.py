"""Killed at any step and resumed, the final weights are those of an uninterrupted run, bit for bit."""
# Ten schedules of five kills here; scripts/soak runs as many as one likes, with every victim.

import os
import random
import signal
import subprocess

import pytest
import runs
import torch
from runs import wait_for

STEPS = 60


def steps_run(path, attempt=None):
    """The steps that were really run, in order; of one attempt, or of all."""
    rows = [line.split() for line in (path.read_text() if path.exists() else "").splitlines()]
    return [int(step) for number, step in rows if attempt is None or int(number) == attempt]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of a run that nobody disturbed, made without bitctl."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    environment = dict(runs.environment(folder), PYTHONPATH=str(runs.ROOT / "python"))
    subprocess.run(
        [runs.python(), runs.TRAINERS / "small.py", str(STEPS), "--weights", folder / "w.pt"], check=True, env=environment
    )
    return torch.load(folder / "w.pt")


def same_weights(path, expected):
    weights = torch.load(path)
    return weights.keys() == expected.keys() and all(weights[k].equal(expected[k]) for k in expected)


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_steps(start, tmp_path, uninterrupted, seed):
    pick = random.Random(seed)
    every = pick.choice([1, 3, 7])
    kill_at = sorted(pick.sample(range(2, STEPS - 2), 5))
    arguments = [STEPS, "--pause", 0.01, "--weights", tmp_path / "w.pt", "--log", tmp_path / "steps.log"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": every}, restart={"max": 10}))
    for number, step in enumerate(kill_at, 1):
        run.wait_event("hello", attempt=number)
        wait_for(lambda: run.process.poll() is not None or (tmp_path / "steps.log").exists() and (steps_run(tmp_path / "steps.log") or [0])[-1] >= step, "step %d" % step)
        assert run.process.poll() is None, run.text()
        os.kill(run.trainer(), signal.SIGKILL)
        run.wait_event("spawned", attempt=number + 1)
    assert run.wait() == 0, run.text()
    assert same_weights(tmp_path / "w.pt", uninterrupted)

    # Every attempt went on where a snapshot stood, and no step was run again but those after it.
    for row in run.events("resumed"):
        # Not always a multiple of `every`: one that finds no free slot is taken at the next step.
        assert row["source"] == "memory" and row["step"] > 0
        taken = steps_run(tmp_path / "steps.log.taken", row["attempt"] - 1)
        assert row["step"] >= max(taken, default=0), "lost: at most the steps since the last snapshot"
        ran = steps_run(tmp_path / "steps.log", row["attempt"])
        assert ran == list(range(row["step"] + 1, row["step"] + 1 + len(ran)))
    assert run.events("resumed")
    assert (run.path / "model" / "model.safetensors").exists()


def test_supervisor_killed_and_resumed(start, tmp_path, uninterrupted):
    arguments = [STEPS, "--pause", 0.02, "--weights", tmp_path / "w.pt", "--log", tmp_path / "steps.log"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 4}))
    run.wait_step(10)
    trainer = run.trainer()
    run.process.kill()
    wait_for(lambda: not runs.alive(trainer), "the trainer's death", 20)
    again = start("resume", run.path)
    assert again.wait() == 0, again.text()
    assert same_weights(tmp_path / "w.pt", uninterrupted)
    assert again.events("resumed")[-1]["source"] == "disk"
    first = again.events("resumed")[-1]["step"]
    assert first + 1 in steps_run(tmp_path / "steps.log")


def test_writer_killed_mid_run(start, tmp_path, uninterrupted):
    arguments = [STEPS, "--pause", 0.02, "--weights", tmp_path / "w.pt"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 2}))
    run.wait_step(10)
    writer = run.writer()
    os.kill(writer, signal.SIGKILL)
    run.wait_event("writer_died")
    assert run.wait() == 0, run.text()
    assert same_weights(tmp_path / "w.pt", uninterrupted)
    assert run.pulse()["status"] == "done"


def test_writer_killed_at_the_start_of_a_resume(start, tmp_path):
    """It had been asked for memory to load the checkpoint into."""
    run = start("train", runs.config(tmp_path, "small.py", [100000, "--pause", 0.02, "--grow", 200], checkpoints={"every": 5}))
    run.wait_event("committed")
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    before = len(run.events("spawned"))
    again = start("resume", run.path)
    wait_for(lambda: len(again.events("spawned")) > before, "the next attempt")
    os.kill(again.writer(), signal.SIGKILL)
    resumed = again.wait_event("resumed")
    assert resumed["source"] == "disk"
    again.wait_step(resumed["step"] + 1)
    again.process.send_signal(signal.SIGINT)
    assert again.wait() == 75, again.text()


def test_side_files_that_cannot_be_written_cost_neither_the_resume_nor_the_weights(start, tmp_path):
    (tmp_path / "train.py").write_text(
        "import bitctl, os, time, torch\n"
        "model = torch.nn.Linear(2, 2)\n"
        "run = bitctl.init()\n"
        "start = run.restore(model=model, side={'extra.txt': '/nowhere/extra.txt'})\n"
        "for step in range(start + 1, 7):\n"
        "    run.progress(step=step, total_steps=6)\n"
        "    while run.checkpoint(step, force=True) != 'taken': time.sleep(0.01)\n"
        "    if step == 3: os.kill(os.getpid(), 9)\n"
        "run.finish()\n"
    )
    run = start("train", "--", runs.python(), "train.py")
    assert run.wait() == 0, run.text()
    assert run.events("resumed")[0]["step"] == 3
    assert "checkpoints will lack config and tokenizer" in (run.path / "logs" / "attempt-2.log").read_text()
    assert (run.path / "model" / "model.safetensors").exists()


def test_a_worker_that_its_own_launcher_starts_anew_goes_on(start, tmp_path):
    """One attempt, two processes, one after the other: what torchrun's own restarts do, or `a || a`."""
    (tmp_path / "train.py").write_text(
        "import bitctl, time, torch\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = torch.optim.AdamW(model.parameters())\n"
        "run = bitctl.init()\n"
        "start = run.restore(model=model, optimizer=optimizer)\n"
        "print('start', start, flush=True)\n"
        "for step in range(start + 1, 9):\n"
        "    model(torch.ones(2)).sum().backward()\n"
        "    optimizer.step()\n"
        "    run.progress(step=step, total_steps=8)\n"
        "    while run.checkpoint(step, force=True) != 'taken': time.sleep(0.001)\n"
        "    if step == 5 and start == 0: raise SystemExit(1)\n"
        "run.finish()\n"
    )
    (tmp_path / "config.yaml").write_text("name: test\nrun: {shell: 'python train.py || python train.py'}\n")
    path = os.path.dirname(runs.python()) + ":" + os.environ["PATH"]
    run = start("train", "config.yaml", env={"PATH": path})
    assert run.wait() == 0, run.text()
    assert len(run.events("spawned")) == 1
    assert "start 5" in (run.path / "logs" / "attempt-1.log").read_text()
    assert run.events("committed")[-1]["step"] == 8


def test_all_three_killed_at_once(start, tmp_path, uninterrupted):
    arguments = [STEPS, "--pause", 0.02, "--weights", tmp_path / "w.pt"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 3}))
    run.wait_step(10)
    run.wait_event("committed")
    victims = [run.process.pid, run.writer(), run.trainer()]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    run.process.wait()
    again = start("resume", run.path)
    assert again.wait() == 0, again.text()
    assert same_weights(tmp_path / "w.pt", uninterrupted)


def test_stopped_and_resumed(start, tmp_path, uninterrupted):
    arguments = [STEPS, "--pause", 0.02, "--weights", tmp_path / "w.pt", "--log", tmp_path / "steps.log"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 1000}))
    run.wait_step(7)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75, run.text()
    last = steps_run(tmp_path / "steps.log")[-1]
    pulse = run.pulse()
    assert pulse["status"] == "idle" and pulse["message"] == "stopped at step %d (resumable)" % last
    again = start("resume", run.path)
    assert again.wait() == 0, again.text()
    assert steps_run(tmp_path / "steps.log") == list(range(1, STEPS + 1)), "no step was run twice"
    assert same_weights(tmp_path / "w.pt", uninterrupted)


def test_a_damaged_newest_checkpoint_is_named_set_aside_and_skipped(start, tmp_path, uninterrupted):
    arguments = [STEPS, "--pause", 0.02, "--weights", tmp_path / "w.pt"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 5, "keep_last": 4}))
    run.wait_step(22)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    folders = sorted((run.path / "checkpoints").glob("step-*"))
    newest = folders[-1] / "training.safetensors"
    data = bytearray(newest.read_bytes())
    data[-10] ^= 1
    newest.write_bytes(data)
    again = start("resume", run.path)
    assert again.wait() == 0, again.text()
    bad = again.events("checkpoint_bad")[0]
    assert "does not match its digest" in bad["reason"] and ".bad-" in bad["aside"]
    assert again.events("resumed")[-1]["step"] == int(folders[-2].name[5:])
    assert same_weights(tmp_path / "w.pt", uninterrupted)


def test_where_none_verifies_the_run_ends_instead_of_starting_over(start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [STEPS, "--pause", 0.02, "--log", tmp_path / "steps.log"], checkpoints={"every": 5, "keep_last": 1}))
    run.wait_step(12)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    before = steps_run(tmp_path / "steps.log")
    for folder in (run.path / "checkpoints").glob("step-*"):
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    again = start("resume", run.path)
    assert again.wait() == 125
    assert "no checkpoint of this run verifies" in again.pulse()["message"]
    assert steps_run(tmp_path / "steps.log") == before


def test_a_script_that_starts_over_is_ended(start, tmp_path):
    run = start("train", runs.config(tmp_path, "hostile.py", ["starts_over"]))
    run.wait_step(12)
    os.kill(run.trainer(), signal.SIGKILL)
    assert run.wait() == 125
    assert "the script starts over: the first step it reported is 1, where step" in run.pulse()["message"]
    assert len(run.events("spawned")) == 2


def test_a_changed_model_is_refused_with_the_difference(start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [STEPS, "--pause", 0.02], checkpoints={"every": 5}))
    run.wait_step(8)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 75
    again = start("resume", run.path, "--set", "run.args=[%d, --grow, 1]" % STEPS)
    assert again.wait() == 125
    assert "does not fit this script: the checkpoint has no tensor 'ballast'" in again.pulse()["message"]


def test_taken_means_taken(start, tmp_path):
    """checkpoint() says taken, SIGKILL at once: restore() returns that step with those very values."""
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal, sys, time, torch, bitctl\n"
        "torch.manual_seed(1)\n"
        "model = torch.nn.Linear(300, 300)\n"
        "run = bitctl.init()\n"
        "start = run.restore(model=model)\n"
        "if start:\n"
        "    clone = torch.load('clone.pt')\n"
        "    assert start == 3 and all(v.equal(clone[k]) for k, v in model.state_dict().items())\n"
        "    print('restored', start); run.finish(); sys.exit(0)\n"
        "for step in (1, 2, 3):\n"
        "    with torch.no_grad(): model.weight += step\n"
        "    run.progress(step=step, total_steps=3, loss=1.0)\n"
        "    while run.checkpoint(step, force=True) != 'taken': time.sleep(0.001)\n"
        "torch.save(model.state_dict(), 'clone.pt')\n"
        "with torch.no_grad(): model.weight.zero_()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\nworkdir: .\n")
    run = start("train", "config.yaml")
    assert run.wait() == 0, run.text()
    assert "restored 3" in (run.path / "logs" / "attempt-2.log").read_text()


def test_killed_the_moment_finish_has_handed_over(start, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal, torch, bitctl\n"
        "from bitctl import _arena\n"
        "model = torch.nn.Linear(4, 4)\n"
        "run = bitctl.init()\n"
        "start = run.restore(model=model)\n"
        "for step in range(start + 1, 6):\n"
        "    run.progress(step=step, total_steps=5, loss=1.0); run.checkpoint(step)\n"
        "if os.environ['BITCTL_ATTEMPT'] == '1':\n"
        "    commit = _arena.Arena.commit\n"
        "    def last(self, slot, used, final):\n"
        "        commit(self, slot, used, final)\n"
        "        if final: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    _arena.Arena.commit = last\n"
        "run.finish()\n"
    )
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\n")
    run = start("train", "config.yaml")
    assert run.wait() == 0, run.text()
    assert run.events("exited")[0].get("signal") == "SIGKILL"
    assert (run.path / "model" / "model.safetensors").exists()
    assert run.pulse()["status"] == "done"


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_killed_inside_the_copy(start, tmp_path, fraction):
    """WRITING is torn; the snapshot before it is the one that counts."""
    script = tmp_path / "train.py"
    script.write_text(
        "import array, os, signal, sys, time, torch, bitctl\n"
        "from bitctl import _arena\n"
        "model = torch.nn.Linear(500, 500)\n"
        "run = bitctl.init()\n"
        "start = run.restore(model=model)\n"
        "if start:\n"
        "    print('restored', start, float(model.weight.min()), float(model.weight.max())); run.finish(); sys.exit(0)\n"
        "def put(step):\n"
        "    with torch.no_grad(): model.weight.fill_(step)\n"
        "    run.progress(step=step, total_steps=9, loss=1.0)\n"
        "    while run.checkpoint(step, force=True) != 'taken': time.sleep(0.001)\n"
        "put(1); put(2)\n"
        "copy = _arena.Arena.copy\n"
        "def torn(self, slot, index, items):\n"
        "    part = array.array('Q')\n"
        "    for i in range(0, len(items), 3): part.extend((items[i], items[i + 1], int(items[i + 2] * %s)))\n"
        "    copy(self, slot, index, part)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "_arena.Arena.copy = torn\n"
        "put(3)\n" % fraction
    )
    (tmp_path / "config.yaml").write_text("run: {script: train.py}\n")
    run = start("train", "config.yaml")
    assert run.wait() == 0, run.text()
    assert "restored 2 2.0 2.0" in (run.path / "logs" / "attempt-2.log").read_text()
