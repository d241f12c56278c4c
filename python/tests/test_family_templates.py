"""The chat templates of the engine's families: text, ids and refusals are those of transformers."""

import datetime
import itertools
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "python"), str(pathlib.Path(__file__).parent)]

import chat_tokenizers as make  # noqa: E402
from bitctl import chat_template, text  # noqa: E402
from bitctl.chat_template import TextError  # noqa: E402
from family_templates import FAMILIES  # noqa: E402
from jinja2.exceptions import TemplateError  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

CONTENTS = (
    "Hi!", "  spaces  \n", "", "{{ x }} {% if %}", "日本語 👨‍👩‍👧", "<think>\n\nhm</think>\n\nyes", "a</think>b<think>c", "/no_think please",
    "<tool_response>\n1</tool_response>", "\"q\" \\n 'q'", "{'role': 'user'}",
)  # fmt: skip
ROLES = ("user", "system user", "user assistant user", "system user assistant user assistant user", "assistant user", "user user", "user assistant")


def conversations():
    """Every order of roles with each content in turn at each place."""
    for number, (roles, shift) in enumerate(itertools.product(ROLES, range(len(CONTENTS)))):
        words = roles.split()
        yield [{"role": role, "content": CONTENTS[(shift + at * (1 + number % 3)) % len(CONTENTS)]} for at, role in enumerate(words)]


@pytest.fixture(scope="module")
def tokenizer():
    return make.gpt2()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_template_says_what_transformers_makes_of_it(name, tokenizer, tmp_path):
    folder = make.write_folder(tmp_path, tokenizer, FAMILIES[name])
    ours, theirs = text.TextModel(str(folder)), PreTrainedTokenizerFast.from_pretrained(folder)
    rendered = set()
    for messages in conversations():
        day = datetime.date.today()
        try:
            expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as refusal:
            with pytest.raises(TextError, match="the chat template refuses") as caught:
                ours.render(messages)
            assert str(refusal) in str(caught.value)
            continue
        assert ours.render(messages) == expected or day != datetime.date.today()
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ours.encode(messages) == ids or day != datetime.date.today()
        rendered.add(expected)
    assert len(rendered) > 20


def test_another_environment_says_something_else(tokenizer, tmp_path, monkeypatch):
    """The control: Jinja as it comes keeps the line breaks behind blocks."""
    messages = [{"role": "user", "content": "Hi!"}]
    folder = make.write_folder(tmp_path, tokenizer, FAMILIES["zephyr"])
    before = text.TextModel(str(folder)).render(messages)
    made = chat_template.environment()
    made.trim_blocks = made.lstrip_blocks = False
    monkeypatch.setattr(chat_template, "environment", lambda: made)
    assert text.TextModel(str(folder)).render(messages) != before
