"""Warm standby: a spare interpreter becomes the next attempt, and nothing but the time tells it from a cold start."""

import json
import os
import signal
import subprocess
import sys

import pytest
import runs
import torch
from runs import wait_for

READY = 120  # seconds; it imports torch at low priority, on a machine that may be busy


def script(folder, later="", before=""):
    """A trainer that reports a step and waits; from the second attempt on it does `later` first."""
    (folder / "train.py").write_text(
        "%s\n"
        "import os, sys, time\n"
        "import bitctl\n"
        "def later():\n"
        "    %s\n"
        "if __name__ == '__main__':\n"
        "    run = bitctl.init()\n"
        "    if os.environ['BITCTL_ATTEMPT'] != '1': later()\n"
        "    for step in range(1, 100000):\n"
        "        run.progress(step=step); time.sleep(0.1)\n" % (before, later.replace("\n", "\n    ") or "pass")
    )


def config(folder, run, **restart):
    path = folder / "config.yaml"
    path.write_text(json.dumps({"name": "test", "run": run, "restart": {"backoff": "1ms", **restart}}))
    return path


def ready(run, attempt=1):
    """The spare's pid, once it waits."""
    run.wait_event("spare", READY, state="ready", attempt=attempt)
    return run.events("spare")[-2]["pid"]


def restarted(run, attempt=2):
    """Kills the trainer; the pid of the next one."""
    os.kill(run.trainer(), signal.SIGKILL)
    return run.wait_event("spawned", attempt=attempt)["pid"]


def states(run):
    return [row["state"] for row in run.events("spare")]


@pytest.mark.parametrize("warm", ["auto", "off"])
def test_warm_and_cold_give_the_weights_of_an_uninterrupted_run(start, tmp_path, warm):
    (tmp_path / "plain").mkdir()
    plain = dict(runs.environment(tmp_path), PYTHONPATH=str(runs.ROOT / "python"))
    subprocess.run([runs.python(), runs.TRAINERS / "small.py", "30", "--weights", tmp_path / "plain" / "w.pt"], check=True, env=plain)
    arguments = [30, "--weights", tmp_path / "w.pt", "--log", tmp_path / "steps.log", "--hold", 10, tmp_path / "go"]
    run = start("train", runs.config(tmp_path, "small.py", arguments, checkpoints={"every": 3}, restart={"warm": warm}))
    log = tmp_path / "steps.log"
    wait_for(lambda: log.exists() and "1 10\n" in log.read_text(), "step 10")
    spare = ready(run) if warm == "auto" else None
    (tmp_path / "go").touch()
    trainer = restarted(run)
    assert run.wait() == 0, run.text()
    assert (trainer == spare) == (warm == "auto")
    assert ("used" in states(run)) == (warm == "auto")
    assert 0 < run.events("resumed")[-1]["step"] <= 10
    expected, weights = torch.load(tmp_path / "plain" / "w.pt"), torch.load(tmp_path / "w.pt")
    assert all(weights[k].equal(expected[k]) for k in expected)


DESCRIPTION = """
import json, multiprocessing, pickle, signal
class Thing: pass
globals()['Thing'] = Thing; Thing.__qualname__ = 'Thing'
with multiprocessing.get_context('spawn').Pool(1) as pool: child = pool.apply(abs, (-3,))
print(json.dumps({
    'main': [__name__, __file__, str(__spec__ and __spec__.name), sorted(globals())],
    'pickled': pickle.dumps(Thing()).hex(), 'child': child,
    'argv': [sys.argv, sys.orig_argv, sys.flags, os.getcwd()], 'path': sys.path,
    'site': 'sitecustomize' in sys.modules,
    'environ': {k: v for k, v in os.environ.items() if not k.startswith(('BITCTL_', 'TORCH'))},
    'signals': [str(signal.getsignal(s)) for s in (2, 13, 15)] + [str(signal.pthread_sigmask(0, []))],
    'fds': sorted(os.listdir('/proc/self/fd')),
    'standing': [os.nice(0), os.sched_getscheduler(0), open('/proc/self/oom_score_adj').read(), open('/proc/self/comm').read()],
    'group': open('/proc/self/autogroup').read().split('nice')[1] if os.path.exists('/proc/self/autogroup') else '',
    'streams': [sys.stdout.line_buffering, sys.stdout.write_through, sys.stdout.encoding, sys.stdin.read()],
}, default=str))
sys.exit(7)
"""


