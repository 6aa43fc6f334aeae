"""Free TCP ports of this machine."""

import socket
from contextlib import ExitStack

LOCALHOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nobody listened on a moment ago.

    Somebody else may take one before its server binds it. Whoever uses these has to look out for
    a server that dies of an address in use, and come back for another port.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOCALHOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def local_url(port: int) -> str:
    """Return the base URL of a server on this machine."""
    return f"http://{LOCALHOST}:{port}"
