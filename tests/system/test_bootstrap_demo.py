"""The bootstrap demo runs as it is, on a real decoder; and its tiny model is one that transformers loads."""

import subprocess
import sys

import pytest
from byte_model import ROOT

DEMO = ROOT / "examples" / "bootstrap-demo"
ENGINE = ROOT / "build" / "libbitctl_engine.so"


@pytest.mark.skipif(not ENGINE.exists(), reason="built without the engine")
def test_the_demo_sees_every_state():
    done = subprocess.run([sys.executable, str(DEMO / "demo.py")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The demo saw every state it wanted to see." in done.stdout


def test_the_demo_fails_where_a_state_does_not_come(tmp_path):
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\necho '> '; echo '⏳ Loading...'\n")
    mute.chmod(0o755)
    done = subprocess.run([sys.executable, str(DEMO / "demo.py"), str(mute)], capture_output=True, text=True, timeout=600)
    assert done.returncode != 0


def test_the_tiny_model_is_a_model(tmp_path):
    subprocess.run([sys.executable, str(DEMO / "make_model.py"), str(tmp_path)], check=True)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True,
                                        return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]


@pytest.mark.skipif(not ENGINE.exists(), reason="built without the engine")
def test_a_greedy_answer_is_the_one_of_transformers(tmp_path):
    subprocess.run([sys.executable, str(DEMO / "make_model.py"), str(tmp_path)], check=True)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    for prompt in ("hi", "日本語 and 👍", "a<b>\n\tc"):
        ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                            return_tensors="pt")
        said = model.generate(**ids, max_new_tokens=40, do_sample=False)[0, ids["input_ids"].shape[1]:]
        done = subprocess.run([str(ROOT / "build" / "bitctl"), "chat", str(tmp_path), "-p", prompt, "--max-new-tokens", "40"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=True)
        assert done.stdout.removesuffix("\n") == tokenizer.decode(said, skip_special_tokens=True).removesuffix("\n")
