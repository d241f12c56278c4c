"""Hugging Face's Trainer, unchanged: reported, saved, killed and resumed bit for bit, its finished model ready to chat."""

import random
import subprocess

import pytest
import runs
import torch

SCRIPT = runs.TRAINERS / "hf.py"
# All but the first draw random numbers that the Trainer's own resume does not have back.
KINDS = {
    "plain": [],
    "mlm": ["gradient_accumulation_steps=3"],
    "grouped": ['eval_strategy="steps"', "eval_steps=7"],
    "augmented": [],
}


def steps_in(folder):
    return [int(line) for line in (folder / "steps").read_text().split()]


def test_killed_behind_its_last_step_it_runs_none_again(start, tmp_path):
    """With the explicit callback, which is to do the same as the hook."""
    command = [tmp_path / "out", "--kill-at", 0, "--callback"]
    run = start("train", runs.config(tmp_path, "hf.py", command, run={"hook": "off"}, checkpoints={"every": 10}))
    assert run.wait() == 0, run.text()
    steps = steps_in(tmp_path / "out")
    last = max(steps)
    assert steps == [*range(1, last + 1), 0, 0]
    assert [row["step"] for row in run.events("resumed")] == [last]
    assert run.pulse()["status"] == "done"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_bit_for_bit(start, tmp_path, kind):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    settings = ["--kind", kind, "--set", *KINDS[kind]]
    subprocess.run([runs.python(), SCRIPT, alone, *settings], check=True, env=runs.environment(tmp_path), capture_output=True)
    kill_at = sorted(random.Random(kind).sample(range(2, max(steps_in(alone)) - 1), 2))
    command = [killed, *settings, "--kill-at", *kill_at]
    run = start("train", runs.config(tmp_path, "hf.py", command, checkpoints={"every": 1}, restart={"max": 10}))
    assert run.wait() == 0, run.text()
    expected, weights = torch.load(alone / "weights.pt"), torch.load(killed / "weights.pt")
    assert all(weights[name].equal(expected[name]) for name in expected)
    # Each attempt went on at the step that it was killed in, or a few before it.
    resumed = [row["step"] for row in run.events("resumed")]
    assert len(resumed) == 2 and all(0 < kill - step < 10 for kill, step in zip(kill_at, resumed)), resumed
    assert run.events("exited")[-1]["code"] == 0
    assert (run.path / "model" / "model.safetensors").exists()
