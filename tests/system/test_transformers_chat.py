"""bitctl chat through the transformers engine: the real program and its child, which outlives neither error nor end."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import peft
import pytest
import torch
import transformers
from byte_model import write_byte_model
from runs import wait_for

DEADLINE = 120
END_OF_TURN = 258


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small mixture of experts, which the native engine does not know."""
    folder = write_byte_model(tmp_path_factory.mktemp("models") / "moe")
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=512, initializer_range=0.2,
        eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def greedy(model, messages, new, loaded=None):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    prompt = torch.tensor([ids])
    loaded = loaded or transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    tokens = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=new, eos_token_id=END_OF_TURN
    )
    return tokenizer.decode([id for id in tokens[0, len(ids) :].tolist() if id < 256])


class Chat:
    """--jsonl, one message after the other."""

    def __init__(self, bitctl, model, *options, **environment):
        self.process = subprocess.Popen(
            [bitctl, "chat", str(model), "--jsonl", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "BITCTL_PYTHON": sys.executable, **environment},
        )  # fmt: skip

    def send(self, text):
        self.process.stdin.write(json.dumps({"role": "user", "content": text}) + "\n")
        self.process.stdin.flush()

    def until(self, kind):
        """The events up to the first of that kind."""
        events = []
        while not events or events[-1]["event"] != kind:
            line = self.process.stdout.readline()
            assert line, (events, self.process.communicate())
            events.append(json.loads(line))
        return events

    def engine(self):
        """The pid of the engine's process; None where there is none."""
        for pid in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for child in pid.read_text().split():
                if b"bitctl.transformers_engine" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return None


@pytest.fixture
def start(bitctl):
    chats = []

    def start_chat(*arguments, **environment):
        chats.append(Chat(bitctl, *arguments, **environment))
        return chats[-1]

    yield start_chat
    for chat in chats:
        chat.process.kill()
        chat.process.wait()
        for pipe in (chat.process.stdin, chat.process.stdout, chat.process.stderr):
            pipe.close()


def wait_until_gone(pid):
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the engine")


def test_an_unknown_architecture_is_answered_as_transformers_does_and_stops_between_tokens(start, model):
    chat = start(model, "--max-new-tokens", "24")
    first = chat.send("hello") or chat.until("answer")
    [warning] = [event["text"] for event in first if event["event"] == "warning"]
    assert warning.startswith('⚠ config.json: model_type "mixtral" is not implemented (known: ')
    assert warning.endswith("): transformers answers, slower than the native engine")
    messages = [{"role": "user", "content": "hello"}]
    assert first[-1]["content"] == greedy(model, messages, 24)
    messages += [{"role": "assistant", "content": first[-1]["content"]}, {"role": "user", "content": "go on"}]
    second = chat.send("go on") or chat.until("answer")
    assert second[-1]["content"] == greedy(model, messages, 24)
    assert second[-1]["reused_tokens"] >= first[-1]["prompt_tokens"]
    engine = chat.engine()
    chat.send("and again")
    chat.until("text")
    chat.process.send_signal(signal.SIGINT)
    assert chat.process.wait(timeout=DEADLINE) == 130
    wait_until_gone(engine)


def test_an_engine_that_is_killed_is_one_line(start, model):
    chat = start(model, "--engine", "transformers", "--no-mmap", "--max-new-tokens", "4")
    events = chat.send("hello") or chat.until("answer")
    assert [event for event in events if event["event"] == "warning"] == [], "it is what was asked for"
    os.kill(chat.engine(), signal.SIGKILL)
    end = (chat.send("hello") or chat.until("answer"))[-1]
    assert (end["stop"], end["reason"]) == ("error", "the transformers engine ended (SIGKILL)")
    assert chat.until("state")[-1]["state"] == "failed"
    chat.process.stdin.close()
    assert chat.process.wait(timeout=DEADLINE) == 1


def test_nothing_outlives_a_chat_that_is_killed_while_it_loads(start, model, tmp_path):
    """Also an engine that is busy for ever, and would never read the end of its socket."""
    (tmp_path / "torch.py").write_text("open(%r, 'w')\nwhile True:\n    pass\n" % str(tmp_path / "busy"))
    chat = start(model, PYTHONPATH=str(tmp_path))
    wait_for((tmp_path / "busy").exists, "the engine")
    engine = chat.engine()
    chat.process.kill()
    try:
        wait_until_gone(engine)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine, signal.SIGKILL)


def chat_of(bitctl, *arguments, **environment):
    env = {**os.environ, "BITCTL_PYTHON": sys.executable, **environment}
    return subprocess.run(
        [bitctl, "chat", *map(str, arguments), "-p", "x"], stdin=subprocess.DEVNULL, capture_output=True, env=env, text=True,
        timeout=DEADLINE,
    )  # fmt: skip


def test_an_engine_that_was_asked_for_stays(bitctl, model):
    done = chat_of(bitctl, model, "--engine", "native")
    assert done.returncode == 1
    assert "Failed: config.json: model_type \"mixtral\" is not implemented" in done.stderr
    assert "transformers" not in done.stderr


def test_a_missing_package_is_one_line_with_its_remedy(bitctl, model, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    for options in ([], ["--engine", "transformers"]):
        done = chat_of(bitctl, model, *options, PYTHONPATH=str(tmp_path))
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.endswith(f"the Python package torch is missing: {sys.executable} -m pip install torch"), done.stderr
        assert ("nor can transformers" in last) == (not options)


def test_a_run_that_trained_an_adapter_answers_on_its_base(bitctl, model, tmp_path):
    """Its tokenizer is the base's; --base-model where the base has moved."""
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter))
    run = tmp_path / "run"
    adapted.save_pretrained(run / "model")
    (run / "run.json").write_text("{}")
    config = run / "model" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(model), str(tmp_path / "moved")))
    done = chat_of(bitctl, run, "--max-new-tokens", "12")
    assert done.returncode == 1
    assert f"the base model of run is not here: {tmp_path}/moved: no such" in done.stderr
    assert done.stderr.rstrip().endswith("; give it by --base-model")
    done = chat_of(bitctl, run, "--engine", "native", "--base-model", model)
    assert "it is a LoRA adapter on its base, which --engine native does not take" in done.stderr
    done = chat_of(bitctl, run, "--base-model", model, "--max-new-tokens", "12")
    assert done.returncode == 0, done.stderr
    prompt = [{"role": "user", "content": "x"}]
    assert done.stdout == greedy(model, prompt, 12, adapted) + "\n" != greedy(model, prompt, 12) + "\n"
    assert "⚠ it is a LoRA adapter on its base: transformers answers" in done.stderr
