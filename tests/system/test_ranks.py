"""Several ranks: they stop at one step, save and resume each its own state, and nothing of them outlives the launcher."""

import json
import os
import signal
import subprocess

import pytest
import runs


@pytest.fixture
def ranks(start, tmp_path):
    logs = tmp_path / "ranks"
    logs.mkdir()
    command = [runs.python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(runs.TRAINERS / "ranks.py"), "400", str(logs)]
    (tmp_path / "config.yaml").write_text(json.dumps({"run": {"command": command}, "checkpoints": {"every": 5}}))
    run = start("train", "config.yaml")

    def steps(rank, attempt):
        lines = [line.split() for line in (logs / ("rank-%d" % rank)).read_text().splitlines()]
        return [int(step) for number, step in lines if number == str(attempt)]

    return run, steps


def test_a_stop_meets_all_ranks_at_one_step(ranks):
    run, steps = ranks
    run.wait_step(5)
    assert sorted(row["rank"] for row in run.events("hello")) == [0, 1]
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    assert steps(0, 1)[-1] == steps(1, 1)[-1]
    assert run.events("stopped")[0]["step"] == steps(0, 1)[-1] and run.events("stopped")[0]["resumable"]
    assert run.events("stopped")[0]["checkpoint"] == steps(0, 1)[-1]


def test_a_rank_that_dies_takes_all_with_it_and_all_go_on(ranks):
    run, steps = ranks
    run.wait_event("committed")
    victim = [row["pid"] for row in run.events("hello") if row["rank"] == 1][0]
    os.kill(victim, signal.SIGKILL)
    resumed = run.wait_event("resumed", attempt=2)["step"]
    runs.wait_for(lambda: any(row["attempt"] == 2 for row in run.events("progress")), "steps of attempt 2")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    for rank in (0, 1):
        assert steps(rank, 2)[0] == resumed + 1
    assert steps(0, 2) == steps(1, 2)


def torchrun(*arguments):
    return [runs.python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, arguments)]


def equal(a, b):
    import torch

    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


class Torch:
    """torch_ranks.py, undisturbed and killed."""

    SCRIPT = runs.TRAINERS / "torch_ranks.py"

    def __init__(self, folder):
        self.undisturbed = folder / "undisturbed"
        self.undisturbed.mkdir()
        env = runs.environment(folder, {"PYTHONPATH": str(runs.ROOT / "python")})
        subprocess.run(torchrun(self.SCRIPT, 40, self.undisturbed, "replicated", "sharded", "fsdp"), check=True, capture_output=True, env=env)

    def train(self, start, folder, mode):
        """A run that waits at steps 12 and 32 for what may happen to it."""
        self.out = folder / "killed"
        self.out.mkdir()
        for step in (12, 32):
            (self.out / ("hold-%d" % step)).touch()
        command = torchrun(self.SCRIPT, 40, self.out, mode)
        (folder / "config.yaml").write_text(json.dumps({"run": {"command": command}, "checkpoints": {"every": 5}, "restart": {"warm": "off"}}))
        return start("train", "config.yaml")

    def kill(self, run, step, pid):
        """One of its processes, after that step, and with it the attempt."""
        run.wait_step(step)
        os.kill(pid(), signal.SIGKILL)
        run.wait_event("exited", attempt=run.events("spawned")[-1]["attempt"])
        (self.out / ("hold-%d" % step)).unlink()

    def starts(self, rank):
        return list(map(int, (self.out / ("starts-%d" % rank)).read_text().split()))

    def ends(self, folder, mode):
        import torch

        return [torch.load(folder / ("%s-%d.pt" % (mode, rank)), weights_only=False) for rank in (0, 1)]

    def check(self, mode):
        undisturbed, killed = self.ends(self.undisturbed, mode), self.ends(self.out, mode)
        assert equal(undisturbed, killed)
        assert not equal(undisturbed[0]["rng"], undisturbed[1]["rng"]), "or the ranks would tell nothing apart"


@pytest.fixture(scope="module")
def torch_ranks(tmp_path_factory):
    return Torch(tmp_path_factory.mktemp("torch_ranks"))


def rank_1(run):
    return lambda: [row["pid"] for row in run.events("hello") if row["rank"] == 1][-1]


def test_replicas_end_bit_for_bit_as_if_nothing_had_happened(torch_ranks, start, tmp_path):
    """Rank 1 is killed, then torchrun itself."""
    run = torch_ranks.train(start, tmp_path, "replicated")
    torch_ranks.kill(run, 12, rank_1(run))
    torch_ranks.kill(run, 32, run.trainer)
    assert run.wait() == 0, run.text()
    assert [row["source"] for row in run.events("resumed")] == ["memory", "memory"]
    first, second = (row["step"] for row in run.events("resumed"))
    assert 5 <= first <= 12 < second <= 32
    for rank in (0, 1):
        assert torch_ranks.starts(rank) == [0, first, second]
    torch_ranks.check("replicated")


