"""The listening sockets: one per worker, all on one port, held open by the supervisor.

With SO_REUSEPORT the kernel spreads new connections over the sockets. A socket outlives the workers that accept on
it, so that what waits in its backlog is never refused while one worker follows another.
"""

import socket
from collections.abc import Iterable
from typing import Final

BACKLOG: Final = 1024


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on one port; port 0 takes a free one.

    Raises OSError when the address is taken, also by a server that would share it, and when it is none.
    """
    # One address is listened on: IPv4 where a name has both, as `localhost` does.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_PASSIVE)
    host, port = str(found[0][4][0]), int(found[0][4][1])
    # SO_REUSEPORT would let a second server of the same user in silently, and half of the requests would be its.
    with _bound(family, host, port, shared=False) as probe:
        port = int(probe.getsockname()[1])
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(_bound(family, host, port, shared=True))
            sockets[-1].listen(BACKLOG)
    except OSError:
        close(sockets)
        raise
    return sockets


def close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _bound(family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
