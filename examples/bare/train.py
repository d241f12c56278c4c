"""A script without any bitctl line: supervised by its exit alone."""

import sys
import time

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5
end = time.monotonic() + seconds
while time.monotonic() < end:
    print("working", flush=True)
    time.sleep(min(1.0, max(0.0, end - time.monotonic())))
print("finished")