@pytest.mark.parametrize("mode", ["sharded", "fsdp"])
def test_shards_end_bit_for_bit_as_if_nothing_had_happened(torch_ranks, start, tmp_path, mode):
    run = torch_ranks.train(start, tmp_path, mode)
    (torch_ranks.out / "hold-32").unlink()
    torch_ranks.kill(run, 12, rank_1(run))
    assert run.wait() == 0, run.text()
    assert run.events("resumed")[0]["source"] == "memory"
    torch_ranks.check(mode)
    last = manifests(run)[-1]
    assert {file["name"] for file in last["files"]} == {kind + "-rank-%d.safetensors" % rank for kind in ("model", "training") for rank in (0, 1)} - {"training-rank-0.safetensors"} | {"training.safetensors"}
    assert last["step"] == 40 and last["non_finite"] == []


class Plain:
    """Ranks that need no torch and start at once."""

    def __init__(self, start, folder):
        self._start, self._folder = start, folder

    def out(self, name):
        (self._folder / name).mkdir(exist_ok=True)
        return self._folder / name

    def command(self, ranks, steps, out, *modes):
        return [runs.python(), runs.TRAINERS / "plain_ranks.py", ranks, steps, self.out(out), *modes]

    def train(self, *arguments, every=5):
        command = list(map(str, self.command(*arguments)))
        (self._folder / "config.yaml").write_text(json.dumps({"run": {"command": command}, "checkpoints": {"every": every}, "restart": {"warm": "off"}}))
        return self._start("train", "config.yaml")

    def hurry(self, out):
        (self.out(out) / "hurry").touch()

    def alone(self, *arguments):
        """Without bitctl."""
        subprocess.run(list(map(str, self.command(*arguments))), check=True, env=runs.environment(self._folder, {"PYTHONPATH": str(runs.ROOT / "python")}))

    def ends(self, out, ranks):
        return [json.loads((self._folder / out / ("rank-%d" % rank)).read_text()) for rank in range(ranks)]


@pytest.fixture
def plain(start, tmp_path):
    return Plain(start, tmp_path)


def manifests(run):
    return [json.loads(path.read_text()) for path in sorted((run.path / "checkpoints").glob("step-*/manifest.json"))]


@pytest.mark.parametrize("mode", [[], ["sharded"]])
def test_each_rank_gets_its_own_state_back_from_memory_and_from_disk(plain, start, bitctl, tmp_path, mode):
    plain.alone(3, 3000, "undisturbed", *mode)
    run = plain.train(3, 3000, "killed", "pause", *mode)
    run.wait_event("committed")
    os.kill([row["pid"] for row in run.events("hello") if row["rank"] == 2][0], signal.SIGKILL)
    resumed = run.wait_event("resumed", attempt=2)
    assert resumed["source"] == "memory" and resumed["step"] >= 5
    run.wait_step(resumed["step"] + 1)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    plain.hurry("killed")
    stopped = run.events("stopped")[-1]
    assert stopped["checkpoint"] == stopped["step"]
    last = manifests(run)[-1]
    assert last["step"] == stopped["step"] and last["world_size"] == 3
    assert {file["name"] for file in last["files"]} >= {"training.safetensors", "training-rank-1.safetensors", "training-rank-2.safetensors"}
    again = start("resume", run.path.name)
    assert again.wait() == 0, again.text()
    assert again.events("resumed")[-1]["source"] == "disk"
    ends = plain.ends("killed", 3)
    assert ends == plain.ends("undisturbed", 3)
    assert len({end["next"] for end in ends}) == 3, "or the ranks would tell nothing apart"

    def command(*arguments):
        return subprocess.run([bitctl, "checkpoints", *arguments], capture_output=True, text=True, cwd=tmp_path, env=runs.environment(tmp_path))

    assert command("verify", "--deep").returncode == 0
    assert json.loads(command("show", "newest", "--json").stdout)["world_size"] == 3
    exported = command("export", "newest", "out")
    assert exported.returncode != 0 or not mode
    assert not mode or "sharded over 3 ranks" in exported.stderr


def test_a_launcher_that_starts_its_ranks_anew_gets_each_its_newest_state(plain):
    """The first to come back is not rank 0."""
    plain.alone(3, 3000, "undisturbed")
    run = plain.train(3, 3000, "killed", "pause", "anew")
    run.wait_event("committed")
    os.kill([row["pid"] for row in run.events("hello") if row["rank"] == 2][0], signal.SIGKILL)
    plain.hurry("killed")
    assert run.wait() == 0, run.text()
    assert [(row["attempt"], row["source"]) for row in run.events("resumed")] == [(1, "memory")]
    assert plain.ends("killed", 3) == plain.ends("undisturbed", 3)


