"""Attack: guessing a shortened authenticator (docs/attacks.md row 4).

Olm version 1 and Signal's first protocol cut their MAC to 8 bytes. Here every tag, mac and commitment has full length,
and no format can carry a shorter one.
"""

import pytest

from e2ee.errors import AuthenticationError, MalformedMessageError
from e2ee.primitives import aead, kdf
from e2ee.wire.message import COMMITMENT_LENGTH, MIN_CIPHERTEXT, PQ_PAYLOAD_LENGTHS, RatchetHeader, RatchetMessage
from e2ee.wire.public_keys import RatchetPublicKey
from tests.wire_objects import seeded_rng

KEY, NONCE = seeded_rng("tags")(32), seeded_rng("nonce")(12)
SEALED = aead.seal(KEY, NONCE, b"plaintext", b"associated data")


@pytest.mark.parametrize("length", range(16))
def test_a_tag_cut_to_fewer_than_16_bytes_is_refused(length: int) -> None:
    with pytest.raises(AuthenticationError):
        aead.unseal(KEY, NONCE, SEALED[: len(SEALED) - 16 + length], b"associated data")


def test_a_mac_has_32_bytes_and_a_shorter_digest_is_no_prefix_of_it() -> None:
    assert len(kdf.mac(KEY, b"label", b"data")) == 32


def test_the_format_has_room_for_full_authenticators_only() -> None:
    assert COMMITMENT_LENGTH == 32
    assert MIN_CIPHERTEXT == 256 + aead.TAG_LENGTH == 272
    assert PQ_PAYLOAD_LENGTHS == (0, 1184 + 32, 1088 + 32, 0)


@pytest.mark.parametrize("missing", [1, 8, 15, 16])
def test_a_message_with_a_shortened_tag_does_not_decode(missing: int) -> None:
    header = RatchetHeader(RatchetPublicKey.from_bytes(bytes(32)), 0, 0, 0, 0)

    with pytest.raises(MalformedMessageError):
        RatchetMessage.decode(header.encode() + bytes(32 + 12 + MIN_CIPHERTEXT - missing))
