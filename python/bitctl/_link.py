"""The trainer's end of the socket: whole JSON messages, descriptors beside them, never a wait on the hot path."""

import array
import json
import select
import socket

MAX_BYTES = 65536
MAX_FDS = 16


class Closed(OSError):
    """The supervisor is gone."""


class Link:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._kept = []  # messages that arrived while another was waited for

    def send(self, message, fds=()):
        """Sends without waiting; False where the supervisor does not read at the moment."""
        data = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
        if len(data) > MAX_BYTES:
            raise ValueError("a message of %d bytes is longer than %d" % (len(data), MAX_BYTES))
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            return True
        except BlockingIOError:
            return False

    def send_patiently(self, message, fds=()):
        """For the few messages that must not be lost."""
        while not self.send(message, fds):
            select.select([], [self._socket], [], 1.0)

    def poll(self):
        """The messages that are there, as (message, fds); never waits."""
        kept, self._kept = self._kept, []
        while True:
            received = self._receive()
            if received is None:
                return kept
            kept.append(received)

    def wait_for(self, types):
        """The next message of one of these types, however long it takes; others are kept for poll()."""
        for i, (message, fds) in enumerate(self._kept):
            if message.get("type") in types:
                del self._kept[i]
                return message, fds
        while True:
            select.select([self._socket], [], [])
            received = self._receive()
            if received is None:
                continue
            if received[0].get("type") in types:
                return received
            self._kept.append(received)

    def _receive(self):
        fds = array.array("i")
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(MAX_BYTES, socket.CMSG_SPACE(MAX_FDS * fds.itemsize), flags)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise Closed("the supervisor is gone") from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data:
            raise Closed("the supervisor is gone")
        message = json.loads(data)
        return (message if isinstance(message, dict) else {}), list(fds)

    def close(self):
        self._socket.close()
