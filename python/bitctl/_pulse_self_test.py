"""`python -m bitctl.pulse --self-test`: the PULSE writer, tried out on this machine."""

import argparse
import os
import tempfile

from bitctl import pulse


def checks(path):
    """Writes each kind of status and reads it back: what was checked, and whether it held."""

    def written(write, *arguments):
        write(path, *arguments)
        return pulse.read(path)

    idle = written(pulse.write_idle_status)
    running = written(pulse.write_running_status, 1.5, 3, 0.342, "epoch 2/3, step 150/800")
    failed = written(pulse.write_error_status, "CUDA out of memory")
    done = written(pulse.write_done_status, 3.0, 3.0, 0.127, "Training completed successfully")
    types = [type(value) for value in done.values()]
    return {
        "idle": (idle["status"], idle["message"]) == ("idle", "Waiting to start..."),
        "running": (running["status"], running["epoch"], running["loss"]) == ("running", 1.5, 0.342),
        "error keeps epoch and loss": (failed["status"], failed["epoch"], failed["loss"]) == ("error", 1.5, 0.342),
        "done": (done["status"], done["epoch"], done["loss"]) == ("done", 3.0, 0.127),
        "six keys and their types": list(done) == list(pulse.FIELDS) and types == [str, float, float, float, str, int],
        "safe read": pulse.safe_read_json(path) == done and pulse.safe_read_json(path + ".missing") is None,
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m bitctl.pulse", description="Tries out the PULSE writer.")
    parser.add_argument("--self-test", action="store_true", required=True)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = checks(os.path.join(folder, "training_status.json"))
    for name, passed in results.items():
        print(f"{'ok' if passed else 'FAILED'}: {name}")
    print(f"{sum(results.values())}/{len(results)} checks passed")
    return 0 if all(results.values()) else 1
