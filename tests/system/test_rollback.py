"""watchdog.nan: rollback: the weights of before, the data after."""

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
