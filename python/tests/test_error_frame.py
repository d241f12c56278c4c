"""Which frame of a traceback is told: the innermost of the user's own code."""

import json
import os
import sysconfig
import traceback

import pytest

import bitctl
from bitctl._error_report import innermost_of_the_user

USER = "/home/u/project/model.py"
LIBRARIES = {
    "the standard library": json.decoder.__file__,
    "a package": os.path.join(sysconfig.get_path("purelib"), "torch", "nn.py"),
    "a package elsewhere": "/opt/conda/lib/python3.11/site-packages/x.py",
    "Debian's packages": "/usr/lib/python3/dist-packages/x.py",
    "bitctl": bitctl.__file__,
    "frozen": "<frozen importlib._bootstrap>",
    "generated": "<string>",
}


def frames(*files):
    return [traceback.FrameSummary(file, line, "f", lookup_line=False) for line, file in enumerate(files, 1)]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_passed_over(library):
    told = innermost_of_the_user(frames("/home/u/train.py", USER, LIBRARIES[library]))
    assert (told.filename, told.lineno) == (USER, 2)


@pytest.mark.parametrize("file", ["/usr/src/app/train.py", "train.py", "/home/u/bitctl/train.py", "/home/u/site-packages.py"])
def test_the_users_own_files_are_not(file):
    assert innermost_of_the_user(frames(USER, file)).filename == file


def test_where_all_is_library_the_innermost_counts():
    told = innermost_of_the_user(frames(LIBRARIES["frozen"], LIBRARIES["a package"]))
    assert told.filename == LIBRARIES["a package"]
    assert innermost_of_the_user([]) is None
