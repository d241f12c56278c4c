"""bitctl.pulse: the six fields, and how they get into the file."""

import ast
import errno
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_check import assert_obeys

from bitctl import _pulse_self_test, pulse

PACKAGE = pathlib.Path(pulse.__file__).parent
NOW = 1732800000
GOOD = '{"status":"running","epoch":1.5,"total_epochs":3,"loss":-0.25,"message":"m","timestamp":1732800000}'


@pytest.fixture
def path(tmp_path):
    """A file for statuses; whatever the test has written there last obeys the schema, and lies there alone."""
    path = tmp_path / "training_status.json"
    yield path
    if path.exists():
        assert_obeys("pulse.v1", path)
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, path.name + ".lock"}


@pytest.fixture
def clock(monkeypatch):
    """Both clocks stand still until `clock.now` is moved."""

    class Clock:
        now = NOW + 0.9

    monkeypatch.setattr(pulse.time, "time", lambda: Clock.now)
    monkeypatch.setattr(pulse.time, "monotonic", lambda: Clock.now)
    return Clock


# FROZEN (schemas/README.md): names, their order and their types.


def test_the_file_has_these_bytes_and_no_others(path, clock):
    pulse.write_running_status(path, 1.5, 3, 0.342, "epoch 2/3, step 150/800")
    assert path.read_bytes() == (
        b'{"status":"running","epoch":1.5,"total_epochs":3.0,"loss":0.342,'
        b'"message":"epoch 2/3, step 150/800","timestamp":1732800000}\n'
    )
    pulse.write_idle_status(path)
    assert path.read_bytes() == (
        b'{"status":"idle","epoch":0.0,"total_epochs":0.0,"loss":0.0,'
        b'"message":"Waiting to start...","timestamp":1732800000}\n'
    )


def test_the_schema_has_these_fields_and_no_others():
    schema = json.loads((PACKAGE.parents[1] / "schemas" / "pulse.v1.schema.json").read_text())
    types = {name: rules["type"] for name, rules in schema["properties"].items()}
    assert list(types.items()) == [
        ("status", "string"), ("epoch", "number"), ("total_epochs", "number"), ("loss", "number"),
        ("message", "string"), ("timestamp", "integer"),
    ]
    assert schema["required"] == list(types) == list(pulse.FIELDS)
    assert schema["properties"]["status"]["enum"] == list(pulse.STATES) == ["idle", "running", "done", "error"]
    assert schema["additionalProperties"] is False


# What is written.


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_each_status(path, clock, kind):
    where = kind(path)
    pulse.write_idle_status(where, "soon")
    assert pulse.read(where) == dict(zip(pulse.FIELDS, ("idle", 0, 0, 0, "soon", NOW)))
    pulse.write_running_status(where, 1, 3, 0.5, "epoch 1/3")
    assert pulse.read(where) == dict(zip(pulse.FIELDS, ("running", 1, 3, 0.5, "epoch 1/3", NOW)))
    pulse.write_error_status(where, "CUDA out of memory")
    assert pulse.read(where) == dict(zip(pulse.FIELDS, ("error", 1, 3, 0.5, "CUDA out of memory", NOW)))
    pulse.write_done_status(where, 3, 3, 0.127, "Training completed successfully")
    assert pulse.read(where) == dict(zip(pulse.FIELDS, ("done", 3, 3, 0.127, "Training completed successfully", NOW)))


def test_an_error_without_a_past_has_zeros(path):
    pulse.write_error_status(path, "no such dataset")
    assert [pulse.read(path)[name] for name in ("epoch", "total_epochs", "loss")] == [0, 0, 0]


@pytest.mark.parametrize("damaged", ['{"status": ', GOOD.replace("1.5", "1" + "0" * 400)])
def test_an_error_over_a_damaged_file_has_zeros(path, damaged):
    path.write_text(damaged)
    pulse.write_error_status(path, "no such dataset")
    assert pulse.read(path)["loss"] == 0


@pytest.mark.parametrize(
    "arguments, name",
    [
        ((-1, 3, 0.5, "m"), "epoch"),
        ((math.nan, 3, 0.5, "m"), "epoch"),
        ((math.inf, 3, 0.5, "m"), "epoch"),
        ((1, -3, 0.5, "m"), "total_epochs"),
        ((1, math.inf, 0.5, "m"), "total_epochs"),
        (("1", 3, 0.5, "m"), "epoch"),
        ((True, 3, 0.5, "m"), "epoch"),
        ((None, 3, 0.5, "m"), "epoch"),
        ((1, 3, None, "m"), "loss"),
        ((1, 3, [0.5], "m"), "loss"),
        ((1, 3, 10**400, "m"), "loss"),
        ((1, 3, 0.5, None), "message"),
        ((1, 3, 0.5, b"m"), "message"),
    ],
)
def test_what_cannot_be_a_status_is_a_value_error(path, arguments, name):
    for write in (pulse.write_running_status, pulse.write_done_status):
        with pytest.raises(ValueError, match=name):
            write(path, *arguments)
    assert not path.exists()


