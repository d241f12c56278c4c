"""When a checkpoint is due: by steps, by seconds, and by what failures cost."""

import json
import math
import pathlib

import pytest

from bitctl import _due
from bitctl._due import Due, auto_interval, time_to_failure


def test_the_interval_loses_the_least_time():
    """No other interval costs less: its checkpoints, and half of it for each failure."""
    stall, persist, mean = 0.1, 2.0, 3600.0
    lost = lambda interval: _due.cost_of(stall, persist) / interval + interval / 2 / mean  # noqa: E731
    best = auto_interval(stall, persist, mean)
    assert best == pytest.approx(math.sqrt(2 * mean * (0.1 + 0.02 * 2.0)))
    assert all(lost(best) <= lost(best * factor) for factor in (0.5, 0.9, 1.1, 2))


def test_trainers_in_cpp_have_the_same_rule():
    """The table holds src/trainer/due.cc as well."""
    rows = json.loads((pathlib.Path(__file__).parents[2] / "tests" / "samples" / "auto_interval.json").read_text())
    for row in rows:
        assert auto_interval(row["stall"], row["persist"], row["time_to_failure"]) == pytest.approx(row["interval"])


@pytest.mark.parametrize("stall", [1e-4, 0.1, 3.0, 60.0])
@pytest.mark.parametrize("persist", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("mean", [1.0, 60.0, 86400.0, 1e9])
def test_it_never_costs_more_than_one_percent(stall, persist, mean):
    interval = auto_interval(stall, persist, mean)
    assert _due.cost_of(stall, persist) <= 0.01 * interval * (1 + 1e-9)
    assert interval >= persist, "the disk keeps up"
    assert interval >= 1
    assert interval <= max(600, 100 * _due.cost_of(stall, persist), persist)


def test_a_run_that_fails_more_saves_more_often():
    assert time_to_failure(0, 0) == time_to_failure(3600, 0) == 86400
    assert time_to_failure(1e6, 0) == 1e6, "so long without a failure is worth more than the assumption"
    assert time_to_failure(3600, 4) == 900
    intervals = []
    for failures in (0, 1, 10, 100):
        due = Due({"auto": True, "ran_seconds": 7200.0, "failures": failures})
        due.taken(1, 0.0, 0.05)
        intervals.append(due.interval(0.5))
    assert intervals == sorted(intervals, reverse=True) and intervals[0] > intervals[-1]


def test_seconds_and_auto_count_from_the_last_one_taken():
    due = Due({"seconds": 10})
    assert not due.is_due(1, 100.0, 0)
    assert not due.is_due(2, 109.9, 0)
    assert due.is_due(3, 110.0, 0)
    assert due.is_due(4, 110.1, 0), "deferred: due until it is taken"
    due.taken(4, 111.0, 0.5)
    assert not due.is_due(5, 120.9, 0) and due.is_due(6, 121.0, 0)
    assert due.interval(1000) == 10


def test_an_interval_is_news_once_and_when_it_changes():
    due = Due({"auto": True})
    due.taken(1, 0.0, 0.05)
    assert due.news(0.0) is None, "nothing is known of the disk yet"
    interval = due.news(0.5)
    assert interval == due.interval(0.5) == due.news(0.5), "until it has been told"
    due.told(interval)
    assert due.news(0.5) is None and due.news(0.51) is None
    assert due.news(50.0) == due.interval(50.0)
    assert Due({"steps": 5}).news(0.5) is None and Due({"seconds": 5}).news(0.5) is None


def test_steps_are_the_runs_not_the_attempts():
    due = Due({"steps": 5})
    assert due.interval(1) is None
    assert [step for step in range(7, 21) if due.is_due(step, 0, 0) and not due.taken(step, 0, 0)] == [10, 15, 20]


def test_ranks_that_are_offered_the_same_steps_count_out_the_same():
    """Whatever each of them has taken, or could not."""
    ranks = [Due({"steps": 10}) for _ in range(2)]
    offered = [7, 14, 15, 21, 28, 42]
    due = [[], []]
    for step in offered:
        for number, rank in enumerate(ranks):
            if rank.crosses(step):
                due[number].append(step)
                if number == 0:
                    rank.taken(step, 0.0, 0.0)
    assert due[0] == due[1] == [14, 21, 42]
    assert not ranks[0].is_time(1e9, 0.0), "steps are counted, not seconds"


def test_rank_0_alone_looks_at_the_clock():
    rank = Due({"seconds": 5})
    assert [rank.crosses(step) for step in (1, 2)] == [False, False]
    assert [rank.is_time(now, 0.0) for now in (0, 4, 5, 6)] == [False, False, True, True]
    rank.taken(3, 7, 0.0)
    assert not rank.is_time(8, 0.0)