@pytest.mark.parametrize("command", ["script", "command", "module"])
def test_nothing_tells_it_from_a_cold_start(start, tmp_path, command):
    script(tmp_path, DESCRIPTION)
    run = {
        "script": {"script": "train.py", "args": ["--lr", "1"]},
        "command": {"command": [runs.python(), "-O", "train.py", "-x"]},
        "module": {"command": [runs.python(), "-m", "train"]},
    }[command]
    described = {}
    for warm in ("auto", "off"):
        folder = tmp_path / warm
        path = config(tmp_path, dict(run, env={"MY_OWN": "1"}), warm=warm, never_on=[7])
        supervised = start("train", path, "--set", "output.dir=%s" % (folder / "runs"))
        (folder).mkdir(exist_ok=True)
        supervised.folder = folder
        if warm == "auto":
            spare = ready(supervised)
        else:
            supervised.wait_event("progress")
        assert restarted(supervised) == spare or warm == "off"
        assert supervised.wait() == 7, supervised.text()
        described[warm] = json.loads((supervised.path / "logs" / "attempt-2.log").read_text())
    for key, cold in described["off"].items():
        assert described["auto"][key] == cold, key


def test_tracebacks_are_those_of_a_cold_start(start, tmp_path):
    script(tmp_path, "def inner(): return {}['the key']\ninner()")
    run = start("train", config(tmp_path, {"script": "train.py"}, never_on=[1]))
    spare = ready(run)
    assert restarted(run) == spare
    assert run.wait() == 1
    plain = dict(runs.environment(tmp_path), PYTHONPATH=str(runs.ROOT / "python"), BITCTL_ATTEMPT="2")
    cold = subprocess.run([runs.python(), "-u", tmp_path / "train.py"], env=plain, capture_output=True, text=True)
    assert cold.returncode == 1 and "KeyError: 'the key'" in cold.stderr
    assert (run.path / "logs" / "attempt-2.log").read_text() == cold.stderr


@pytest.mark.parametrize(
    "later, code", [("sys.exit(7)", 7), ("sys.exit('no data')", 1), ("os.kill(os.getpid(), 11)", 139), ("raise SystemExit", 0)]
)
def test_its_exit_is_the_trainers(start, tmp_path, later, code):
    script(tmp_path, "import atexit; atexit.register(print, 'bye')\n" + later)
    run = start("train", config(tmp_path, {"script": "train.py"}, never_on=[1, 7], max=2))
    spare = ready(run)
    assert restarted(run) == spare
    assert run.wait() == code, run.text()
    if code != 139:
        assert "bye" in (run.path / "logs" / "attempt-2.log").read_text()


@pytest.mark.parametrize(
    "before, reason",
    [
        ("import os; os.environ['OMP_NUM_THREADS'] = '2'", "the script changes OMP_NUM_THREADS before its imports"),
        ("import os; os.environ['HF_HOME'] = '/x'; del os.environ['HOME']", "the script changes HF_HOME, HOME before its imports"),
        ("import resource", "the script has a module resource of its own"),
    ],
)
def test_none_where_a_cold_start_would_import_otherwise(start, tmp_path, before, reason):
    (tmp_path / "resource.py").write_text("")
    script(tmp_path, before=before)
    run = start("train", config(tmp_path, {"script": "train.py"}))
    assert run.wait_event("spare", state="off")["reason"] == reason
    pid = run.events("spare")[0]["pid"]
    wait_for(lambda: not runs.alive(pid), "its end")
    assert restarted(run) != pid
    assert "spare: off: " + reason in subprocess.run([run.bitctl, "status", run.path], capture_output=True, text=True).stdout


LAUNCHER = "the command starts the script's Python itself, as launchers and shells do"


