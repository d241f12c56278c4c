"""config.json, tokenizer files and whatever else belongs beside a model: written once, linked into every checkpoint."""

import hashlib
import json
import os
import shutil
import tempfile

from .snapshot import unwrap


def write(checkpoints, model, tokenizer=None, extra=None):
    """Writes the files to <checkpoints>/.side/<hash>/ unless they lie there already; the hash, "" where there are none.

    `extra`: name -> path of a file to copy. OSError where the disk refuses.
    """
    root = os.path.join(checkpoints, ".side")
    os.makedirs(root, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=".tmp-", dir=root)
    try:
        _fill(folder, unwrap(model) if model is not None else None, tokenizer, extra or {})
        names = sorted(os.listdir(folder))
        if not names:
            return ""
        digest = hashlib.sha256()
        for name in names:
            path = os.path.join(folder, name)
            os.chmod(path, 0o666 & ~_umask())
            with open(path, "rb") as file:
                content = file.read()
                digest.update(b"%d %s %d\n" % (len(name.encode()), name.encode(), len(content)))
                digest.update(content)
                os.fsync(file.fileno())
        target = os.path.join(root, digest.hexdigest()[:32])
        _sync_folder(folder)
        if not os.path.isdir(target):
            os.chmod(folder, 0o777 & ~_umask())
            os.rename(folder, target)
            _sync_folder(root)
        return os.path.basename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder, model, tokenizer, extra):
    adapters = getattr(model, "peft_config", None)
    if isinstance(adapters, dict) and adapters:  # the weights hold both, and the rest is about the base
        next(iter(adapters.values())).save_pretrained(folder)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
    for part in ("config", "generation_config"):
        config = getattr(model, part, None)
        if config is not None and hasattr(config, "save_pretrained"):
            config.save_pretrained(folder)
    _complete_config(os.path.join(folder, "config.json"), model)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    for name, path in extra.items():
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError("side file %r is no plain file name" % name)
        shutil.copyfile(path, os.path.join(folder, name))
    for name in os.listdir(folder):
        if not os.path.isfile(os.path.join(folder, name)):
            raise ValueError("side files must be plain files; %r is not" % name)


def _complete_config(path, model):
    """What model.save_pretrained would have added: the class and the dtype."""
    if not os.path.isfile(path) or not hasattr(model, "parameters"):
        return
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(next(model.parameters()).dtype).replace("torch.", "")
    config.pop("torch_dtype", None)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2, sort_keys=True, ensure_ascii=False)
        file.write("\n")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
