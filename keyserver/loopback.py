"""Which hosts are this machine, so that plaintext towards them leaves it never.

Owns: that judgement, for the server's command line and for the client.
Does not know about: URLs, sockets.
"""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Say whether a host name or address (IPv6 without brackets) is loopback. Names are not resolved."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
