"""Other programs with the weights of scripts/bench/chat/decode, each in a process of its own.

    peers.py llama.cpp FILE.gguf THREADS       with llama-cpp-python, in its own environment: build/bench/llama-venv
    peers.py transformers FOLDER THREADS       in bf16

A line {"context": N, "prompt": N, "new": N} in, {"prefill_s": …, "decode_s": …} out: the prompt behind so many
positions, then so many tokens, one by one; what they are is not looked at.
"""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
LLAMA_PYTHON = ROOT / "build" / "bench" / "llama-venv" / "bin" / "python"
PYTHON = ROOT / ".venv" / "bin" / "python"
POSITIONS = 2048  # as many as any of them is asked for


def install_llama_cpp():
    """From PyPI, built here: some 20 minutes."""
    if not LLAMA_PYTHON.exists():
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", LLAMA_PYTHON.parents[1]], check=True)
    if subprocess.run([LLAMA_PYTHON, "-c", "import llama_cpp"], capture_output=True).returncode != 0:
        pip = [PYTHON, "-m", "pip", "--python", LLAMA_PYTHON, "install"]
        subprocess.run([*pip, "llama-cpp-python==0.3.36", "numpy"], check=True)


def write_gguf(path, sizes, dtype, tensors, pattern):
    """The tensors that tensors_of() names: matrices in bf16, or in blocks of 32 integers and a scale (q8_0) for int8."""
    import gguf
    import numpy

    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(POSITIONS)
    writer.add_vocab_size(sizes["vocab_size"])
    writer.add_embedding_length(sizes["hidden_size"])
    writer.add_feed_forward_length(sizes["intermediate_size"])
    writer.add_block_count(sizes["num_hidden_layers"])
    writer.add_head_count(sizes["num_attention_heads"])
    writer.add_head_count_kv(sizes["num_key_value_heads"])
    writer.add_rope_dimension_count(sizes["head_dim"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("no_vocab")
    bf16, integers = (numpy.frombuffer(pattern(type_), numpy.uint8) for type_ in ("BF16", "I8"))
    scale = numpy.frombuffer(numpy.float16(1e-4).tobytes(), numpy.uint8)
    blocks = numpy.hstack([numpy.tile(scale, (2048, 1)), integers.reshape(2048, 32)]).reshape(-1)
    kinds = {"BF16": (bf16, 2, gguf.GGMLQuantizationType.BF16), "I8": (blocks, 34 / 32, gguf.GGMLQuantizationType.Q8_0)}
    for name, type_, shape in tensors:
        if name.endswith("_scale"):
            continue
        if name in whole:
            to = whole[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            to = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
        if len(shape) == 1:
            writer.add_tensor(to, numpy.ones(shape, numpy.float32))
            continue
        repeated, width, kind = kinds[type_]
        row_bytes = int(shape[1] * width)
        writer.add_tensor(to, numpy.resize(repeated, (shape[0], row_bytes)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    def __init__(self, kind, model, threads):
        python = LLAMA_PYTHON if kind == "llama.cpp" else PYTHON
        command = [python, __file__, kind, model, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        assert self.process.stdout.readline() == "ready\n", f"{kind} does not load {model}"

    def ask(self, context, prompt, new):
        print(json.dumps({"context": context, "prompt": prompt, "new": new}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class LlamaCpp:
    def __init__(self, file, threads):
        import llama_cpp

        self.api = llama_cpp
        model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = POSITIONS, POSITIONS, 512
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, options)

    def keep(self, positions):
        self.api.llama_memory_seq_rm(self.api.llama_get_memory(self.context), 0, positions, -1)

    def run(self, count):
        ids = (self.api.llama_token * count)(*[1] * count)
        assert self.api.llama_decode(self.context, self.api.llama_batch_get_one(ids, count)) == 0
        self.api.llama_synchronize(self.context)


class Transformers:
    def __init__(self, folder, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.cache = transformers.DynamicCache(config=self.model.config)

    def keep(self, positions):
        self.cache.crop(positions)

    def run(self, count):
        with self.torch.inference_mode():
            self.model(self.torch.ones(1, count, dtype=self.torch.long), past_key_values=self.cache, logits_to_keep=1)


def main():
    kind, model, threads = sys.argv[1:]
    peer = {"llama.cpp": LlamaCpp, "transformers": Transformers}[kind](model, int(threads))
    there = 0

    def run(context, count):
        nonlocal there
        if there > context:
            peer.keep(context)
        elif there < context:
            peer.run(context - there)
        peer.run(count)
        there = context + count

    run(0, 1)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if there < asked["context"]:
            run(there, asked["context"] - there)
        begun = time.monotonic()
        run(asked["context"], asked["prompt"])
        prefilled = time.monotonic()
        for at in range(asked["new"]):
            run(asked["context"] + asked["prompt"] + at, 1)
        print(json.dumps({"prefill_s": prefilled - begun, "decode_s": time.monotonic() - prefilled}), flush=True)


if __name__ == "__main__":
    main()
