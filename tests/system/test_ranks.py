"""Several ranks under torchrun: they stop at one step, and nothing of them outlives the launcher."""

import json
import os
import signal

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
