"""What is frozen is on the disk once, and everything that reads a step reads it there."""

import json
import os
import pathlib
import signal
import subprocess

import pytest
import runs
import torch
from byte_model import write_byte_model
from runs import wait_for
from safetensors.torch import load_file

STEPS = 24
FROZEN = "model-00001-of-00002.safetensors"
TRAINED = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
FROZEN_BYTES = 4 * 4096 * 4096


def standing(run):
    return sorted((run.path / "checkpoints").glob("step-*"))


def inodes(run, name=FROZEN):
    return {(folder / name).stat().st_ino for folder in [*standing(run), run.path / "model"] if (folder / name).exists()}


def changed_bytes(folder):
    """Of the tensors that a step changes: all but the frozen ones."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return sum(t["end"] - t["begin"] for f in manifest["files"] if f["name"] != FROZEN for t in f["tensors"])


def own_blocks(folder):
    """Bytes on the disk of files that have no name elsewhere."""
    return sum(s.st_blocks * 512 for s in map(os.stat, folder.iterdir()) if s.st_nlink == 1)


def checkpoints(bitctl, run, *arguments, code=0):
    done = subprocess.run([bitctl, "checkpoints", *map(str, arguments)], cwd=run.folder, env=runs.environment(run.folder), capture_output=True, text=True)  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()] if "--json" in arguments else done.stdout


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of a run that nobody disturbed, made without bitctl."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    environment = dict(runs.environment(folder), PYTHONPATH=str(runs.ROOT / "python"))
    subprocess.run([runs.python(), runs.TRAINERS / "small.py", str(STEPS), "--frozen", "--weights", folder / "w.pt"], check=True, env=environment)
    return torch.load(folder / "w.pt")


def test_killed_and_resumed_it_is_written_once_and_the_weights_are_the_same(start, bitctl, tmp_path, uninterrupted):
    arguments = [STEPS, "--frozen", "--weights", tmp_path / "w.pt", "--hold", 7, tmp_path / "killed", "--hold", 13, tmp_path / "dead"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 2, "keep_last": 100}))
    run.wait_event("committed")
    run.wait_step(7)
    os.kill(run.trainer(), signal.SIGKILL)
    (tmp_path / "killed").write_text("")
    run.wait_event("resumed", attempt=2)
    run.wait_step(13)
    run.process.kill()
    wait_for(lambda: not runs.marked(run.path), "the end of its tree and of its writer")
    (tmp_path / "dead").write_text("")
    again = start("resume", run.path)
    assert again.wait() == 0, again.text()
    assert [row["source"] for row in again.events("resumed")] == ["memory", "disk"]
    weights = torch.load(tmp_path / "w.pt")
    assert weights.keys() == uninterrupted.keys() and all(weights[k].equal(uninterrupted[k]) for k in uninterrupted)

    assert len(standing(again)) >= 2 and len(inodes(again)) == 1, "one file for all steps, attempts and the finished model"
    rows = again.events("committed")
    assert rows[0]["written"] > FROZEN_BYTES and all(row["bytes"] > FROZEN_BYTES for row in rows)
    changed = changed_bytes(standing(again)[-1])
    assert all(row["written"] <= 1.1 * changed for row in rows[1:]), (changed, rows)
    assert all(own_blocks(folder) <= 1.1 * changed for folder in standing(again)[:-1]), "as the disk counts it"
    listed = checkpoints(bitctl, again, "ls", again.path, "--json")
    assert all(row["own_bytes"] < 0.1 * row["bytes"] for row in listed)
    assert "its own)" in checkpoints(bitctl, again, "ls", again.path)

    checkpoints(bitctl, again, "verify", again.path, "--deep")
    oldest = int(standing(again)[0].name[5:])
    rows = checkpoints(bitctl, again, "diff", again.path, oldest, "newest", "--json")
    changes = {row["name"]: row["same"] for row in rows if row["file"] in (FROZEN, TRAINED)}
    assert changes == {"base.weight": True, "lora_a": False, "lora_b": False}
    checkpoints(bitctl, again, "export", again.path, "newest", tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert all(exported[k].equal(weights[k]) for k in weights) and exported.keys() == weights.keys()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "out" / "model.safetensors").stat().st_nlink == 1


def test_a_spoiled_file_spreads_no_further(start, bitctl, tmp_path):
    arguments = [6, "--frozen", "--hold", 2, tmp_path / "go"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 2, "keep_last": 100}))
    run.wait_event("committed", step=2)
    spoiled = run.path / "checkpoints" / "step-000000002" / FROZEN
    with open(spoiled, "r+b") as file:
        file.seek(FROZEN_BYTES // 2)
        byte = file.read(1)[0]
        file.seek(FROZEN_BYTES // 2)
        file.write(bytes([byte ^ 1]))
    (tmp_path / "go").write_text("")
    assert run.wait() == 0, run.text()
    good = {row["path"]: row["good"] for row in checkpoints(bitctl, run, "verify", run.path, "--deep", "--json", code=1)}
    assert [pathlib.Path(path).name for path, is_good in good.items() if not is_good] == ["step-000000002"]
    assert "%s is not what was saved there; step" % spoiled in (run.path / "logs" / "bitctl.log").read_text()
    assert len(inodes(run)) == 2, "and from there on it is linked again"


LLAMA = """
import torch, bitctl, sys
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=259, hidden_size=512, intermediate_size=2048, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, bos_token_id=None, eos_token_id=258))
model.requires_grad_(False)
model.lm_head.requires_grad_(True)
optimizer = torch.optim.SGD(model.lm_head.parameters(), lr=0.1)
run = bitctl.init()
start = run.restore(model=model, optimizer=optimizer, side={name: sys.argv[1] + "/" + name for name in ("tokenizer.json", "tokenizer_config.json")})
for step in range(start + 1, 3):
    tokens = torch.randint(256, (1, 16))
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    run.progress(step=step, total_steps=2, loss=loss)
    run.checkpoint(step)
run.finish()
torch.save(model.state_dict(), "w.pt")
"""


def test_a_step_opens_in_transformers_and_in_a_chat_as_it_is(start, bitctl, engine, tmp_path):
    from transformers import AutoModelForCausalLM

    write_byte_model(tmp_path / "tokenizer")
    (tmp_path / "train.py").write_text(LLAMA)
    (tmp_path / "config.yaml").write_text(json.dumps({"run": {"script": "train.py", "args": [str(tmp_path / "tokenizer")]}, "checkpoints": {"every": 1}, "restart": {"warm": "off"}}))  # fmt: skip
    run = start("train", "config.yaml")
    assert run.wait() == 0, run.text()
    weights, step = torch.load(tmp_path / "w.pt"), standing(run)[-1]
    for folder in (run.path / "model", step):
        index = json.loads((folder / INDEX).read_text())
        assert index["weight_map"] == {name: TRAINED if name == "lm_head.weight" else FROZEN for name in weights}
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in weights.values())
    loaded = AutoModelForCausalLM.from_pretrained(step)
    assert all(tensor.equal(weights[name]) for name, tensor in loaded.state_dict().items())

    def answer(path):
        done = subprocess.run([bitctl, "chat", path, "-p", "hello", "--max-new-tokens", "12", "--temperature", "0"], cwd=tmp_path, env=runs.environment(tmp_path), capture_output=True, text=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    checkpoints(bitctl, run, "export", run.path, "newest", tmp_path / "out")
    expected = answer(tmp_path / "out")  # one file
    assert len(expected) > 1 and [answer(path) for path in (run.path, step, step / TRAINED)] == [expected] * 3