@pytest.mark.parametrize(
    "how, reason",
    [
        ({"shell": "python train.py"}, LAUNCHER),
        ({"shell": "touch begun.$$; exec python train.py"}, LAUNCHER),
        ({"command": ["python", "-c", "import subprocess; subprocess.run(['python', 'train.py'])"]}, LAUNCHER),
        ({"command": [sys.executable, "-c", "import sys; sys.path.insert(0, %r); exec(open('train.py').read())" % str(runs.ROOT / "python")], "hook": "off"}, "PYTHONPATH does not reach the script"),
        ({"command": ["python", "train.py"]}, ""),
        ({"command": ["python", "-Sc", "exec(open('train.py').read())"]}, "python runs with -S"),
        ({"script": "train.py", "off": True}, "restart.warm is off"),
    ],
)  # fmt: skip
def test_where_there_is_none_and_why(start, tmp_path, how, reason):
    script(tmp_path)
    warm = {"warm": "off"} if how.pop("off", False) else {}
    path = os.path.dirname(runs.python()) + ":" + os.environ["PATH"]
    run = start("train", config(tmp_path, how, **warm), env={"PATH": path})
    if not reason:  # the control: this one has a spare
        assert ready(run)
        return
    run.wait_event("progress")
    assert run.wait_event("spare")["state"] == "off"
    assert run.events("spare")[0]["reason"] == reason
    run.wait_step(10)
    assert not runs.children_named(run.process.pid, "bitctl-spare")
    assert len(list(tmp_path.glob("begun.*"))) <= 1


def test_a_killed_one_is_replaced_and_no_failure(start, tmp_path):
    script(tmp_path)
    run = start("train", config(tmp_path, {"script": "train.py"}))
    for _ in range(2):
        os.kill(ready(run), signal.SIGKILL)
        before = len(states(run))
        wait_for(lambda: states(run)[before - 1 :][:3] == ["died", "starting", "ready"] or states(run)[before:][:3] == ["died", "starting", "ready"], "the next one")
    os.kill(run.events("spare")[-2]["pid"], signal.SIGKILL)
    assert run.wait_event("spare", state="off")["reason"] == "3 spares have died"
    assert run.events("spare")[-2]["reason"] == "killed by SIGKILL"
    assert len(run.events("spawned")) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_cannot_go_costs_a_cold_start(start, tmp_path, how):
    script(tmp_path)
    run = start("train", config(tmp_path, {"script": "train.py"}))
    spare = ready(run)
    os.kill(spare, how)
    trainer = restarted(run)
    assert trainer != spare
    run.wait_event("progress", attempt=2)
    assert "used" not in states(run)
    wait_for(lambda: not runs.alive(spare), "its end")
    # The one after it serves again.
    second = ready(run, 2)
    assert restarted(run, 3) == second


@pytest.mark.parametrize("level", ["cgroup", "sweep"])
@pytest.mark.parametrize("end", ["stop", "kill -9", "done"])
def test_it_ends_with_the_run(start, tmp_path, end, level):
    if level == "cgroup" and os.geteuid() != 0:
        pytest.skip("no writable cgroup v2 here")
    script(tmp_path, "sys.exit(0)")
    run = start("train", config(tmp_path, {"script": "train.py"}), env={"BITCTL_ISOLATION": level})
    spare = ready(run)
    if end == "done":  # the first one is used, and the attempt ends before a second is made
        assert restarted(run) == spare
        assert run.wait() == 0, run.text()
    else:
        assert runs.alive(spare)
        run.process.send_signal(signal.SIGINT if end == "stop" else signal.SIGKILL)
        run.wait()
    wait_for(lambda: not runs.alive(spare) and not runs.marked(run.path), "the end of all", 20)


def test_its_tree_is_not_the_attempts(start, tmp_path):
    """The attempt's end kills all that belongs to it, and the spare lives on."""
    script(tmp_path)
    run = start("train", config(tmp_path, {"script": "train.py"}), env={"BITCTL_ISOLATION": "sweep"})
    spare = ready(run)
    assert restarted(run) == spare
    second = ready(run, 2)
    assert restarted(run, 3) == second
