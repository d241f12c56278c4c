"""`bitctl checkpoints`: what each subcommand says, does, and leaves alone."""

import json
import os
import shutil
import signal
import subprocess

import pytest
import runs
import torch
from runs import wait_for
from safetensors.torch import load_file
from test_writer import mounted

# A tiny Llama; beside it, values at every place where rounding can go wrong, and whole numbers.
LLAMA = """
import os, time
import torch, bitctl
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1))
bits = torch.randint(-2**31, 2**31, (4096,), dtype=torch.int64).to(torch.int32)
halves = torch.arange(2**16, dtype=torch.int32)
edges = torch.cat([bits, halves << 16, (halves << 16) | 0x8000, (halves << 16) | 0x7fff, (halves << 13), (halves << 13) | 0x1000])
model.register_buffer("edges", torch.nan_to_num(edges.view(torch.float32)))
model.register_buffer("count", torch.tensor([2**62 + 1]))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
run = bitctl.init()
start = run.restore(model=model, optimizer=optimizer)
for step in range(start + 1, 7):
    tokens = torch.randint(96, (2, 16))
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    run.progress(step=step, total_steps=6, loss=loss)
    run.checkpoint(step, metrics={"score": {2: 0.5, 4: 0.9, 6: 0.7}.get(step, 0.1)})
    while step % 2 == 0 and not os.path.isdir(run.run_dir + "/checkpoints/step-%09d" % step):
        run.checkpoint(step)  # one that was deferred
        time.sleep(0.01)
run.finish()
"""


