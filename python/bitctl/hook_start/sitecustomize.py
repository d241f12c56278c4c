"""Runs in every Python of a supervised run: this folder is on its PYTHONPATH. See bitctl/hooks.py."""

import os
import sys

try:
    import bitctl.hooks

    bitctl.hooks.install()
except Exception as error:  # noqa: BLE001 - the training goes on without
    print("bitctl: no hooks (%s: %s)" % (type(error).__name__, error), file=sys.stderr)

# The user's own, or the system's, runs as ever; where there is none, that is what Python's start-up finds.
folder = os.path.dirname(__file__)
sys.path[:] = [entry for entry in sys.path if entry != folder]
del sys.modules["sitecustomize"]
import sitecustomize  # noqa: E402, F401, PLW0406
