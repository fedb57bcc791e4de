"""Which endpoints of Web Push the server speaks to.

Owns: the list of the browsers' own services, and the form of a URL that is taken.
Does not know about: requests.
"""

import re
from collections.abc import Sequence
from typing import Final

KNOWN_HOSTS: Final = (
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "notify.windows.com",
    "web.push.apple.com",
)
MAX_URL: Final = 2048
_ENDPOINT: Final = re.compile(r"https://([a-z0-9.-]{1,253})(:[1-9][0-9]{0,4})?/[!-~]*")
"""No user, no capital letters or escapes in the host: nothing that two parsers may read differently."""


def is_allowed(url: str, hosts: Sequence[str]) -> bool:
    """Say whether an endpoint may be spoken to: https, and a host that is named or below one that is.

    A port other than 443 is allowed where it is named with its host, as `push.example:8443`. The list is what keeps a
    client from having the server speak to machines in its own network.
    """
    match = _ENDPOINT.fullmatch(url)
    if match is None or len(url) > MAX_URL:
        return False
    host, port = match[1], match[2] or ":443"
    if port != ":443":
        return host + port in hosts
    return any(host == each or host.endswith(f".{each}") for each in hosts)