def test_an_unknown_status_is_a_value_error():
    with pytest.raises(ValueError, match="'queued' is none of idle, running, done, error"):
        pulse._status("queued", 0, 0, 0, "")


def test_numbers_of_other_libraries_are_numbers(path):
    numpy = pytest.importorskip("numpy")
    pulse.write_running_status(path, numpy.float32(1.5), numpy.int64(3), numpy.float64(0.25), "m")
    assert pulse.read(path)["loss"] == 0.25
    with pytest.raises(ValueError):
        pulse.write_running_status(path, 1, 3, numpy.zeros(2), "m")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_never_enters_the_file(path, loss):
    pulse.write_running_status(path, 1, 3, loss, "epoch 1/3")
    assert (pulse.read(path)["loss"], pulse.read(path)["message"]) == (0, "loss is NaN")
    pulse.write_running_status(path, 1, 3, 0.5, "epoch 1/3, step 149/800")
    pulse.write_running_status(path, 1.5, 3, loss, "epoch 1/3, step 150/800")
    assert (pulse.read(path)["loss"], pulse.read(path)["message"]) == (0.5, "loss is NaN at step 150")
    assert pulse.read(path)["epoch"] == 1.5


def test_a_message_of_any_length_and_kind_stays_readable(path):
    for message in ("x" * 10**6, "日" * 10**5, "\x01" * 10**5, "half a pair: \ud800", "\0"):
        pulse.write_running_status(path, 1, 3, 0.5, message)
        assert path.stat().st_size < pulse.MAX_FILE_BYTES
        assert len(pulse.read(path)["message"].encode()) <= pulse.MAX_MESSAGE_BYTES + 3


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(pulse.STATES), numbers.map(abs), numbers.map(abs), numbers,
       st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_what_is_written_is_read_back(tmp_path_factory, state, epoch, total_epochs, loss, message):
    path = tmp_path_factory.getbasetemp() / "round_trip.json"
    status = pulse._status(state, epoch, total_epochs, loss, message)
    pulse._publish(path, status)
    assert pulse.read(path) == status
    assert_obeys("pulse.v1", path)


# How it is written.


def test_anybody_may_read_the_file(path):
    mask = os.umask(0o027)
    try:
        pulse.write_idle_status(path)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(path, monkeypatch, call):
    pulse.write_running_status(path, 1, 3, 0.5, "old")
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pulse.os, call, fail)
    with pytest.raises(OSError, match=f"cannot write {path}: Input/output error") as caught:
        pulse.write_running_status(path, 2, 3, 0.4, "new")
    assert caught.value.errno == errno.EIO
    assert len(calls) == 1, "a failed fsync may not be tried again"
    assert pulse.read(path)["message"] == "old"


def test_it_is_on_disk_before_it_is_seen(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        spy = lambda *arguments, name=name, real=real: (calls.append(name), real(*arguments))  # noqa: E731
        monkeypatch.setattr(pulse.os, name, spy)
    pulse.write_idle_status(path)
    assert calls == ["fsync", "replace", "fsync"]


def test_an_interrupt_leaves_nothing_behind(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pulse.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pulse.write_idle_status(path)
    assert not path.exists()


def test_a_disk_that_takes_no_byte(path):
    pulse.write_running_status(path, 1, 3, 0.5, "old")
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "import sys; from bitctl import pulse\n"
        "try: pulse.write_running_status(sys.argv[1], 2, 3, 0.4, 'new')\n"
        "except OSError as error: sys.exit(0 if 'cannot write' in str(error) else str(error))\n"
        "sys.exit('no error')"
    )
    run_python("-c", script, str(path))
    assert pulse.read(path)["message"] == "old"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="none/training_status.json"):
        pulse.write_idle_status(tmp_path / "none" / "training_status.json")


def test_json_that_is_none_is_a_value_error(path):
    for data in ({"loss": math.nan}, {"loss": math.inf}, {"a": object()}, {"a": {1, 2}}):
        with pytest.raises(ValueError, match="cannot write"):
            pulse.atomic_write_json(path, data)
    assert not path.exists()


# Reading.


