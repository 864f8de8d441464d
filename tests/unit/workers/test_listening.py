"""Sockets on one port."""

import socket

import pytest

from qwen_proxy.workers.listening import close, listen


def addresses(sockets: list[socket.socket]) -> list[tuple[str, int]]:
    return [each.getsockname()[:2] for each in sockets]


@pytest.mark.parametrize(("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1")])
def test_all_listen_on_the_port_the_first_one_got(host: str, bound: str) -> None:
    sockets = listen(host, 0, 3)
    found = addresses(sockets)
    assert len(found) == 3
    assert set(found) == {(bound, found[0][1])}
    with socket.create_connection(found[0], timeout=2):
        close(sockets)


def test_a_port_shared_by_others_counts_as_taken() -> None:
    sockets = listen("127.0.0.1", 0, 2)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", addresses(sockets)[0][1], 2)
    close(sockets)


def test_a_port_is_free_again_at_once() -> None:
    sockets = listen("127.0.0.1", 0, 1)
    port = addresses(sockets)[0][1]
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        accepted, _ = sockets[0].accept()
        accepted.close()
        close(sockets)
    close(listen("127.0.0.1", port, 1))


def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        listen("no.such.host.invalid", 0, 1)
