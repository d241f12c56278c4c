"""What the workers of `bitctl chat` have in common: JSON lines on a socket, a request in, its replies out.

Each reply carries the request's `id`; {"more": true} says that another one to the same request follows. The process
ends when the other end of the socket is gone, and is killed with its parent.
"""

import ctypes
import json
import signal
import socket
import threading

PR_SET_PDEATHSIG = 1


def line_of(answer):
    """One line of JSON as RFC 8259 says; an answer that JSON cannot hold is an error."""
    try:
        text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except ValueError as error:  # NaN, or half of a surrogate pair
        reason = answer.get("error", f"no JSON can hold the answer: {error}")
        said = {"id": answer["id"], "error": reason.encode("utf-8", "backslashreplace").decode()}
        return json.dumps(said).encode() + b"\n"


def run(argv, serve):
    """serve(lines, reply) on the socket whose descriptor is argv[1]; the process's exit code. Any thread may reply."""
    # What computes or waits for ever reads no end of the socket.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=int(argv[1])) as peer, peer.makefile("r", encoding="utf-8", newline="\n") as lines:

        lock = threading.Lock()

        def reply(answer):
            line = line_of(answer)
            with lock:
                peer.sendall(line)

        try:
            return serve(lines, reply)
        except (BrokenPipeError, ConnectionResetError):
            return 0


def serve_job(lines, reply, job, failure):
    """Answers each request by job(request, part), which calls part(**fields) for what comes before the last reply;
    failure(error) is the line for what it raises."""
    for line in lines:
        request = json.loads(line)
        try:
            answer = job(request, lambda **fields: reply({"id": request["id"], "more": True, **fields}))
        except Exception as error:
            answer = failure(error)
        reply({"id": request["id"], **answer})
    return 0
