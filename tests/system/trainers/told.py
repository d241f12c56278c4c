"""Reports a step every 20 ms until a file tells it how to end: told.py FILE

FILE holds an exit code, or a line of Python that raises.
"""

import os
import sys
import time

import bitctl

run = bitctl.init()
step = run.restore()
while not os.path.exists(sys.argv[1]):
    step += 1
    run.progress(step=step, total_steps=10**6, loss=1 / step)
    run.checkpoint(step)
    time.sleep(0.02)
word = open(sys.argv[1]).read().strip()
if word.isdigit():
    sys.exit(int(word))
exec(word)
