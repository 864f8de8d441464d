import ipaddress

import pytest

from qwen_proxy.serving.origins import block_of, client_address, is_known_host, is_same_origin

PROXIES = tuple(ipaddress.ip_network(each) for each in ("127.0.0.1", "10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),  # nobody that is trusted says so
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.1, 10.0.0.7"], "198.51.100.1"),  # two of ours; the first is invented
        ("127.0.0.1", ["1.1.1.1", "198.51.100.1", "10.0.0.7"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["", ","], "127.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("", ["198.51.100.1"], ""),
        ("/run/socket", ["198.51.100.1"], "/run/socket"),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(peer: str, forwarded: list[str], client: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == client


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.5", "::ffff:203.0.113.5"),
        ("", ""),
    ],
)
def test_a_client_of_ipv6_is_its_whole_site(address: str, block: str) -> None:
    assert block_of(address) == block


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost", True),
        ("LOCALHOST:3000", True),
        ("page.localhost:3000", True),
        ("127.0.0.1:3000", True),
        ("192.168.1.5", True),
        ("[::1]:3000", True),
        ("proxy.example", True),
        ("Proxy.Example:8443", True),
        ("evil.example", False),
        ("evil.example:3000", False),
        ("proxy.example.evil.example", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@127.0.0.1", True),  # no browser sends that, and nothing is done with it
        ("", False),
        ("[", False),
    ],
)
def test_a_host_that_a_foreign_page_may_have_brought_about_is_none_of_ours(host: str, is_known: bool) -> None:
    assert is_known_host(host, ("proxy.example",)) is is_known


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://proxy.example:3000"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://proxy.example:3000"}, True),
        ({"Origin": "http://PROXY.example:3000"}, True),
        ({"Origin": "https://proxy.example"}, False),
        ({"Origin": "http://proxy.example:3001"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "ftp://proxy.example:3000"}, False),
        ({"Origin": "http://proxy.example:port"}, False),
        ({}, False),
    ],
)
def test_a_page_of_this_server_is_told_by_what_only_browsers_send(headers: dict[str, str], is_ours: bool) -> None:
    assert is_same_origin(headers, "proxy.example:3000") is is_ours


def test_ports_that_go_without_saying_are_the_same() -> None:
    assert is_same_origin({"Origin": "https://proxy.example"}, "proxy.example")
    assert is_same_origin({"Origin": "https://proxy.example:443"}, "proxy.example")
    assert is_same_origin({"Origin": "http://proxy.example"}, "proxy.example:80")
