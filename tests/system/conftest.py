"""Fixtures of the black-box tests: a started run that is ended with the test."""

import pytest
import runs
from schema_check import assert_run_obeys


@pytest.fixture
def start(bitctl, tmp_path):
    """start("train", config, …) -> runs.Run; whatever still runs is ended afterwards."""
    started = []

    def begin(*arguments, folder=tmp_path, **options):
        run = runs.Run(bitctl, folder, *arguments, **options)
        started.append(run)
        return run

    yield begin
    for run in started:
        run.end()
    for run in started:
        for path in run.folders():
            assert_run_obeys(path)
