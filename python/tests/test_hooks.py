"""What is injected into every Python of a supervised run: little, late, and never in the way."""

import os
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1]
START = PACKAGE / "bitctl" / "hook_start"


def python(*arguments, path=(START, PACKAGE), socket="/nowhere", **environment):
    environment = {"PYTHONPATH": os.pathsep.join(map(str, path)), "PATH": os.environ["PATH"], "BITCTL_SOCKET": socket, **environment}
    done = subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)
    return done.stdout, done.stderr, done.returncode


def framework(folder, body):
    """A package of the name that is hooked."""
    (folder / "transformers").mkdir()
    (folder / "transformers" / "__init__.py").write_text("")
    (folder / "transformers" / "trainer.py").write_text(body)
    return (START, PACKAGE, folder)


def test_nothing_is_imported_before_a_framework_is():
    before = set(python("-c", "import sys; print(*sys.modules)", path=())[0].split())
    out, err, code = python("-c", "import sys; print(*sys.modules)")
    assert (err, code) == ("", 0)
    assert set(out.split()) - before == {"bitctl", "bitctl.hooks"}


def test_the_users_own_sitecustomize_runs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('mine', __file__)")
    out, err, _ = python("-c", "import sitecustomize, sys; print(sitecustomize.__file__)", path=(START, PACKAGE, tmp_path))
    assert out.splitlines() == ["mine %s" % (tmp_path / "sitecustomize.py"), str(tmp_path / "sitecustomize.py")] and err == ""


def test_where_there_is_none_python_finds_none():
    out, err, _ = python("-c", "import sys; print('sitecustomize' in sys.modules, any('hook_start' in p for p in sys.path))")
    assert (out.split(), err) == (["False", "False"], "")


def test_an_error_in_the_users_own_is_said_as_python_says_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("1 / 0")
    out, err, code = python("-c", "print('goes on')", path=(START, PACKAGE, tmp_path))
    assert out == "goes on\n" and code == 0 and "ZeroDivisionError" in err


def test_a_package_that_is_not_there_is_one_line(tmp_path):
    out, err, code = python("-c", "print('goes on')", path=(START,))
    assert out == "goes on\n" and code == 0
    assert err == "bitctl: no hooks (ModuleNotFoundError: No module named 'bitctl')\n"


def test_a_framework_that_has_changed_is_one_line(tmp_path):
    path = framework(tmp_path, "class Trainer: pass\n")
    out, err, code = python("-c", "import transformers.trainer as t; print(t.Trainer.__name__)", path=path)
    assert out == "Trainer\n" and code == 0
    assert err.startswith("bitctl: transformers.trainer is not hooked (") and err.count("\n") == 1


def test_an_error_of_the_framework_is_its_own(tmp_path):
    path = framework(tmp_path, "raise RuntimeError('broken')\n")
    _, err, code = python("-c", "import transformers.trainer", path=path)
    assert code == 1 and err.rstrip().endswith("RuntimeError: broken") and "hooks.py" in err and "not hooked" not in err


@pytest.mark.parametrize("socket", ["", "/nowhere"])
def test_hooks_only_in_a_supervised_process(socket):
    out, _, _ = python("-c", "import sys; print([type(f).__name__ for f in sys.meta_path].count('_HookFinder'))", socket=socket)
    assert out == "%d\n" % bool(socket)


def test_a_child_is_hooked_once(tmp_path):
    child = "import sys; print([type(f).__name__ for f in sys.meta_path].count('_HookFinder'))"
    code = "import runpy, subprocess, sys, bitctl.hooks as h; h.install(); print(subprocess.run([sys.executable, '-c', %r], capture_output=True, text=True).stdout, end='')" % child
    assert python("-c", code)[0] == "1\n"