def test_read_takes_what_is_good_and_drops_what_it_does_not_know(tmp_path):
    file = tmp_path / "foreign.json"
    file.write_text(GOOD.replace("{", '{"progress":50,'))
    assert list(pulse.read(file)) == list(pulse.FIELDS)
    assert pulse.safe_read_json(file)["progress"] == 50
    assert pulse.read(tmp_path / "none.json") is None
    assert pulse.safe_read_json(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "old, new, json_at_all",
    [
        (GOOD, "", False),
        (GOOD, GOOD[:-1], False),
        (GOOD, "\ufeff" + GOOD, False),
        (GOOD, GOOD + GOOD, False),
        (GOOD, "[]", True),
        (GOOD, "[" * 100000, False),
        ('"loss"', '"epoch"', False),
        ('"status"', '"state"', True),
        ("running", "queued", True),
        ("1.5", "null", True),
        ("1.5", "true", True),
        ("1.5", "-1", True),
        ("1.5", "1" + "0" * 400, True),
        (":3", ":1" + "0" * 400, True),
        ("-0.25", "-1" + "0" * 400, True),
        (":3", ":-3", True),
        ("-0.25", "NaN", False),
        ("-0.25", "Infinity", False),
        ("-0.25", "1e999", False),
        ("-0.25", '"0"', True),
        ('"m"', "null", True),
        ('"m"', '"\\ud800"', True),
        ("1732800000", "1732800000.0", True),
        ("1732800000", "1e9", True),
        ("1732800000", "-1", True),
        ("1732800000", "9223372036854775808", True),
        ("1732800000", "true", True),
    ],
)
def test_read_says_what_is_damaged(tmp_path, old, new, json_at_all):
    file = tmp_path / "damaged.json"
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match="damaged.json"):
        pulse.read(file)
    assert (pulse.safe_read_json(file) is not None) == json_at_all


def test_every_shorter_file_is_damaged(tmp_path):
    file = tmp_path / "damaged.json"
    for size in range(len(GOOD)):
        file.write_text(GOOD[:size])
        assert pulse.safe_read_json(file) is None
        with pytest.raises(ValueError):
            pulse.read(file)


def test_only_a_small_regular_file_is_read(tmp_path):
    good, link, fifo, large = (tmp_path / name for name in ("good", "link", "fifo", "large"))
    good.write_text(GOOD)
    link.symlink_to(good)
    os.mkfifo(fifo)
    large.write_text(GOOD)
    os.truncate(large, 100_000_000)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    junk = tmp_path / "junk"
    junk.write_bytes(bytes(range(256)))
    for file in (link, fifo, large, tmp_path, tmp_path / "socket", junk, pathlib.Path("/dev/zero")):
        assert pulse.safe_read_json(file) is None
        with pytest.raises(ValueError, match=str(file)):
            pulse.read(file)
    server.close()


# A whole run.


def test_a_run_that_ends_well(path, clock):
    with pulse.Pulse(path, 3) as run:
        assert pulse.read(path) == dict(zip(pulse.FIELDS, ("running", 0, 3, 0, "Starting…", NOW)))
        clock.now += 2
        run.update(1.5, 0.5, "epoch 2/3")
        assert pulse.read(path) == dict(zip(pulse.FIELDS, ("running", 1.5, 3, 0.5, "epoch 2/3", NOW + 2)))
    assert pulse.read(path) == dict(
        zip(pulse.FIELDS, ("done", 3, 3, 0.5, "Training completed successfully", NOW + 2))
    )


def test_at_most_one_write_a_second_and_the_last_update_is_never_lost(path, clock):
    with pytest.raises(RuntimeError):
        with pulse.Pulse(path, 3) as run:
            writes = set()
            for step in range(1, 101):
                clock.now += 0.1
                run.update(step / 100, 1 / step, step=step)
                writes.add(pulse.read(path)["message"])
            assert 9 <= len(writes) <= 11
            run.update(1.25, 0.125, "the very last")
            raise RuntimeError("CUDA out of memory")
    last = pulse.read(path)
    assert (last["epoch"], last["loss"], last["message"]) == (1.25, 0.125, "RuntimeError: CUDA out of memory")


@pytest.mark.parametrize("code", [None, 0])
def test_leaving_without_an_error_is_an_end(path, code):
    with pytest.raises(SystemExit):
        with pulse.Pulse(path, 3) as run:
            run.update(1.5, 0.5)
            sys.exit(code)
    last = pulse.read(path)
    assert (last["status"], last["message"]) == ("done", "Training completed successfully")


