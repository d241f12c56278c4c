"""The transformers engine: any causal language model that transformers knows, behind one socket.

`bitctl chat` runs `python -m bitctl.transformers_engine socket=3 config=4 weights=5 …` as a child process. All are
descriptors: config.json and the .safetensors files, of a LoRA adapter also adapter_config and adapter_weights (none,
where they are among the weights). They stay what they are whatever becomes of their names. One JSON line a request,
one a reply:

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
import re
import select
import signal
import socket
import sys


PEFT_PREFIX = "base_model.model."
ADAPTER_TENSOR = re.compile(r"\.(?:lora_[a-zA-Z_]+|modules_to_save)\.([^.]+)(?:\.|$)")


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


def read_json(fd):
    with open(fd, encoding="utf-8", closefd=False) as file:
        return json.load(file)


def read_config(fd):
    import transformers

    fields = read_json(fd)
    model_type = fields.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        known = f"transformers {transformers.__version__} does not know model_type {model_type!r}"
        hint = ", and code that comes with a model is never run" if "auto_map" in fields else ""
        raise EngineError(f"config.json: {known}{hint}")
    return transformers.AutoConfig.from_pretrained(f"/proc/self/fd/{fd}", local_files_only=True, trust_remote_code=False)


def refuse(what, wrong):
    """Raises, and names the first three, where anything is wrong."""
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise EngineError(f"{what}: {', '.join(wrong[:3])}{more}")


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
    wrong = [f"{name} is missing" for name in sorted(loaded["missing_keys"])]
    wrong += [f"{name} is {list(ours)}, not {list(its)}" for name, ours, its in sorted(loaded["mismatched_keys"])]
    refuse("the weights do not fit config.json", wrong)
    return model


def build_adapted(config, tensors, adapter_config, adapter_tensors):
    """The base model with the adapter in place, not merged into its weights. Without `adapter_tensors` they are among
    `tensors`, named as a PeftModel in training names them."""
    try:
        import peft
    except ImportError as error:
        raise EngineError(missing(error.name or "peft")) from None
    lora = peft.PeftConfig.from_peft_type(**{**adapter_config, "inference_mode": True})
    if lora.is_prompt_learning:
        raise EngineError(f"adapter_config.json: peft_type {adapter_config.get('peft_type')} is no LoRA")
    name = "default"
    if adapter_tensors is None:
        name, tensors, adapter_tensors = split_adapter(tensors)
        lora.init_lora_weights = True  # what other ways do to the base has been done to it
        adapted = peft.get_peft_model(build_model(config, tensors), lora, adapter_name=name)
        ours = {key for key in adapted.state_dict() if ADAPTER_TENSOR.search(key)}
        loaded = adapted.load_state_dict(adapter_tensors, strict=False)
        missing_keys = ours - set(adapter_tensors)
    else:
        adapted = peft.get_peft_model(build_model(config, tensors), lora, adapter_name=name)
        loaded = peft.set_peft_model_state_dict(adapted, adapter_tensors, adapter_name=name)
        missing_keys = {key for key in loaded.missing_keys if ADAPTER_TENSOR.search(key)}
    wrong = [f"{key} is missing" for key in sorted(missing_keys)]
    wrong += [f"{key} has no place" for key in sorted(loaded.unexpected_keys)]
    refuse("the adapter does not fit its base", wrong)
    return adapted.get_base_model()


def split_adapter(tensors):
    """The adapter's name, the base's tensors under the names of the base, and the adapter's."""
    names, base, adapter = set(), {}, {}
    for key, tensor in tensors.items():
        key = key.removeprefix(PEFT_PREFIX)
        of_adapter = ADAPTER_TENSOR.search(key)
        if of_adapter:
            names.add(of_adapter[1])
            adapter[PEFT_PREFIX + key] = tensor
        else:
            base[".".join(part for part in key.split(".") if part not in ("base_layer", "original_module"))] = tensor
    if len(names) != 1:
        raise EngineError(f"the weights hold {len(names)} adapters ({', '.join(sorted(names))}), not one")
    return names.pop(), base, adapter


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
    def __init__(self, files):
        """`files`: (name, descriptor) as the command line gives them."""
        self.files = files
        self.model = None

    def _named(self, name):
        return [fd for its, fd in self.files if its == name]

    def _tensors(self, name, mmap):
        tensors = {}
        for fd in self._named(name):
            tensors.update(read_tensors(fd, mmap))
        return tensors

    def op_load(self, request):
        import torch

        device = choose_device(torch, request["device"])
        [config] = map(read_config, self._named("config"))
        tensors = self._tensors("weights", request["mmap"])
        adapter_configs = list(map(read_json, self._named("adapter_config")))
        if adapter_configs:
            adapter_tensors = self._tensors("adapter_weights", request["mmap"]) or None
            model = build_adapted(config, tensors, adapter_configs[0], adapter_tensors)
        else:
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


def missing(package):
    return f"the Python package {package} is missing: {sys.executable} -m pip install {package}"


def missing_package():
    """What to do about a package that is not there; None where all are. Their imports take seconds."""
    for package in ("torch", "safetensors", "transformers"):
        try:
            __import__(package)
        except ImportError as error:
            return missing(error.name or package)
    return None


def main(argv):
    end_with_the_parent(0)
    # What goes to stderr is for last words.
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1")
    files = [(name, int(fd)) for name, fd in (argument.split("=") for argument in argv[1:])]
    with socket.socket(fileno=dict(files)["socket"]) as peer, peer.makefile("r", encoding="utf-8", newline="\n") as lines:

        def reply(answer, data=b""):
            peer.sendall(json.dumps(answer).encode() + b"\n" + data)

        fatal = missing_package()
        if fatal:
            reply({"fatal": fatal})
            return 1
        engine = Engine(files)
        for line in lines:
            reply(*engine.answer(json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
