"""The library that reads PULSE holds no call that could write; the same look at the writer's finds them."""

import pathlib
import re
import subprocess

import pytest

BUILD = pathlib.Path(__file__).parents[2] / "build"

# Opening counts as well: a reader has read_small_file for that, which opens read-only.
WRITES = re.compile(
    r"\b(open(at)?|creat|write|pwrite|writev|pwritev2?|sendfile|copy_file_range|splice|fopen|fdopen|fwrite|fputs|"
    r"fprintf|rename(at2?)?|link(at)?|symlink(at)?|unlink(at)?|remove|rmdir|mkdir(at)?|mkstemp|mkdtemp|f?truncate|"
    r"fallocate|fsync|fdatasync|f?chmod|f?chown|utimensat|mmap|system|popen|posix_spawnp?|execv[ep]*)(64)?\b"
)
OURS = re.compile(
    r"replace_file|sweep_temporary_files|write_all|write_pulse|FileOps|FileLock|sync_folder|basic_ofstream|"
    r"basic_fstream|basic_filebuf|filesystem"
)


def write_calls(archive):
    """The undefined symbols of an archive with which something on disk could be changed."""
    listing = subprocess.check_output(["nm", "--undefined-only", "--demangle", archive], text=True)
    symbols = {line.split(maxsplit=1)[1] for line in listing.splitlines() if line.startswith(" ")}
    return {name for name in symbols if OURS.search(name) or ("::" not in name and WRITES.match(name.split("(")[0]))}


def test_the_reader_holds_no_write_call():
    assert write_calls(BUILD / "src" / "libbitctl_pulse.a") == set()


def test_the_same_look_at_the_writer_finds_them():
    assert any("replace_file" in name for name in write_calls(BUILD / "src" / "libbitctl_pulse_write.a"))


@pytest.mark.parametrize("call", ["unlink", "rename", "fsync", "write", "open", "open64", "ftruncate"])
def test_a_call_in_a_reader_would_be_found(tmp_path, call):
    (tmp_path / "bad.cc").write_text(f'extern "C" int {call}(const char*); int bad() {{ return {call}("x"); }}\n')
    subprocess.run(["g++", "-c", "bad.cc"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rc", "bad.a", "bad.o"], cwd=tmp_path, check=True)
    assert write_calls(tmp_path / "bad.a") == {call}
