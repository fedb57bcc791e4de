"""Who is at the other end of a connection, also behind a proxy.

Owns: which headers are believed of whom.
Does not know about: what is made of it. `X-Forwarded-For` and `X-Forwarded-Proto` count from declared proxies only:
from anybody else they are what the sender likes to be taken for.
"""

from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple, final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Scope = MutableMapping[str, Any]

_LONGEST_ADDRESS: Final = 64
"""Characters, with brackets, a zone and a port."""
_KEY: Final = "e2ee.keyserver.peer"
_ENCRYPTED: Final = ("https", "wss")


class Peer(NamedTuple):
    """The client as far as it is known. `address` is None if it is not."""

    address: Address | None
    is_encrypted: bool
    """The client speaks TLS: to us, or to the proxy, as that one says."""
    through_proxy: bool
    """A declared proxy brought the request."""

    @property
    def bucket(self) -> str | None:
        """The name under which this client's requests are counted: its address, of IPv6 the /64.

        None for this machine: a peer on loopback is a proxy that was not declared, or the operator.
        """
        if self.address is None or self.address.is_loopback:
            return None
        if isinstance(self.address, IPv6Address):
            return str(ip_network((self.address, 64), strict=False))
        return str(self.address)


@final
class Peers:
    """Finds the client of a request."""

    def __init__(self, proxies: Sequence[Network], *, hidden: bool = False) -> None:
        """`hidden`: everybody comes through a proxy that was not declared, so addresses say nothing."""
        self._proxies = tuple(proxies)
        self._hidden = hidden

    def find(self, scope: Scope) -> Peer:
        """Say who sent a request of ASGI. The answer is kept with the request."""
        if _KEY not in scope:
            scope[_KEY] = self._find(scope)
        peer: Peer = scope[_KEY]
        return peer

    def _find(self, scope: Scope) -> Peer:
        client = scope.get("client")
        direct = _address(client[0]) if client else None
        encrypted = scope.get("scheme") in _ENCRYPTED
        if direct is None or not self._is_proxy(direct):
            return Peer(None if self._hidden else direct, encrypted, through_proxy=False)
        said = ",".join(_header(scope, b"x-forwarded-for")).split(",")
        proto = _header(scope, b"x-forwarded-proto")
        return Peer(self._client_of(direct, said), proto == ["https"], through_proxy=True)

    def _client_of(self, proxy: Address, said: Sequence[str]) -> Address:
        """Go back from the nearest to the first that is no proxy of ours: all before it is what that one said."""
        nearest = proxy
        for text in reversed(said):
            address = _address(text.strip())
            if address is None:
                return nearest
            nearest = address
            if not self._is_proxy(address):
                return address
        return nearest

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _address(text: str) -> Address | None:
    """Parse an address, with or without a port."""
    return _parsed(text) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
