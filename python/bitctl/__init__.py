"""bitctl from inside a training script."""

import importlib

__all__ = ["pulse"]


def __getattr__(name):
    # On first use, so that `python -m bitctl.pulse` does not find itself imported before it runs.
    if name in __all__:
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
