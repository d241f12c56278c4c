"""watchdog.nan: rollback: the weights of before, the data after."""

import fcntl
import os
import signal

import pytest
import runs


def poisoned(tmp_path, *arguments, nan="rollback"):
    log = tmp_path / "steps.txt"
    config = runs.config(
        tmp_path, "poisoned.py", [14, "--log", log, *arguments], watchdog={"nan": nan}, checkpoints={"every": 1, "keep_last": 100},
        restart={"backoff": "10ms"},
    )  # fmt: skip
    return config, lambda: [line.split() for line in log.read_text().splitlines()]


@pytest.mark.parametrize("arguments", [[], ["--raise"]])
def test_what_led_to_nan_is_undone_and_passed_over(start, tmp_path, arguments):
    config, steps = poisoned(tmp_path, *arguments)
    run = start("train", config)
    assert run.wait() == 0, run.text()
    rows = run.events("rolled_back")
    assert rows and all(row["step"] < row["from"] for row in rows)
    for row in rows:
        resumed = [r for r in run.events("resumed") if r["attempt"] == row["attempt"] + 1][0]
        assert resumed["step"] == row["step"]
        assert all("/.bad-step-" in path for path in row["aside"])
        before = [(s, items) for attempt, s, items in steps() if attempt == str(row["attempt"]) and int(s) == row["from"]]
        after = [items for attempt, s, items in steps() if attempt == str(row["attempt"] + 1)]
        assert "11" in before[0][1].split(","), "control: that step's data held the poison"
        assert before[0][1] not in after, "its data is passed over"
    # Every item after it is seen all the same, in the order that it would have had.
    order = __import__("bitctl").Shuffle(16, seed=1)
    drawn = [[str(next(order)), str(next(order))] for _ in range(40)]
    position = -1
    for _, _, items in steps():
        if items.split(",") not in drawn[: position + 1]:
            assert drawn.index(items.split(",")) == position + 1
            position += 1
    assert run.pulse()["status"] == "done" and "NaN" not in run.pulse()["message"]


def stopped_writer_at_a_roll_back(start, tmp_path):
    """A run whose writer, stopped since step 2 was durable, is asked to go back to before step 7; and that writer."""
    go = tmp_path / "go"
    config, _ = poisoned(tmp_path, "--seed", 0, "--wait", go)
    run = start("train", config)
    run.wait_event("committed", step=2)
    writer = run.writer()
    os.kill(writer, signal.SIGSTOP)
    go.touch()
    run.wait_event("exited")
    return run, writer


def test_snapshots_of_before_go_to_the_disk_first(start, tmp_path):
    run, writer = stopped_writer_at_a_roll_back(start, tmp_path)
    assert max(row["step"] for row in run.events("committed")) == 2
    os.kill(writer, signal.SIGCONT)
    row = run.wait_event("rolled_back")
    assert row["step"] == row["from"] - 1 == 6, "it waited in memory"
    assert run.wait() == 0, run.text()


def test_nothing_is_taken_after_a_loss_that_is_not_finite(start, tmp_path):
    """It would push a good one out of its slot, while nobody is there who could stop the trainer."""
    go = tmp_path / "go"
    config, steps = poisoned(tmp_path, "--seed", 0, "--wait", go)
    run = start("train", config)
    run.wait_event("committed", step=2)
    run.process.send_signal(signal.SIGSTOP)
    go.touch()
    runs.wait_for(lambda: steps()[-1][1] == "14", "steps with weights that are NaN")
    run.process.send_signal(signal.SIGCONT)
    assert run.wait_event("rolled_back")["step"] == 6
    assert run.wait() == 0, run.text()
    taken = [line.split() for line in (tmp_path / "steps.txt.taken").read_text().splitlines()]
    assert max(int(step) for attempt, step in taken if attempt == "1") == 6


def test_a_writer_that_dies_is_asked_again(start, tmp_path):
    run, writer = stopped_writer_at_a_roll_back(start, tmp_path)
    os.kill(writer, signal.SIGKILL)
    row = run.wait_event("rolled_back")
    assert row["step"] == row["from"] - 1 == 6
    assert run.wait() == 0, run.text()


def test_without_a_writer_nobody_can_roll_back(start, tmp_path):
    run, writer = stopped_writer_at_a_roll_back(start, tmp_path)
    with open(run.path / "checkpoints" / ".writer.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # each of them waits here for the snapshot to go to the disk
        for death in range(1, 6):
            os.kill(writer, signal.SIGKILL)
            runs.wait_for(lambda n=death: len(run.events("writer_died")) == n, "its death")
            if death < 5:
                writer = run.writer()
        assert run.wait() == 125, run.text()
    assert not run.events("rolled_back") and "writer died" in run.pulse()["message"]


def test_data_that_cannot_be_passed_over_ends_the_run(start, tmp_path):
    config, _ = poisoned(tmp_path, "--no-data")
    run = start("train", config)
    assert run.wait() == 125, run.text()
    assert "was not finite at step" in run.pulse()["message"] and "again" in run.pulse()["message"]
    assert len(run.events("rolled_back")) == 2


def test_a_warning_trains_on(start, tmp_path):
    config, steps = poisoned(tmp_path, nan="warn")
    run = start("train", config)
    run.wait()
    assert not run.events("rolled_back") and run.events("progress")[-1].get("non_finite_loss") == "NaN", "control: the weights are NaN from there on"
