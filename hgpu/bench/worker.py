"""A worker process: takes a part of a load on stdin, waits for its start, and hands back what came of it.

It reads a pickled job, writes `ready`, reads the moment of `time.monotonic` (which all processes of a
machine share) at which to start, and writes progress and outcomes. Where stdin closes its parent is gone:
it ends at once.
"""

import os
import pickle
import struct
import sys
import threading
from typing import Any, BinaryIO

from hgpu.bench.play import Job, play

_SIZE = struct.Struct("!Q")


def packed(message: Any) -> bytes:
    """Return a message as it travels: its length, and a pickle between processes of one program."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _SIZE.pack(len(body)) + body


def size_of(head: bytes) -> int:
    """Return how long the message behind a head is."""
    return int(_SIZE.unpack(head)[0])


HEAD_BYTES = _SIZE.size


def _read(stream: BinaryIO) -> Any:
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        os._exit(1)
    return pickle.loads(stream.read(size_of(head)))


def _end_with_parent(stream: BinaryIO) -> None:
    stream.read()
    os._exit(1)


def main() -> None:
    """Do one part of a load."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not print into the messages

    def say(kind: str, value: Any) -> None:
        out.write(packed((kind, value)))
        out.flush()

    job: Job = _read(sys.stdin.buffer)
    say("ready", os.getpid())
    started_s: float = _read(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, args=(sys.stdin.buffer,), daemon=True).start()
    say("outcomes", play(job, started_s, lambda done: say("done", done)))
    out.close()
    os._exit(0)  # the thread still reads


if __name__ == "__main__":
    main()
