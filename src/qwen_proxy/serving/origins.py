"""Where a request comes from: the client's address, and whether a browser's page of our own sent it. Pure."""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
IPV6_SITE_BITS: Final = 64  # what one customer has: the rest is theirs to choose


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Collection[Network]) -> str:
    """The address a request came from: the peer's, or what a trusted proxy says of who came to it.

    forwarded_for: the values of X-Forwarded-For, in their order. Each proxy adds what it saw at the end, so the last
    one that is no trusted proxy is the client; what stands before it may be invented.
    """
    address = peer
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    while hops and _is_trusted(address, trusted):
        hop = _parsed(hops.pop())
        if hop is None:
            break
        address = str(hop)
    return address


def block_of(address: str) -> str:
    """What is counted as one client: an IPv4 address, an IPv6 site."""
    parsed = _parsed(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address
    return str(ipaddress.ip_network((int(parsed), IPV6_SITE_BITS), strict=False).network_address)


def is_known_host(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names this server in a way no foreign page can have brought about.

    A page whose own name is made to point here (DNS rebinding) is sent with that name. Loopback names and addresses
    written as such are beyond it; other names have to be the operator's. names: in lower case.
    """
    name = _hostname(host)
    if name is None:
        return False
    return name == "localhost" or name.endswith(".localhost") or name in names or _parsed(name) is not None


def is_same_origin(headers: Mapping[str, str], host: str) -> bool:
    """Whether a browser says that a page of this very server sent the request; False too where it says nothing.

    Source: Fetch Metadata Request Headers §2.3 (`Sec-Fetch-Site`), which secure origins send; Fetch §3.1 (`Origin`).
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    try:
        origin = urlsplit(headers.get("Origin", ""))
        default = DEFAULT_PORTS[origin.scheme]
        ours = urlsplit(f"//{host}")
        return (origin.hostname, origin.port or default) == (ours.hostname, ours.port or default)
    except (KeyError, ValueError):
        return False


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_trusted(address: str, trusted: Collection[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parsed(address: str) -> Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
