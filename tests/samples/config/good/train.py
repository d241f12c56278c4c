"""Prints what reached it; the tests compare it with the config."""

import json
import os
import sys

print(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ)}))