def test_steps_that_not_all_ranks_have_taken_are_no_checkpoint(plain):
    run = plain.train(2, 100000, "out", "apart", "pause", every=100000)
    runs.wait_for(lambda: {0, 1} <= {row["step"] % 5 for row in run.events("persist_failed")}, "a refusal of each kind")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    refused = run.events("persist_failed")
    assert all(row["final"] for row in refused)
    assert any(row["step"] % 5 == 0 and "1 of 2 ranks have not taken it: rank 1 is at step" in row["reason"] for row in refused)
    assert any(row["step"] % 5 == 1 and "rank 0 is at step" in row["reason"] for row in refused)
    # Where one found no free slot, all were told of a step to come.
    assert not {row["step"] for row in refused} & {row["step"] for row in run.events("committed")}
    assert {manifest["world_size"] for manifest in manifests(run)} <= {2}


def test_where_rank_0_alone_saves_its_state_is_the_checkpoint(plain):
    run = plain.train(3, 100000, "out", "pause", "rank-0-saves")
    run.wait_event("committed")
    os.kill([row["pid"] for row in run.events("hello") if row["rank"] == 2][0], signal.SIGKILL)
    resumed = run.wait_event("resumed", attempt=2)
    assert resumed["source"] == "memory"
    run.wait_step(resumed["step"] + 1)
    stopped_at(run)
    assert run.events("persist_failed") == [] and {m.get("world_size", 1) for m in manifests(run)} == {1}


def test_a_save_that_is_asked_for_meets_all_ranks_at_one_step(plain, bitctl, tmp_path):
    run = plain.train(2, 100000, "out", "pause", every=100000)
    run.wait_step(5)
    subprocess.run([bitctl, "checkpoints", "save", run.path.name], check=True, cwd=tmp_path, env=runs.environment(tmp_path))
    run.wait_event("committed")
    assert run.events("persist_failed") == [] and manifests(run)[-1]["world_size"] == 2
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75


def test_checkpoints_by_time_are_taken_by_all_ranks_at_one_step(plain):
    run = plain.train(3, 100000, "out", "pause", every="50ms")
    runs.wait_for(lambda: len(run.events("committed")) >= 3, "three commits")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75
    assert run.events("persist_failed") == []


def test_ranks_that_disagree_on_what_they_are_end_the_run_with_a_reason(plain):
    run = plain.train(2, 100000, "out", "sharded-1", "pause")
    assert run.wait() != 0
    assert "rank 1 calls run.restore(sharded=True), rank 0 does not" in run.pulse()["message"]
    assert manifests(run) == []


def stopped_at(run):
    run.wait_event("committed")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 75, run.text()
    return run.events("stopped")[-1]["step"]


def test_replicas_may_go_on_as_more_than_have_saved(plain, start, tmp_path):
    number = tmp_path / "number"
    number.write_text("2")
    run = plain.train(number, 3000, "out", "pause")
    step = stopped_at(run)
    plain.hurry("out")
    number.write_text("3")
    more = start("resume", run.path.name)
    assert more.wait() == 0, more.text()
    assert [int((tmp_path / "out" / ("starts-%d" % rank)).read_text().split()[-1]) for rank in range(3)] == [step] * 3
    assert "rank 2 begins with random generators of its own" in more.text()
    ends = plain.ends("out", 3)
    assert ends[0]["weights"] == ends[1]["weights"] == ends[2]["weights"]
    assert manifests(run)[-1]["world_size"] == 3


def test_shards_go_on_as_many_as_have_saved_or_not_at_all(plain, start, tmp_path):
    number = tmp_path / "number"
    number.write_text("2")
    run = plain.train(number, 3000, "out", "pause", "sharded")
    step = stopped_at(run)
    number.write_text("3")
    more = start("resume", run.path.name)
    assert more.wait() != 0
    assert "the checkpoint of step %d does not fit this script: its state is sharded over 2 ranks, and this run has 3" % step in more.pulse()["message"]
    assert [row["step"] for row in manifests(run)][-1] == step, "and it is still there"


def test_a_step_of_which_one_rank_is_damaged_is_used_by_none(plain, start, tmp_path):
    run = plain.train(2, 3000, "out", "pause")
    step = stopped_at(run)
    plain.hurry("out")
    damaged = run.path / "checkpoints" / ("step-%09d" % step) / "training-rank-1.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    before = [row["step"] for row in manifests(run)][-2]
    again = start("resume", run.path.name)
    assert again.wait() == 0, again.text()
    bad = again.events("checkpoint_bad")[-1]
    assert bad["step"] == step and "training-rank-1.safetensors" in bad["reason"]
    assert [int((tmp_path / "out" / ("starts-%d" % rank)).read_text().split()[-1]) for rank in (0, 1)] == [before] * 2


def test_a_writer_that_dies_at_the_start_of_a_resume_is_asked_for_all_ranks_again(plain, start, tmp_path):
    run = plain.train(2, 3000, "out", "pause")
    step = stopped_at(run)
    plain.hurry("out")
    before = len(run.events("spawned"))
    again = start("resume", run.path.name)
    runs.wait_for(lambda: len(again.events("spawned")) > before, "the next attempt")
    os.kill(again.writer(), signal.SIGKILL)
    assert again.wait() == 0, again.text()
    assert [int((tmp_path / "out" / ("starts-%d" % rank)).read_text().split()[-1]) for rank in (0, 1)] == [step] * 2