@pytest.mark.parametrize(
    "error, message",
    [
        (MemoryError(), "MemoryError"),
        (ValueError("bad\nline"), "ValueError: bad\nline"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (RuntimeError("x" * 10**6), None),
    ],
)
def test_an_exception_is_an_error_and_goes_on(path, error, message):
    with pytest.raises(type(error)) as caught:
        with pulse.Pulse(path, 3) as run:
            run.update(1.5, 0.5)
            raise error
    assert caught.value is error
    last = pulse.read(path)
    assert (last["status"], last["epoch"], last["loss"]) == ("error", 1.5, 0.5)
    assert message is None or last["message"] == message


def test_a_loss_that_is_no_number_in_a_run(path, clock):
    with pulse.Pulse(path, 3) as run:
        run.update(1, 0.5, step=41)
        clock.now += 1
        run.update(1.5, math.nan, "epoch 2/3", step=42)
        assert (pulse.read(path)["loss"], pulse.read(path)["message"]) == (0.5, "loss is NaN at step 42")
        run.update(2, 0.25, "not written: the second is not over")
        run.update(2, math.inf, "nor this")
    assert pulse.read(path)["loss"] == 0.25


def test_a_training_may_change_its_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pulse.Pulse(path.name, 3):
        os.chdir("/")
    assert pulse.read(path)["status"] == "done"
    with pulse.Pulse(path, 3):
        pass  # the lock had been let go


def test_a_disk_that_fails_does_not_end_the_training(path, clock, monkeypatch, capsys):
    with pulse.Pulse(path, 3) as run:
        with monkeypatch.context() as broken:
            broken.setattr(pulse.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            for _ in range(3):
                clock.now += 1
                run.update(1, 0.5)
        assert pulse.read(path)["epoch"] == 0
    assert pulse.read(path)["status"] == "done"
    assert capsys.readouterr().err == f"bitctl.pulse: cannot write {path}: No space left\n"


def test_something_long_is_kept_fresh(path, clock, monkeypatch):
    stamps = []
    real = pulse.Pulse._publish

    def publish(self, status):
        clock.now += 10
        real(self, status)
        stamps.append(pulse.read(path)["timestamp"])

    with pulse.Pulse(path, 3) as run:
        monkeypatch.setattr(pulse.Pulse, "_publish", publish)
        monkeypatch.setattr(pulse, "BUSY_INTERVAL_S", 0.001)
        with run.busy("saving checkpoint"):
            for _ in range(6000):
                if len(stamps) >= 3:
                    break
                time.sleep(0.01)
            assert len(stamps) >= 3
            assert pulse.read(path)["message"] == "saving checkpoint"
        told = len(stamps)
        assert stamps == sorted(set(stamps))
        monkeypatch.undo()
    assert len(stamps) == told


def test_a_forked_worker_neither_writes_nor_ends_the_run(path):
    with pulse.Pulse(path, 3) as run:
        child = os.fork()
        if child == 0:
            run.update(2, 0.1, "from the worker")
            run.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        assert pulse.read(path)["message"] == "Starting…"


# Under bitctl: the supervisor writes.


class Run:
    def __init__(self):
        self.told = []

    def pulse(self, status):
        self.told.append(status)
        return True


@pytest.fixture
def run(path, monkeypatch):
    run = Run()
    monkeypatch.setenv("BITCTL_PULSE", str(path))
    pulse._set_run(run)
    yield run
    pulse._set_run(None)


def test_under_bitctl_the_facts_go_to_the_supervisor(path, run, monkeypatch):
    monkeypatch.chdir(path.parent)
    pulse.write_running_status(path.name, 1, 3, math.nan, "step 7")
    pulse.write_error_status(path, "broken")
    with pulse.Pulse(path, 3) as p:
        p.update(1, 0.5)
    assert [status["status"] for status in run.told] == ["running", "error", "running", "done"]
    assert math.isnan(run.told[0]["loss"]) and run.told[0]["message"] == "step 7"
    assert list(path.parent.iterdir()) == [], "neither the file nor its lock is ours"


def test_under_bitctl_wrong_values_are_still_refused(path, run):
    with pytest.raises(ValueError):
        pulse.write_running_status(path, -1, 3, 0.5, "m")


def test_under_bitctl_a_file_of_ones_own_is_written(path, run, tmp_path_factory):
    own = tmp_path_factory.mktemp("own") / "training_status.json"
    pulse.write_idle_status(own)
    assert pulse.read(own)["status"] == "idle" and run.told == []


# The package.


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
                          check=True, capture_output=True, text=True, timeout=120)


def test_the_self_test():
    result = run_python("-W", "error", "-m", "bitctl.pulse", "--self-test")
    assert result.stdout.endswith("6/6 checks passed\n") and result.stderr == ""


def test_the_self_test_can_fail(path, monkeypatch):
    monkeypatch.setattr(pulse, "write_done_status", pulse.write_running_status)
    results = _pulse_self_test.checks(str(path))
    assert [name for name, passed in results.items() if not passed] == ["done"]


@pytest.mark.parametrize("name", ["pulse.py", "_pulse_self_test.py", "_writer_lock.py"])
def test_it_is_python_3_8(name):
    ast.parse((PACKAGE / name).read_text(), feature_version=(3, 8))


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.stdlib_module_names")
def test_it_needs_the_standard_library_alone():
    result = run_python("-S", "-c", "import sys, bitctl.pulse\nprint(*{name.split('.')[0] for name in sys.modules})")
    assert set(result.stdout.split()) - set(sys.stdlib_module_names) <= {"bitctl", "__main__"}
