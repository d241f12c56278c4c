"""scripts/quickstart around a small trainer: its kill -9, what it tells of it, its Ctrl-C."""

import importlib.machinery
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import runs

SCRIPT = runs.ROOT / "scripts" / "quickstart"


def quickstart_in(folder):
    """The script as a module, the real job replaced by the config in `folder`."""
    loader = importlib.machinery.SourceFileLoader("quickstart", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("quickstart", loader))
    loader.exec_module(module)
    module.EXAMPLE, module.LATEST = folder, folder / "runs" / "latest"
    return module


@pytest.fixture
def job(tmp_path, monkeypatch):
    for name, value in runs.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    runs.config(tmp_path, "small.py", [60, "--pause", 0.05], checkpoints={"every": 10})
    return tmp_path


def test_the_trainer_is_killed_once_and_goes_on(bitctl, job, capfd):
    run = quickstart_in(job).train(kill=True)
    exits = runs.events_of(run, "exited")
    assert [(row["attempt"], row.get("signal")) for row in exits] == [(1, "SIGKILL"), (2, None)]
    resumed = runs.events_of(run, "resumed")[-1]["step"]
    assert resumed >= 30 and resumed % 10 == 0
    text = capfd.readouterr().out
    assert "killed by SIGKILL" in text and f"from the snapshot of step {resumed};" in text
    assert (run / "model" / "model.safetensors").exists()


def test_left_alone_it_needs_one_attempt(bitctl, job, capfd):
    run = quickstart_in(job).train(kill=False)
    assert [row["attempt"] for row in runs.events_of(run, "exited")] == [1]
    assert "kill" not in capfd.readouterr().out


def test_nobody_elses_process_is_killed(bitctl, job):
    """The pid of the history belongs to another by now."""
    bystander = subprocess.Popen(["sleep", "60"])
    killer = quickstart_in(job).Killer(subprocess.Popen(["sleep", "60"]), earlier_run=None)
    try:
        assert not killer.kill(bystander.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.3)
    finally:
        for process in (bystander, killer.supervisor):
            process.kill()
            process.wait()


def test_ctrl_c_stops_the_run_in_order(bitctl, job):
    code = "import sys; sys.path[:0] = %r; import test_quickstart as t, pathlib; t.quickstart_in(pathlib.Path(%r)).train(kill=True)"
    code %= [str(pathlib.Path(__file__).parent)], str(job)
    script = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True)
    runs.wait_for(lambda: any(row["step"] >= 3 for row in runs.events_of(job / "runs" / "latest", "progress")), "step 3")
    run = (job / "runs" / "latest").resolve()
    os.killpg(script.pid, signal.SIGINT)
    text, _ = script.communicate(timeout=runs.DEADLINE)
    assert script.returncode == 75
    assert "resume: bitctl resume " + run.name in text
    runs.wait_for(lambda: not runs.marked(run), "the end of every process of the run", 10)
