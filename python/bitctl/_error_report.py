"""What a script died of, as the supervisor is told."""

import hashlib
import os
import sysconfig
import traceback


def innermost_of_the_user(frames):
    """The innermost frame outside the interpreter's libraries, installed packages and this one; else the innermost."""
    libraries = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    libraries.add(os.path.dirname(os.path.realpath(__file__)))

    def is_of_the_user(frame):
        path = os.path.realpath(frame.filename)
        installed = {"site-packages", "dist-packages"}.intersection(path.split(os.sep))
        return not (
            frame.filename.startswith("<") or installed or any(path.startswith(library + os.sep) for library in libraries)
        )

    return next(filter(is_of_the_user, reversed(frames)), frames[-1] if frames else None)


def error_message(kind, error, trace):
    """The message `error`: one with the same hash has the same type and came the same way."""
    frames = traceback.extract_tb(trace)
    digest = hashlib.sha256(kind.__name__.encode())
    for frame in frames:
        digest.update(("%s:%s:%s\n" % (frame.filename, frame.lineno, frame.name)).encode())
    last = innermost_of_the_user(frames)
    text = "".join(traceback.format_exception_only(kind, error)).strip().splitlines()
    return {
        "type": "error", "exception": text[-1][:500] if text else kind.__name__, "exception_type": kind.__name__,
        "traceback_hash": digest.hexdigest()[:16],
        "frame": "%s:%d in %s" % (last.filename, last.lineno, last.name) if last else "",
    }  # fmt: skip
