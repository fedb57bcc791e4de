"""Who is at the other end: forwarded headers count from declared proxies, and from nobody else."""

from ipaddress import ip_network
from typing import Any

import pytest

from keyserver.peers import Peer, Peers

PROXIES = Peers([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def scope(client: str | None, scheme: str = "http", **headers: str | list[str]) -> dict[str, Any]:
    pairs = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            pairs.append((name.replace("_", "-").encode(), value.encode("latin-1")))
    return {"type": "http", "client": None if client is None else (client, 1), "scheme": scheme, "headers": pairs}


def address(found: Peer) -> str:
    return str(found.address)


def test_a_stranger_cannot_choose_an_address_or_claim_tls() -> None:
    forged = scope("192.0.2.7", x_forwarded_for="198.51.100.1", x_forwarded_proto="https")
    peer = PROXIES.find(forged)
    assert (address(peer), peer.is_encrypted, peer.through_proxy) == ("192.0.2.7", False, False)


def test_without_declared_proxies_nothing_forwarded_counts() -> None:
    for client in ("10.0.0.1", "127.0.0.1"):
        peer = Peers([]).find(scope(client, x_forwarded_for="198.51.100.1", x_forwarded_proto="https"))
        assert (address(peer), peer.is_encrypted) == (client, False)


def test_a_declared_proxy_says_who_asks_and_whether_it_was_encrypted() -> None:
    for proto, encrypted in (("https", True), ("http", False), ("HTTPS", False), (["https", "https"], False)):
        peer = PROXIES.find(scope("10.1.2.3", x_forwarded_for="198.51.100.1", x_forwarded_proto=proto))
        assert (address(peer), peer.is_encrypted, peer.through_proxy) == ("198.51.100.1", encrypted, True)
    assert not PROXIES.find(scope("10.1.2.3", x_forwarded_for="198.51.100.1")).is_encrypted


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("1.1.1.1, 198.51.100.1", "198.51.100.1"),  # what the client wrote itself is left of what the proxy added
        ("1.1.1.1, 198.51.100.1, 10.9.9.9", "198.51.100.1"),  # through two proxies of ours
        (["1.1.1.1", "198.51.100.1"], "198.51.100.1"),  # in two headers
        ("10.0.0.9", "10.0.0.9"),  # the client is inside
        ("nonsense, 198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, nonsense", "10.1.2.3"),
        ("", "10.1.2.3"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
def test_the_address_is_the_nearest_that_is_no_proxy_of_ours(said: str | list[str], found: str) -> None:
    assert address(PROXIES.find(scope("10.1.2.3", x_forwarded_for=said))) == found


def test_one_client_is_one_bucket_whatever_address_of_its_network_it_takes() -> None:
    buckets = {PROXIES.find(scope(f"2001:db8:1:2::{end}")).bucket for end in (1, 2, "ffff")}
    assert buckets == {"2001:db8:1:2::/64"}
    assert PROXIES.find(scope("2001:db8:1:3::1")).bucket not in buckets
    assert PROXIES.find(scope("192.0.2.7")).bucket == PROXIES.find(scope("::ffff:192.0.2.7")).bucket == "192.0.2.7"


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", None, "not an address"])
def test_this_machine_and_the_unknown_have_no_bucket(client: str | None) -> None:
    assert PROXIES.find(scope(client)).bucket is None


def test_behind_an_undeclared_proxy_addresses_say_nothing() -> None:
    assert Peers([], hidden=True).find(scope("10.1.2.3")).bucket is None
