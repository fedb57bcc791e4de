"""Which layer refuses: the one word that a vector gives as the reason of an invalid case.

Owns: the six layers, and which error belongs to which.
Does not know about: where in a case the error was raised, except for decoding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

from e2ee import errors
from e2ee.errors import E2EEError, InvalidPublicKeyError

Layer = Literal["decode", "signature", "dh", "authentication", "replay", "limit"]
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)

_LAYERS: Final[dict[type[E2EEError], Layer]] = {
    errors.MalformedMessageError: "decode",
    errors.UnsupportedVersionError: "decode",
    errors.InvalidSignatureError: "signature",
    errors.UnlistedDeviceError: "signature",
    errors.RemovedDeviceError: "signature",
    errors.DeviceListForkError: "signature",
    errors.AccountKeyChangedError: "signature",
    errors.DeviceListStaleError: "signature",
    errors.InvalidPublicKeyError: "dh",
    errors.UnknownPreKeyError: "dh",
    errors.AuthenticationError: "authentication",
    errors.EpochUnknownError: "authentication",
    errors.SessionNotFoundError: "authentication",
    errors.WrongRecipientError: "authentication",
    errors.LinkMismatchError: "authentication",
    errors.WrongRecoveryCodeError: "authentication",
    errors.DuplicateMessageError: "replay",
    errors.ReplayedHandshakeError: "replay",
    errors.TooManySkippedError: "limit",
    errors.KeyEvictedError: "limit",
    errors.PreKeyExpiredError: "limit",
}
"""An invalid public key is `dh` where it is used, and `decode` inside `decoding()`."""


class Refused(Exception):
    """An operation refuses its input, at this layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.layer: Final = layer


def layer_of(error: E2EEError) -> Layer:
    """Return the layer of an error.

    Raises:
        KeyError: an error that no vector may cause.
    """
    return _LAYERS[type(error)]


@contextmanager
def decoding() -> Iterator[None]:
    """Mark where bytes are parsed: a key that is not canonical is refused there, a low-order one later."""
    try:
        yield
    except InvalidPublicKeyError:
        raise Refused("decode") from None