@pytest.fixture(scope="module")
def trained(bitctl, tmp_path_factory):
    """The folder of a run with the steps 2, 4 and 6; not to be written into."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "train.py").write_text(LLAMA)
    (folder / "config.yaml").write_text(
        "name: llama\nrun: {script: train.py}\nrestart: {warm: off}\n"
        "checkpoints: {every: 2, keep_last: 1, keep_every: 2, keep_best: {metric: score, mode: max}}\n"
    )
    run = runs.Run(bitctl, folder, "train", "config.yaml")
    assert run.wait() == 0, run.text()
    return run.path


class Steps:
    """A copy of the run, under the same id, and the command at work on it."""

    def __init__(self, bitctl, original, folder):
        self.bitctl, self.folder, self.path = bitctl, folder, folder / "runs" / original.name
        self.path.parent.mkdir()
        shutil.copytree(original, self.path, symlinks=True)

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [self.bitctl, "checkpoints", *map(str, arguments)], cwd=self.folder, env=runs.environment(self.folder), capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert code == 0 or len((done.stdout + done.stderr).splitlines()) >= 1
        return done.stdout + done.stderr

    def rows(self, *arguments, code=0):
        return [json.loads(line) for line in self(*arguments, "--json", code=code).splitlines()]

    def step(self, step):
        return self.path / "checkpoints" / ("step-%09d" % step)

    def standing(self):
        return sorted(int(path.name[5:]) for path in (self.path / "checkpoints").glob("step-*"))

    def damage(self, step, name="model.safetensors", byte=-8):
        path = self.step(step) / name
        data = bytearray(path.read_bytes())
        data[byte] ^= 1
        path.unlink()
        path.write_bytes(data)


@pytest.fixture
def steps(bitctl, trained, tmp_path):
    return Steps(bitctl, trained, tmp_path)


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)


def test_ls_and_show_tell_what_is_there(steps):
    listed = steps.rows("ls")
    assert [row["step"] for row in listed] == [6, 4, 2] and all(row["complete"] and not row["pinned"] for row in listed)
    (row,) = steps.rows("show", "best")
    assert row["step"] == 4 and row["metrics"]["score"] == 0.9 and row["run"] == steps.path.name
    assert row["non_finite"] == []
    model = load_file(steps.step(4) / "model.safetensors")
    (told,) = [f["tensors"] for f in row["files"] if f["name"] == "model.safetensors"]
    assert {t["name"]: t["shape"] for t in told} == {name: list(t.shape) for name, t in model.items()}
    assert sum(f["bytes"] for f in row["files"] + row["side_files"]) == row["bytes"]
    assert "config.json" in [f["name"] for f in row["side_files"]]
    text = steps("show", "newest")
    assert text.startswith("step 6 of llama-") and "all tensors are finite" in text and "model.norm.weight" in text


def test_verify_is_cheap_and_deep_names_the_tensor(steps):
    last = load_file(steps.step(4) / "model.safetensors")
    assert steps.rows("verify")[0] == {"path": str(steps.step(6)), "good": True, "deep": False}
    steps.damage(4)
    assert all(row["good"] for row in steps.rows("verify")), "no size tells"
    rows = {row["path"]: row for row in steps.rows("verify", "--deep", code=1)}
    assert [row["good"] for row in rows.values()] == [True, False, True]
    reason = rows[str(steps.step(4))]["reason"]
    assert any("tensor %s does not match its digest" % name in reason for name in last), reason
    assert "damaged: " in steps("verify", "--deep", steps.step(4), code=1)
    with open(steps.step(2) / "training.safetensors", "r+b") as file:
        file.truncate(100)
    assert "100 bytes where the manifest says" in steps("verify", code=1)


def test_diff_computes_what_torch_computes(steps):
    rows = {row["name"]: row for row in steps.rows("diff", 2, 6) if row["file"] == "model.safetensors"}
    a, b = (load_file(steps.step(n) / "model.safetensors") for n in (2, 6))
    assert set(rows) == set(a)
    for name, row in rows.items():
        x, y = a[name].double(), b[name].double()
        difference = y - x
        assert row["norm"] == pytest.approx(difference.norm().item(), rel=1e-12)
        assert row["max"] == difference.abs().max().item()
        assert row["same"] or row["norm_of_a"] == pytest.approx(x.norm().item(), rel=1e-12)
        assert row["changed"] == (a[name] != b[name]).sum().item() and row["same"] == torch.equal(a[name], b[name])
        assert row["a"]["nan"] == row["b"]["infinite"] == 0
    assert rows["edges"]["same"] and not rows["model.norm.weight"]["same"]
    assert steps("diff", "newest", "newest").endswith("differ between step 6 and step 6\n")


TARGETS = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


@pytest.mark.parametrize("dtype", TARGETS)
def test_an_export_is_bit_equal_to_torchs_cast_and_loads(steps, dtype):
    from transformers import AutoModelForCausalLM

    (done,) = steps.rows("export", "newest", "out", "--dtype", dtype)
    assert done["path"] == str(steps.folder / "out")
    original, exported = load_file(steps.step(6) / "model.safetensors"), load_file(steps.folder / "out" / "model.safetensors")
    assert set(original) == set(exported)
    lost = 0
    for name, tensor in original.items():
        expected = tensor.to(TARGETS[dtype]) if tensor.is_floating_point() else tensor
        assert expected.dtype == exported[name].dtype and torch.equal(bits(expected), bits(exported[name])), name
        lost += (tensor.isfinite() & ~expected.isfinite()).sum().item()
    assert done["overflowed"] == lost and (lost > 0) == (dtype != "f32")
    model = AutoModelForCausalLM.from_pretrained(steps.folder / "out")
    assert model.dtype == TARGETS[dtype]
    for name, tensor in model.state_dict().items():
        if name in exported:
            assert torch.equal(bits(tensor), bits(exported[name])), name
    assert not list(steps.folder.glob(".tmp-*"))


def test_int8_has_a_scale_a_row(steps):
    steps("export", "newest", "out", "--dtype", "int8")
    original, exported = load_file(steps.step(6) / "model.safetensors"), load_file(steps.folder / "out" / "model.safetensors")
    quantized = [name for name, t in exported.items() if t.dtype == torch.int8]
    assert len(quantized) == 14
    for name in quantized:
        scale = exported[name + "_scale"]
        assert scale.shape == (original[name].shape[0], 1) and scale.dtype == torch.float32
        assert torch.equal(scale, original[name].abs().amax(1, keepdim=True) / 127)
        assert torch.equal(exported[name].float(), (original[name] / scale).round().clamp(-127, 127))
    assert exported["model.embed_tokens.weight"].dtype == exported["model.norm.weight"].dtype == torch.bfloat16
    config = json.loads((steps.folder / "out" / "config.json").read_text())
    assert config["quantization_config"]["format"] == "int-quantized" and config["dtype"] == "bfloat16"


def test_what_is_wrong_is_said_in_one_line(steps):
    (steps.folder / "mine").mkdir()
    for code, text, arguments in [
        (6, 'no run "nope"', ("show", "nope", "newest")),
        (1, "no checkpoint of step 3; there are 6, 4, 2", ("show", "3")),
        (2, '"last" is no step: a number, newest or best', ("pin", "last")),
        (1, "no checkpoint of step 3", ("diff", 2, 3)),
        (2, "fp8 not in {", ("export", 2, "out", "--dtype", "fp8")),
        (1, "is not BitNet's", ("export", 2, "out", "--dtype", "ternary")),
        (1, "mine: exists; --force", ("export", 2, "mine")),
        (1, "mine: holds no model.safetensors", ("export", 2, "mine", "--force")),
        (1, "no such folder", ("export", 2, "not/there")),
        (2, "not in range", ("prune", "--keep-last", "0")),
        (1, "no checkpoint of step 3", ("unpin", 3)),
    ]:
        assert text in steps(*arguments, code=code)
    steps.damage(2)
    assert "step-000000002/model.safetensors: tensor" in steps("export", 2, "out", code=1)
    assert sorted(path.name for path in steps.folder.iterdir() if path.is_dir()) == ["mine", "runs"], "nothing half-written stays"


def test_prune_keeps_the_best_the_pinned_and_one_that_is_good(steps):
    config = steps.path / "config.yaml"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "keep_every" not in line))
    steps("pin", 2)
    assert steps.rows("prune") == [{"deleted": [], "bytes": 0, "dry_run": False}]
    steps("unpin", 2)
    (plan,) = steps.rows("prune", "--dry-run")
    assert plan["deleted"] == [2] and plan["dry_run"] and steps.standing() == [2, 4, 6]
    steps.damage(6)
    steps.damage(4)
    assert steps.rows("prune")[0]["deleted"] == [], "2 is the only one that is good"
    steps.damage(2)
    assert "no checkpoint verifies, so nothing is deleted" in steps("prune", code=1)
    assert steps.standing() == [2, 4, 6]


def test_prune_deletes_and_leaves_alone_what_is_not_the_runs_own(steps):
    shutil.copytree(steps.step(2), steps.step(1))
    (steps.path / "checkpoints" / "step-mine").mkdir()
    config = steps.path / "config.yaml"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "keep_every" not in line))
    assert steps.rows("prune", "--keep-last", 1)[0]["deleted"] == [2]
    assert (steps.path / "checkpoints" / "step-mine").exists() and steps.step(1).exists(), "its manifest is that of step 2"
    assert not list((steps.path / "checkpoints").glob(".trash-*"))


def test_a_running_writer_sees_a_pin_and_keeps_what_was_resumed_from(bitctl, start, tmp_path):
    config = runs.config(tmp_path, "small.py", [4000, "--pause", 0.02], checkpoints={"every": 5, "keep_last": 1})
    run = start("train", config)
    run.wait_event("committed")

    def checkpoints(*arguments):
        done = subprocess.run([bitctl, "checkpoints", *arguments], cwd=tmp_path, env=runs.environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    pinned = json.loads(checkpoints("pin", "newest", "--json"))["step"]
    wait_for(lambda: max(r["step"] for r in run.events("committed")) >= pinned + 15, "three more commits")
    assert (run.path / "checkpoints" / ("step-%09d" % pinned)).is_dir()
    subprocess.run([bitctl, "stop"], cwd=tmp_path, env=runs.environment(tmp_path), check=True)
    assert run.wait() == 75
    resumed = start("resume")
    source = resumed.wait_event("resumed")["step"]
    step = resumed.path / "checkpoints" / ("step-%09d" % source)
    wait_for(lambda: max(r["step"] for r in resumed.events("committed")) >= source + 15, "three more commits")
    assert step.is_dir()
    os.kill(resumed.writer(), signal.SIGKILL)  # the next one has to be told
    again = resumed.wait_event("writer_died")
    wait_for(lambda: len([r for r in resumed.events("committed") if r["t"] > again["t"]]) >= 3, "three commits of the next writer")
    assert step.is_dir()
    assert source not in json.loads(checkpoints("prune", "--json"))["deleted"] and step.is_dir()
    checkpoints("unpin", str(pinned))
    wait_for(lambda: not (run.path / "checkpoints" / ("step-%09d" % pinned)).exists(), "retention of what is not pinned any more")
    assert step.is_dir()


def test_an_interval_that_was_worked_out_is_shown(start, tmp_path):
    run = start("train", runs.config(tmp_path, "small.py", [4000, "--pause", 0.02], checkpoints={"every": "auto"}))
    seconds = run.wait_event("checkpoint_interval")["seconds"]
    assert 1 <= seconds <= 600
    wait_for(lambda: "from here on (auto)" in run.text(), "the line that says so")
    run.process.send_signal(2)
    assert run.wait() == 75


def test_a_disk_without_room_lets_older_steps_go_and_says_so(start, tmp_path):
    disk = mounted(tmp_path, 48, "ext4")
    try:
        config = runs.config(
            disk, "small.py", [4000, "--pause", 0.02, "--grow", 8], checkpoints={"every": 10, "keep_last": 20}, output={"dir": str(disk / "runs")}
        )
        (tmp_path / "runs").symlink_to(disk / "runs")
        run = start("train", config)
        row = wait_for(lambda: [r for r in run.events("retained") if r.get("reason")], "room that was made")[0]
        assert "No space left on device" in row["reason"] and row["deleted"] == sorted(row["deleted"])
        committed = len(run.events("committed"))
        wait_for(lambda: len(run.events("committed")) >= committed + 3, "commits that go on")
        standing = list((run.path / "checkpoints").glob("step-*"))
        assert standing and not run.events("persist_failed"), "it was never said to be in danger"
        run.process.send_signal(2)
        assert run.wait() == 75
    finally:
        run.end()
        subprocess.run(["umount", "-l", disk])
