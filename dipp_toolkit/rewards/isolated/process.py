"""One worker process, from its start to its end; it ends by itself when this process does, in whatever way.

Messages travel on a socket of their own, so whatever a reward or its libraries print cannot come between them. What
they print is read here and its end is kept: a process that dies is quoted. Its death is waited for beside the socket,
which a process that it has forked may hold open, and with it ends the whole process group.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO

from ...errors import RequestError
from ..remote.wire import ProtocolError, one_line
from .frames import receive_frame, send_frame
from .shared_room import SharedRoom

LINES, LINE = 8, 300
"""Lines of a dead worker's output that are quoted, and characters of each."""
PATIENCE = 5.0
"""Seconds that a process may take to end by itself."""


class WorkerGone(Exception):  # noqa: N818 -- the caller decides whether it is an error
    """The worker has died; the words are its last."""


class WorkerProcess:
    """A child process that answers one message at a time.

    Args:
        command: program and arguments; the number of the socket's descriptor is appended, and that of the shared room's
            where the system has one.
        folder: its working folder.

    Raises:
        RequestError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], folder: Path):
        ours, theirs = socket.socketpair()
        self.room = SharedRoom.made()
        descriptors = [theirs.fileno()] + ([] if self.room is None else [self.room.descriptor])
        # A PYTHONPATH of ours would come before the environment's own packages.
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            self.process = subprocess.Popen(
                [*command, *map(str, descriptors)],
                cwd=folder,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for us: we may want a last score before we stop
            )
        except OSError as error:
            ours.close()
            if self.room is not None:
                self.room.close()
            raise RequestError(f"Cannot start {command[0]}: {error.strerror or error}.") from error
        finally:
            theirs.close()
        self.connection = ours
        self.output: deque[str] = deque(maxlen=LINES)
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=_keep_lines, args=(self.process.stdout, self.output), daemon=True)
        self._reader.start()
        watcher = threading.Thread(target=_watch, args=(self.process, ours), daemon=True)
        watcher.start()
        self._end = weakref.finalize(self, _end, self.process, ours, watcher, self.room)

    def exchange(self, data: bytes, limit: int, timeout: float) -> bytes:
        """Send a message and wait for the answer. After anything is raised, the process has ended.

        Args:
            data: the message.
            limit: bytes that the answer may have.
            timeout: seconds for everything.

        Raises:
            WorkerGone: the process died.
            ProtocolError: the answer is too long.
            TimeoutError: there was none in time.
        """
        deadline = monotonic() + timeout
        answer = None
        try:
            send_frame(self.connection, data, deadline)
            answer = receive_frame(self.connection, limit, deadline)
        except (TimeoutError, ProtocolError):
            _kill_group(self.process)
            raise
        except OSError:
            pass
        finally:
            if answer is None:  # after Ctrl-C too: an answer that nobody has read must not be taken for the next one
                self.close()
        if answer is None:
            raise WorkerGone(self.last_words())
        return answer

    def last_words(self) -> str:
        """How the process ended and its last output; no full stop."""
        code = self.process.wait()
        if code < 0:
            how = f"was ended by signal {-code}, {signal.strsignal(-code)}"
            how += " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}"
        self._reader.join(1.0)  # a process that left the group may hold the pipe open
        words = " | ".join(self.output)
        return f"it {how}; its last words: {words}" if words else f"it {how} and said nothing"

    def close(self) -> None:
        """End the process and its group: by closing the socket, then by a signal."""
        self._end()


def _keep_lines(stream: IO[bytes], lines: deque[str]) -> None:
    """Read to the end, keeping the last lines that say something; a line without an end is cut into pieces."""
    with stream:
        while piece := stream.readline(2**16):
            text = one_line(piece.decode("utf-8", "replace"), LINE)
            if text:
                lines.append(text)


def _watch(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    """Wait for the process's death; end what is left of its group, and whoever waits for its answer."""
    process.wait()
    _kill_group(process)
    with suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)  # what it answered before can still be read


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the latter
        os.killpg(process.pid, signal.SIGKILL)


def _end(
    process: subprocess.Popen[bytes], connection: socket.socket, watcher: threading.Thread, room: SharedRoom | None
) -> None:
    if room is not None:
        room.close()
    with suppress(OSError):  # the other side is gone
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    if watcher is threading.current_thread():  # a collection of garbage may happen in any
        return
    watcher.join(PATIENCE)
    if watcher.is_alive():
        _kill_group(process)
        watcher.join(PATIENCE)
