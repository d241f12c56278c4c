"""bitctl inside a training script: progress, snapshots, resume. Standard library only; torch where the script has it."""

_HOMES = {"Run": "run", "Shuffle": "data", "init": "run", "pulse": None}
__all__ = sorted(_HOMES)


def __getattr__(name):
    # On first use, so that `python -m bitctl.pulse` does not find itself imported before it runs.
    if name not in _HOMES:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    import importlib  # here, because every Python of a run imports this package

    module = importlib.import_module("." + (_HOMES[name] or name), __name__)
    return getattr(module, name) if _HOMES[name] else module
