"""Runs one line of Python in which the kernel answers a system call with an errno, by a seccomp filter.

    python seccomp_once.py SYSCALL_NUMBER ERRNO "code"

Exit code 77 where this kernel doesn't let a process filter itself.
"""

import ctypes
import struct
import sys

LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2


def forbid(number: int, answer: int) -> bool:
    """Install the filter: load the call's number, and answer where it is the one."""
    rows = [
        (LOAD, 0, 0, 0),
        (JUMP_EQUAL, 0, 1, number),
        (RETURN, 0, 0, ERRNO | answer),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.prctl(SET_SECCOMP, FILTER, program, 0, 0) == 0


if __name__ == "__main__":
    if not forbid(int(sys.argv[1]), int(sys.argv[2])):
        sys.exit(77)
    exec(sys.argv[3])
