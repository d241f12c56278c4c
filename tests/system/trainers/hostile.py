"""Trainers that behave badly. hostile.py KIND: what it does is said beside each."""

import os
import signal
import subprocess
import sys
import time

KIND = sys.argv[1]


def helper(*flags):
    """A child that outlives whoever started it."""
    code = "import signal,time,sys\nif 'deaf' in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code, *flags], start_new_session="session" in flags)


if KIND.startswith("exit"):  # exit42: ends with that code
    sys.exit(int(KIND[4:]))
elif KIND.startswith("signal"):  # signal11: kills itself by it
    os.kill(os.getpid(), int(KIND[6:]))
elif KIND == "raise":
    import bitctl

    bitctl.init().progress(step=3, total_steps=10, loss=1.0)
    raise ValueError("the loss function is missing")
elif KIND == "memory":
    import bitctl

    run = bitctl.init()
    run.progress(step=3, total_steps=10, epoch=0.5, total_epochs=2, loss=0.75)
    raise MemoryError("out of memory")
elif KIND == "leaves":  # ends well, and leaves a helper behind
    helper("session")
elif KIND == "deaf":  # ignores SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(600)
elif KIND == "nan":
    import bitctl

    run = bitctl.init()
    for step in range(1, 200):
        run.progress(step=step, total_steps=200, loss=1.5 if step < 5 else float("nan"))
        time.sleep(0.02)
elif KIND == "starts_over":  # restores, and begins at step 1 all the same
    import torch

    import bitctl

    model = torch.nn.Linear(2, 2)
    run = bitctl.init()
    run.restore(model=model)
    for step in range(1, 1000):
        run.progress(step=step, total_steps=1000, loss=1.0)
        run.checkpoint(step, force=step % 5 == 0)
        time.sleep(0.02)
elif KIND == "pulse":  # knows bitctl.pulse and nothing else
    from bitctl import pulse

    path = os.environ["BITCTL_PULSE"]
    for epoch in (1, 2, 3):
        pulse.write_running_status(path, epoch, 3, 1.0 / epoch, "epoch %d/3" % epoch)
        time.sleep(1.2)
    pulse.write_done_status(path, 3, 3, 0.25, "Training completed successfully")
elif KIND == "own_pulse":  # a PULSE file of its own, in its working folder
    from bitctl import pulse

    for epoch in (1, 2, 3):
        pulse.write_running_status("own_status.json", epoch, 3, 1.0 / epoch, "epoch %d/3" % epoch)
        time.sleep(1.2)
    pulse.write_done_status("own_status.json", 3, 3, 0.25, "Training completed successfully")
elif KIND == "chatty":  # a lot of output, binary and without a newline
    for _ in range(2000):
        os.write(1, b"\x00\x1b]0;title\x07\xff" * 4096)
    print("\nfinished", flush=True)
elif KIND == "fds":  # says which descriptors it was born with
    print("fds", sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)), flush=True)
    print("stdin", os.readlink("/proc/self/fd/0"), flush=True)
    print("session", os.getsid(0) == os.getpid(), "mask", open("/proc/self/status").read().split("SigBlk:")[1].split()[0], flush=True)
else:
    sys.exit("unknown kind " + KIND)
