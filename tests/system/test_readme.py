"""What the README says, the programs say."""

import ast
import re
import subprocess

import pytest
import runs

README = (runs.ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(r"^```%s\n(.*?)^```" % language, README, re.M | re.S)


def help_of(bitctl, *command):
    return subprocess.run([bitctl, *command, "--help"], capture_output=True, text=True, check=True).stdout


def test_the_exit_codes_are_those_of_the_program(bitctl):
    of_readme = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.M)
    of_program = re.findall(r"^  (\d+) +(.*)$", help_of(bitctl), re.M)
    assert of_readme == of_program and len(of_program) > 10


def subcommands_of(bitctl):
    return set(re.findall(r"^  (\w+) ", help_of(bitctl).partition("Subcommands:")[2].partition("Exit codes")[0], re.M))


def test_every_command_is_in_the_table(bitctl):
    table = README.partition("| command | what it does |\n")[2].partition("\n\n")[0]
    of_readme = re.findall(r"^\| `bitctl (\w+)", table, re.M)
    assert set(of_readme) == subcommands_of(bitctl) and len(of_readme) == len(set(of_readme))


def test_every_command_that_is_named_exists(bitctl):
    subcommands = subcommands_of(bitctl)
    named = set(re.findall(r"\bbitctl ([a-z]+)\b", "".join(re.findall(r"`[^`\n]+`|^    .*$", README, re.M))))
    assert named and named <= subcommands
    for script in re.findall(r"scripts/[\w/-]+", README):
        assert (runs.ROOT / script).exists(), script


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_config_is_one(bitctl, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "train.py").write_text("")
    done = subprocess.run([bitctl, "train", "--dry-run", "config.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_python_block_is_python():
    for text in blocks("python"):
        ast.parse(text)


def test_the_layers_are_those_that_are_checked():
    from check_layers import COLUMNS

    of_readme = re.search(r"^    base <.*?(?=\n\n)", README, re.M | re.S).group()
    assert [[room.strip() for room in column.split(",")] for column in of_readme.split("<")] == COLUMNS
