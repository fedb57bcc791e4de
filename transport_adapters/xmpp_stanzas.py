"""Frames as XMPP stanzas, for both ends.

Owns: the namespace, the elements.
Does not know about: streams, who may send what.

A headline to a resource that is gone is dropped: no server stores it, and none gives it to another resource (RFC 6121
section 8.5.3.2). The hints (XEP-0334) say the same to archives and carbons.
"""

from typing import Final
from xml.sax.saxutils import escape, quoteattr

from transport_adapters.text import Frame, encode_frame

NAMESPACE: Final = "urn:e2ee:1"
_HINTS: Final = "<no-store xmlns='urn:xmpp:hints'/><no-copy xmlns='urn:xmpp:hints'/>"


def frame_stanza(to: str, frame: Frame, *, by: str = "") -> str:
    """Return a frame's stanza. `by` is the sender, which only a component names."""
    return _message(to, by, f"<frame xmlns='{NAMESPACE}'>{escape(encode_frame(frame))}</frame>")


def end_stanza(to: str, *, by: str = "") -> str:
    """Return word that the connection is over."""
    return _message(to, by, f"<end xmlns='{NAMESPACE}'/>")


def unavailable_stanza(to: str, request: str, *, by: str = "") -> str:
    """Return the answer to an iq, which has to be answered: there is nothing to ask here. `to` is "" for the server."""
    error = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    return f"<iq{_addresses(to, by)} id={quoteattr(request)} type='error'>{error}</iq>"


def _message(to: str, by: str, child: str) -> str:
    return f"<message{_addresses(to, by)} type='headline'>{child}{_HINTS}</message>"


def _addresses(to: str, by: str) -> str:
    return "".join(f" {name}={quoteattr(jid)}" for name, jid in (("to", to), ("from", by)) if jid)
