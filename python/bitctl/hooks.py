"""Hooks into the frameworks that a script imports, each when, and only if, it does so.

Nothing of a framework is imported from here. What goes wrong is one line on stderr, and that framework stays as it is.
"""

import os
import sys

# What is hooked -> the module whose install(module) does it.
_HOOKS = {"transformers.trainer": "bitctl.transformers"}


def install():
    """In a supervised process, once."""
    if not os.environ.get("BITCTL_SOCKET") or any(type(finder).__name__ == "_HookFinder" for finder in sys.meta_path):
        return
    for name in _HOOKS:  # a .pth file may have imported it
        if name in sys.modules:
            _hook(sys.modules[name])
    sys.meta_path.insert(0, _HookFinder())


def _hook(module):
    from importlib import import_module

    try:
        import_module(_HOOKS[module.__name__]).install(module)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the script
        print("bitctl: %s is not hooked (%s: %s)" % (module.__name__, type(error).__name__, error), file=sys.stderr)


class _HookFinder:
    """Finds nothing itself: the loader that the others find is followed by the hook, once."""

    def __init__(self):
        self._looking_for = set()

    def find_spec(self, name, path=None, target=None):
        if name not in _HOOKS or name in self._looking_for:
            return None
        self._looking_for.add(name)
        try:
            specs = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
            spec = next((spec for spec in specs if spec is not None), None)
        finally:
            self._looking_for.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            _follow(spec.loader)
        return spec


def _follow(loader):
    """An attribute of this one loader, so that its class, the spec and inspect stay as they are."""
    execute = loader.exec_module

    def exec_module(module):
        del loader.exec_module
        execute(module)
        _hook(module)

    try:
        loader.exec_module = exec_module
    except AttributeError:
        print("bitctl: %s takes no hook" % type(loader).__name__, file=sys.stderr)
