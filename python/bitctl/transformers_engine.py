"""The transformers engine: any causal language model that transformers knows, behind one socket.

`bitctl chat` runs `python -m bitctl.transformers_engine FD CONFIG WEIGHTS…` as a child process. All are descriptors:
the socket, config.json and the .safetensors files, which stay what they are whatever becomes of their names. One JSON
line a request, one a reply:

    {"op": "load", "mmap": true, "device": "auto", "max_context": 0}
        -> {"vocab_size": 320, "max_context": 2048, "device": "cpu", "dtype": "bfloat16"}
    {"op": "forward", "ids": […], "position": 7}
        -> {"bytes": 1280} and right behind that line the logits after the last id, as float32

A request that cannot be answered gets {"error": "one line"}; an engine that cannot work at all says {"fatal": "one
line"} and ends. No code of a model's folder is ever run, and nothing is read but the given files.
"""

import fcntl
import json
import os
import select
import signal
import socket
import sys


class EngineError(Exception):
    """What the user is to read: one line."""


def one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def end_with_the_parent(fd):
    """`fd` is a pipe that is never written to: the end of its writer ends this process, whatever it computes.

    PR_SET_PDEATHSIG would not do: it goes by the thread that started us, and that one ends when the model is loaded.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    hung_up = select.poll()
    hung_up.register(fd, 0)
    if hung_up.poll(0):  # before we asked to be told
        sys.exit(1)


def choose_device(torch, name):
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # RuntimeError, AssertionError: a build without CUDA, no such number, no such word
        raise EngineError(f"--device {name}: {one_line(error)}") from None
    return device


def read_tensors(fd, mmap):
    import safetensors.torch

    if mmap:
        return safetensors.torch.load_file(f"/proc/self/fd/{fd}")
    with open(fd, "rb", closefd=False) as file:
        return safetensors.torch.load(file.read())


def read_config(fd):
    import transformers

    with open(fd, encoding="utf-8", closefd=False) as file:
        fields = json.load(file)
    model_type = fields.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        known = f"transformers {transformers.__version__} does not know model_type {model_type!r}"
        hint = ", and code that comes with a model is never run" if "auto_map" in fields else ""
        raise EngineError(f"config.json: {known}{hint}")
    return transformers.AutoConfig.from_pretrained(f"/proc/self/fd/{fd}", local_files_only=True, trust_remote_code=False)


def build_model(config, tensors):
    """The model that AutoModelForCausalLM.from_pretrained makes, from tensors instead of a folder."""
    import transformers

    try:
        model_class = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        raise EngineError(f"config.json: {config.model_type} is no causal language model") from None
    if isinstance(model_class, (list, tuple)):
        model_class = next((c for c in model_class if c.__name__ in (config.architectures or [])), model_class[0])
    if model_class.config_class is not type(config):
        config = config.get_text_config()
    model, loaded = model_class.from_pretrained(
        None, config=config, state_dict=tensors, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
    )
    # transformers has filled these with random numbers.
    wrong = [f"{name} is missing" for name in loaded["missing_keys"]]
    wrong += [f"{name} is {list(ours)}, not {list(its)}" for name, ours, its in loaded["mismatched_keys"]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise EngineError(f"the weights do not fit config.json: {', '.join(sorted(wrong)[:3])}{more}")
    return model


class Model:
    """Logits of one conversation, whose keys and values stay cached."""

    def __init__(self, model, device, max_context):
        import inspect

        self.model = model.eval().to(device)
        self.device = device
        config = model.config.get_text_config()
        limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len", "seq_length"))
        limit = next((n for n in limits if isinstance(n, int) and n > 0), 1 << 20)  # ALiBi, states: none of its own
        if max_context > limit:
            raise EngineError(f"max_context {max_context} is not within the model's {limit}")
        self.max_context = max_context or limit
        takes = inspect.signature(model.forward).parameters
        self.only_last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self.cache_name = "cache_params" if "cache_params" in takes else "past_key_values"  # Mamba's name for it
        self.ids = []  # of the positions that the cache holds
        self.cache = None
        self.vocab_size = self.forward([0], 0).numel()  # what cannot be computed is to fail now

    def forward(self, ids, position):
        if position > len(self.ids):
            raise EngineError(f"position {position} leaves a gap: the cache holds {len(self.ids)} positions")
        if position + len(ids) > self.max_context:
            raise EngineError(f"the context is full: {len(ids)} tokens at position {position} of {self.max_context}")
        everything = self.ids[:position] + ids
        try:
            if not self._cut(len(self.ids), position, len(ids)):
                self.cache, position = None, 0
            logits = self._run(everything[position:])
        except Exception:  # what the cache holds now is not known
            self.ids, self.cache = [], None
            raise
        self.ids = everything
        return logits

    def _cut(self, cached, position, count):
        """Whether the cache now holds `position` positions and can take `count` more behind them."""
        layers = getattr(self.cache, "layers", None)
        if not layers:
            return False
        if position == cached and count == 1:
            return True
        # Others (recurrent states) start anew when they are given several tokens at once, or cannot go back.
        kinds = {type(layer).__name__ for layer in layers}
        if not kinds <= {"DynamicLayer", "DynamicSlidingWindowLayer"}:
            return False
        if position == cached:
            return True
        if any(getattr(layer, "sliding_window", cached + 1) <= cached for layer in layers):
            return False
        self.cache.crop(position - cached)
        return True

    def _run(self, ids):
        import torch

        with torch.inference_mode():
            output = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                use_cache=True,
                **{self.cache_name: self.cache},
                **self.only_last,
            )
            self.cache = getattr(output, self.cache_name, None)
            return output.logits[0, -1].float().cpu().contiguous()


class Engine:
    def __init__(self, config, weights):
        self.config = config
        self.weights = weights
        self.model = None

    def op_load(self, request):
        import torch

        device = choose_device(torch, request["device"])
        config = read_config(self.config)
        tensors = {}
        for fd in self.weights:
            tensors.update(read_tensors(fd, request["mmap"]))
        model = build_model(config, tensors)
        self.model = Model(model, device, request["max_context"])
        dtype = str(model.dtype).removeprefix("torch.")
        return {
            "vocab_size": self.model.vocab_size,
            "max_context": self.model.max_context,
            "device": str(device),
            "dtype": dtype,
        }, b""

    def op_forward(self, request):
        logits = self.model.forward(request["ids"], request["position"])
        data = logits.numpy().tobytes()
        return {"bytes": len(data)}, data

    def answer(self, request):
        try:
            return getattr(self, "op_" + request["op"])(request)
        except EngineError as error:
            return {"error": str(error)}, b""
        except Exception as error:  # the library's, torch's: out of memory, a model that it cannot build
            return {"error": f"{type(error).__name__}: {one_line(error)}"}, b""


def missing_package():
    """What to do about a package that is not there; None where all are. Their imports take seconds."""
    for package in ("torch", "safetensors", "transformers"):
        try:
            __import__(package)
        except ImportError as error:
            name = error.name or package
            return f"the Python package {name} is missing: {sys.executable} -m pip install {name}"
    return None


def main(argv):
    end_with_the_parent(0)
    # What goes to stderr is for last words.
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1")
    with socket.socket(fileno=int(argv[1])) as peer, peer.makefile("r", encoding="utf-8", newline="\n") as lines:

        def reply(answer, data=b""):
            peer.sendall(json.dumps(answer).encode() + b"\n" + data)

        fatal = missing_package()
        if fatal:
            reply({"fatal": fatal})
            return 1
        engine = Engine(int(argv[2]), [int(fd) for fd in argv[3:]])
        for line in lines:
            reply(*engine.answer(json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
