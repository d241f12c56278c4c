"""The stacks of all threads, written where the supervisor reads them.

A thread of ours answers when it is asked, holding the interpreter's lock as any Python code does. Where C code sits on that
lock it gets no turn; then the supervisor, about to kill the process, sends the signal that faulthandler answers. That walks
the frames of running threads, which may crash: it is never sent to a process that is to live.
"""

import faulthandler
import os
import signal
import sys
import threading


def _text():
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident == own:
            continue
        lines.append("Thread %s (most recent call first):" % names.get(ident, ident))
        while frame is not None:
            code = frame.f_code
            lines.append('  File "%s", line %s in %s' % (code.co_filename, frame.f_lineno, code.co_name))
            frame = frame.f_back
    return "\n".join(lines) + "\n"


def _answer(memory, request):
    while len(os.read(request, 8)) == 8:
        os.write(memory, _text().encode(errors="replace"))


def answer(signum, memory, request):
    """Answers from now on; False where no signal can be, since this is not the main thread."""
    threading.Thread(target=_answer, args=(memory, request), name="bitctl-stacks", daemon=True).start()
    if threading.current_thread() is not threading.main_thread():
        return
    # At its end the interpreter takes faulthandler's handler back, to what was there before: not to death.
    signal.signal(signum, signal.SIG_IGN)
    faulthandler.register(signum, file=memory, all_threads=True, chain=False)
