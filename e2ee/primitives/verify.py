"""Strict Ed25519 verification (RFC 8032), by libsodium. Needs no secret, so the server may import it."""

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from e2ee.errors import InvalidSignatureError

PUBLIC_KEY_LENGTH = 32
SIGNATURE_LENGTH = 64


def verify(public_key: bytes, message: bytes, signature: bytes, what: str) -> None:
    """Check a 64-byte signature under a 32-byte key; `what` names the signed object in the error.

    Strict: non-canonical S, small-order and non-canonical public keys and R are refused.

    Raises:
        InvalidSignatureError: the signature does not verify, or a length is wrong.
    """
    # libsodium takes signature and message as one string and the key as a bare pointer. Without these lengths a
    # signature over `x || message` would pass for one over `message` when x is appended to the signature.
    if len(signature) != SIGNATURE_LENGTH or len(public_key) != PUBLIC_KEY_LENGTH:
        raise InvalidSignatureError(what)
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        raise InvalidSignatureError(what) from None
